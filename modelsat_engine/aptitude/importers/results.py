"""What every importer yields: answers to single questions, accuracies on whole tasks, and what was left aside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelsat_engine.errors import DataError

LOG_LIKELIHOOD = "scored by log-likelihood"
CHAIN_OF_THOUGHT = "answers with chain of thought"


@dataclass(frozen=True)
class ItemResult:
    """One question and whether the model answered it right.

    Attributes:
        where: file and row, for messages.
        correct: right or wrong.
        ids: names under which a test may know the question, the surest first.
        content: :attr:`Question.hash`; None when the file has no text, or nobody asked for it.
        task: the benchmark's name for the task; None when unknown.
        benchmark: where the question is from, such as ``mmlu_pro``; None when unknown.
    """

    where: str
    correct: bool
    ids: tuple[str, ...] = ()
    content: str | None = None
    task: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True)
class TaskResult:
    """An accuracy on a task as a whole, over ``total`` questions that are not known one by one."""

    where: str
    task: str
    accuracy: float
    total: int
    benchmark: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise DataError(
                f"{self.where}: the accuracy of {self.task!r} is {self.accuracy}; need a share between 0 and 1"
            )
        if self.total < 1:
            raise DataError(f"{self.where}: {self.task!r} has {self.total} questions; need at least one")


@dataclass
class Results:
    """Everything that was read.

    Attributes:
        model: the model's name as the files have it; None when they do not say.
        protocol: how the answers were obtained, as an expert note; None when the files do not say.
        remarks: what was left aside and why, one sentence each.
    """

    items: list[ItemResult] = field(default_factory=list)
    tasks: list[TaskResult] = field(default_factory=list)
    model: str | None = None
    protocol: str | None = None
    remarks: list[str] = field(default_factory=list)

    def extend(self, other: Results) -> None:
        """Add what another file holds.

        Raises:
            DataError: it is about another model.
        """
        if self.model and other.model and self.model != other.model:
            raise DataError(
                f"the files hold results of two models, {self.model!r} and {other.model!r}; import one at a time"
            )
        self.items += other.items
        self.tasks += other.tasks
        self.model = self.model or other.model
        if self.protocol and other.protocol and self.protocol != other.protocol:
            self.remarks.append(f"the files mix protocols: {self.protocol}, and {other.protocol}")
        self.protocol = self.protocol or other.protocol
        self.remarks += [remark for remark in other.remarks if remark not in self.remarks]


def as_outcome(value: Any, where: str) -> bool:
    """Right or wrong, from 1, 0, 1.0, true, "yes", "wrong" and their like.

    Raises:
        DataError: anything else, such as 0.5 or NaN.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("1", "1.0", "true", "t", "yes", "y", "right", "correct"):
            return True
        if text in ("0", "0.0", "false", "f", "no", "n", "wrong", "incorrect"):
            return False
    elif isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise DataError(f"{where}: {value!r} is neither right (1, true) nor wrong (0, false)")


def as_count(value: Any, where: str, what: str) -> int:
    """A whole number of 0 or more, from a number or its text.

    Raises:
        DataError: anything else.
    """
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or not number.is_integer() or number > 1e9:
        raise DataError(f"{where}: {what} is {value!r}; need a whole number of questions")
    return int(number)


def as_share(value: Any, where: str, what: str) -> float:
    """A share in [0, 1], from a number or its text.

    Raises:
        DataError: anything else; 78.3 is refused with a hint, since it could be per cent or a mistake.
    """
    try:
        share = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        share = math.nan
    if math.isnan(share) or not 0 <= share <= 1:
        hint = f"; if it is per cent, write {share / 100:g}" if 1 < share <= 100 else ""
        raise DataError(f"{where}: {what} is {value!r}; need a share between 0 and 1{hint}")
    return share


def existing(paths: Iterable[str | Path]) -> list[Path]:
    """The paths, none missing.

    Raises:
        DataError: one does not exist.
    """
    found = [Path(path) for path in paths]
    for path in found:
        if not path.exists():
            raise DataError(f"{path} does not exist")
    return found
