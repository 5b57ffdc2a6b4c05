"""The capability profile: what one candidate showed on the aptitude test, as counts per task."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modelsat_engine.aptitude.files import sha256_hex
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import ProfileError

_JSON_KEYS = frozenset(
    {"name", "correct", "total", "answers", "notes", "usd_per_million_tokens", "test_id", "refinement"}
)


@dataclass(frozen=True)
class CapabilityProfile:
    """A candidate as the router knows it: the paper's capability representation c_m before it becomes text.

    Attributes:
        name: how the gateway calls the candidate; unique in a zoo.
        correct: task name -> items answered right.
        total: task name -> items answered at all; the same keys. A task with total 0 says nothing.
        answers: item id -> right or wrong, where known; the router does not need it, baselines do.
        notes: expert notes in plain words (languages, instruction-tuned or not, context length), may be "".
        usd_per_million_tokens: price, US dollars; None when unknown, never a guess.
        test_id: the :attr:`AptitudeTest.id` the counts belong to; None when the writer did not say.
        refinement: what other graded answers add, for one router; None without any.

    Raises:
        ProfileError: an empty name, different keys, a count that is not a whole number, correct outside
            0..total, no task at all, or a price that is negative or not finite.
    """

    name: str
    correct: Mapping[str, int]
    total: Mapping[str, int]
    answers: Mapping[str, bool] | None = None
    notes: str = ""
    usd_per_million_tokens: float | None = None
    test_id: str | None = None
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        name: object = self.name  # a file may hold anything
        notes: object = self.notes
        if not isinstance(name, str) or not name.strip():
            raise ProfileError(f"a capability profile needs a non-empty name, not {name!r}")
        if not isinstance(notes, str):
            raise ProfileError(f"{self.name}: notes must be text, not {type(notes).__name__}")
        if self.test_id is not None and not isinstance(self.test_id, str):
            raise ProfileError(f"{self.name}: test_id must be the aptitude test's id, not {self.test_id!r}")
        if self.refinement is not None and not isinstance(self.refinement, Refinement):
            raise ProfileError(f"{self.name}: refinement must be a Refinement, not {type(self.refinement).__name__}")
        correct = _counts(self.name, "correct", self.correct)
        total = _counts(self.name, "total", self.total)
        if not total:
            raise ProfileError(f"{self.name}: the profile has no task; give correct and total for each task")
        if correct.keys() != total.keys():
            odd = sorted(correct.keys() ^ total.keys())[0]
            raise ProfileError(f"{self.name}: task {odd!r} is in only one of correct and total; give both counts")
        for task, count in correct.items():
            if not 0 <= count <= total[task]:
                raise ProfileError(
                    f"{self.name}: task {task!r} has {count} right of {total[task]}; need 0 <= correct <= total"
                )
        object.__setattr__(self, "correct", correct)
        object.__setattr__(self, "total", total)
        object.__setattr__(self, "answers", _answers(self.name, self.answers))
        object.__setattr__(self, "usd_per_million_tokens", _price(self.name, self.usd_per_million_tokens))

    @classmethod
    def from_answers(
        cls,
        name: str,
        test: AptitudeTest,
        answers: Mapping[str, bool],
        *,
        notes: str = "",
        usd_per_million_tokens: float | None = None,
    ) -> CapabilityProfile:
        """Count graded answers into tasks; an item without an answer lowers its task's total.

        Args:
            answers: item id -> right or wrong.

        Raises:
            ProfileError: an item that is not in ``test``, or nothing answered.
        """
        graded = _answers(name, answers) or {}
        unknown = sorted(graded.keys() - test.item_ids)
        if unknown:
            raise ProfileError(
                f"{name}: item {unknown[0]!r} is not in the aptitude test {test.id} ({len(unknown)} such); "
                "grade the items that the test lists"
            )
        if not graded:
            raise ProfileError(f"{name}: no aptitude item is answered; grade at least one")
        total = {task.name: sum(item in graded for item in task.item_ids) for task in test.tasks}
        correct = {task.name: sum(graded.get(item, False) for item in task.item_ids) for task in test.tasks}
        return cls(name, correct, total, graded, notes, usd_per_million_tokens, test.id)

    def counts(self, test: AptitudeTest) -> tuple[np.ndarray, np.ndarray]:
        """The counts in the test's task order.

        Returns:
            correct, total: float32 ``[tasks]`` each. A task that the profile lacks counts as 0 of 0;
            :meth:`missing_tasks` tells which, so that the caller can warn.

        Raises:
            ProfileError: the profile belongs to another test, or knows a task that the test does not.
        """
        if self.test_id is not None and self.test_id != test.id:
            raise ProfileError(
                f"{self.name}: the profile belongs to the aptitude test {self.test_id}, the router was trained on "
                f"{test.id}; grade the candidate on that test"
            )
        unknown = sorted(self.total.keys() - set(test.task_names))
        if unknown:
            raise ProfileError(
                f"{self.name}: task {unknown[0]!r} is not in the aptitude test {test.id} ({len(unknown)} such); "
                "use the task names of the test"
            )
        correct = np.array([self.correct.get(task, 0) for task in test.task_names], np.float32)  # [T]
        total = np.array([self.total.get(task, 0) for task in test.task_names], np.float32)  # [T]
        return correct, total

    def missing_tasks(self, test: AptitudeTest) -> tuple[str, ...]:
        """Tasks of ``test`` about which this profile says nothing (absent, or 0 answers)."""
        return tuple(task for task in test.task_names if not self.total.get(task, 0))

    @property
    def accuracy(self) -> float:
        """Share of all answered items that are right, in [0, 1]; NaN when every total is 0."""
        total = sum(self.total.values())
        return sum(self.correct.values()) / total if total else math.nan

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every attribute; keys that say nothing are left out."""
        value: dict[str, Any] = {"name": self.name, "correct": dict(self.correct), "total": dict(self.total)}
        if self.answers is not None:
            value["answers"] = {item: int(right) for item, right in self.answers.items()}
        if self.notes:
            value["notes"] = self.notes
        if self.usd_per_million_tokens is not None:
            value["usd_per_million_tokens"] = self.usd_per_million_tokens
        if self.test_id is not None:
            value["test_id"] = self.test_id
        if self.refinement is not None:
            value["refinement"] = self.refinement.to_json()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CapabilityProfile:
        """The profile that :meth:`to_json` described.

        Raises:
            ProfileError: not an object, a missing or unknown key (a misspelt price must not pass in silence),
                or values that the class refuses.
        """
        if not isinstance(value, Mapping):
            raise ProfileError(f"a capability profile must be a JSON object, not {type(value).__name__}")
        name = value.get("name", "a profile")
        missing = sorted({"name", "correct", "total"} - value.keys())
        if missing:
            raise ProfileError(f"{name}: the key {missing[0]!r} is missing; a profile needs name, correct and total")
        unknown = sorted(value.keys() - _JSON_KEYS)
        if unknown:
            raise ProfileError(
                f"{name}: unknown key {unknown[0]!r}; a profile may have {', '.join(sorted(_JSON_KEYS))}"
            )
        refinement = value.get("refinement")
        if refinement is not None:
            try:
                refinement = Refinement.from_json(refinement)
            except ProfileError as error:
                raise ProfileError(f"{name}: {error}") from error
        return cls(**{**value, "notes": value.get("notes") or "", "refinement": refinement})

    @cached_property
    def hash(self) -> str:
        """sha256 over the whole profile, 64 hexadecimal digits: equal exactly when two profiles are equal."""
        return sha256_hex(self.to_json())

    def __hash__(self) -> int:
        return hash(self.hash)


def load_names(profiles: Iterable[CapabilityProfile]) -> list[str]:
    """The profiles' names, in order.

    Raises:
        ProfileError: two profiles share a name.
    """
    names: list[str] = []
    seen: set[str] = set()
    for profile in profiles:
        if profile.name in seen:
            raise ProfileError(f"the zoo has two candidates called {profile.name!r}; give each its own name")
        seen.add(profile.name)
        names.append(profile.name)
    return names


def _counts(name: str, field: str, value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise ProfileError(f"{name}: {field} must map each task to a count, not be a {type(value).__name__}")
    counts: dict[str, int] = {}
    for task, count in value.items():
        if not isinstance(task, str) or not task:
            raise ProfileError(f"{name}: {field} has a task name that is not text: {task!r}")
        try:
            if isinstance(count, (bool, np.bool_)):
                raise TypeError
            counts[task] = operator.index(count)  # whole numbers only: 0.85 is an accuracy, not a count
        except TypeError:
            raise ProfileError(
                f"{name}: {field} of task {task!r} is {count!r}; give a whole number of items, not a share"
            ) from None
    return counts


def _answers(name: str, value: Any) -> dict[str, bool] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ProfileError(f"{name}: answers must map each item id to true or false")
    answers: dict[str, bool] = {}
    for item, right in value.items():
        if not isinstance(item, str) or not isinstance(right, (bool, int, np.bool_, np.integer)) or right not in (0, 1):
            raise ProfileError(f"{name}: answer to item {item!r} is {right!r}; give true (right) or false (wrong)")
        answers[item] = bool(right)
    return answers


def _price(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ProfileError(f"{name}: usd_per_million_tokens must be a number or left out, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ProfileError(
            f"{name}: usd_per_million_tokens is {value}; give a finite price of 0 or more, or leave it out"
        )
    return float(value)
