"""The aptitude test: which graded questions stand for which tasks, by item id only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.files import sha256_hex, write_json
from modelsat_engine.errors import DataError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class AptitudeTask:
    """One core task: the paper describes it by five keywords and measures it by 20 shots.

    Attributes:
        name: the task, as the source of its questions calls it.
        keywords: what the task is about, five in the shipped test.
        item_ids: the questions, 20 in the shipped test, as ``benchmark/...`` ids; the texts are not kept.
        item_hashes: :attr:`Question.hash` of each item, in the order of ``item_ids``, so that the questions are
            found again wherever they come from; empty when the writer did not know the texts. It is no part of the
            test's identity: two tests with the same ids are equal, with hashes or without.
    """

    name: str
    keywords: tuple[str, ...]
    item_ids: tuple[str, ...]
    item_hashes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("keywords", "item_ids", "item_hashes"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise DataError(f"aptitude task {self.name!r}: {name} must be a list of strings, not one string")
            object.__setattr__(self, name, tuple(value))
            if not getattr(self, name) and name != "item_hashes":
                raise DataError(f"aptitude task {self.name!r} has no {name}; give at least one")
            if not all(isinstance(entry, str) and entry.strip() for entry in getattr(self, name)):
                raise DataError(f"aptitude task {self.name!r}: every entry of {name} must be a non-empty string")
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise DataError(f"aptitude task {self.name!r} lists one of its {name} twice")
        if self.item_hashes and len(self.item_hashes) != len(self.item_ids):
            raise DataError(
                f"aptitude task {self.name!r} has {len(self.item_ids)} items, but {len(self.item_hashes)} item_hashes; "
                "give one for each, or none"
            )
        given: object = self.name  # a file may hold anything
        if not isinstance(given, str) or not given.strip():
            raise DataError("an aptitude task needs a non-empty name")


@dataclass(frozen=True)
class AptitudeTest:
    """The whole test, 50 tasks x 20 items in the shipped bundle. Immutable; equal tests have equal ids.

    Attributes:
        tasks: in the order that every array over tasks follows.
    """

    tasks: tuple[AptitudeTask, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks:
            raise DataError("an aptitude test needs at least one task")
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"aptitude test names the task {twice!r} twice")
        if len(self.item_ids) != sum(len(task.item_ids) for task in self.tasks):
            raise DataError("aptitude test uses one item in two tasks; an item may measure one task only")

    @cached_property
    def id(self) -> str:
        """``sha256:`` and 16 hexadecimal digits over names, keywords and items, in their order."""
        return "sha256:" + sha256_hex(self._tasks_json())[:16]

    @cached_property
    def item_ids(self) -> frozenset[str]:
        """Every item of every task: these never appear among training or evaluation instructions."""
        return frozenset(item for task in self.tasks for item in task.item_ids)

    @cached_property
    def item_hashes(self) -> dict[str, str]:
        """item id -> content hash, for the items of which it is known."""
        return {
            item: content
            for task in self.tasks
            for item, content in zip(task.item_ids, task.item_hashes, strict=bool(task.item_hashes))
        }

    @cached_property
    def task_names(self) -> tuple[str, ...]:
        """The tasks' names in the order of :attr:`tasks`."""
        return tuple(task.name for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """The content of ``aptitude.json``."""
        tasks = [
            {**value, "item_hashes": list(task.item_hashes)} if task.item_hashes else value
            for value, task in zip(self._tasks_json(), self.tasks, strict=True)
        ]
        return {"format_version": FORMAT_VERSION, "id": self.id, "tasks": tasks}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AptitudeTest:
        """The test that :meth:`to_json` described.

        Raises:
            DataError: another format version, a missing key, or an id that does not belong to the tasks.
        """
        if not isinstance(value, Mapping):
            raise DataError("an aptitude test must be a JSON object with the keys format_version, id and tasks")
        if value.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"aptitude test has format version {value.get('format_version')!r}, this version reads "
                f"{FORMAT_VERSION}; rebuild it or install the version that wrote it"
            )
        try:
            tasks = tuple(
                AptitudeTask(t["name"], t["keywords"], t["item_ids"], t.get("item_hashes", ())) for t in value["tasks"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"aptitude test is malformed ({error}); every task needs name, keywords, item_ids"
            ) from error
        test = cls(tasks)
        if value.get("id") != test.id:
            raise DataError(
                f"aptitude test calls itself {value.get('id')!r} but its tasks give {test.id}: it was edited; "
                "rebuild it"
            )
        return test

    @classmethod
    def load(cls, path: str | Path) -> AptitudeTest:
        """Read an ``aptitude.json``.

        Raises:
            DataError: the file is missing, is not JSON, or fails :meth:`from_json`; the message names it.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot read the aptitude test {path}: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{path} is not a JSON file ({error})") from error
        try:
            return cls.from_json(value)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write an ``aptitude.json``, whole or not at all."""
        write_json(path, self.to_json())

    def _tasks_json(self) -> list[dict[str, Any]]:
        return [
            {"name": task.name, "keywords": list(task.keywords), "item_ids": list(task.item_ids)} for task in self.tasks
        ]
