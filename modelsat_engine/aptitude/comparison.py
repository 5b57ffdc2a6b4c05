"""Two capability profiles side by side: where one candidate is better, and how sure that is.

Two candidates that answered the same items are compared on these, pair by pair, which is far sharper: a hard
question is hard for both. Where the answers to single items are not known, the counts of the task are compared as
independent. Over fifty tasks some differ by luck alone; p values are adjusted for that (Holm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelsat_engine.aptitude.intervals import (
    Interval,
    difference,
    fisher,
    holm,
    mcnemar,
    paired_difference,
    stratified_difference,
    wilson,
)
from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import ProfileError

PAIRED = "paired: Newcombe's score interval for paired shares, McNemar's mid-p test"
INDEPENDENT = "independent: Newcombe's hybrid score interval, Fisher's mid-p test"
STRATIFIED = "independent within tasks: Mantel-Haenszel difference, Greenland-Robins variance"


@dataclass(frozen=True)
class TaskScore:
    """One candidate on one task.

    Attributes:
        interval: Wilson's, of the share of right answers; (0, 1) without an answer.
    """

    task: str
    correct: int
    total: int
    interval: Interval

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None without an answer."""
        return self.correct / self.total if self.total else None

    def to_json(self) -> dict[str, Any]:
        """Every attribute, in JSON."""
        return {
            "task": self.task,
            "correct": self.correct,
            "total": self.total,
            "accuracy": None if self.accuracy is None else round(self.accuracy, 4),
            "interval": [round(end, 4) for end in self.interval],
        }


@dataclass(frozen=True)
class Difference:
    """Accuracy of the first candidate less that of the second.

    Attributes:
        task: the task's name; "" for all tasks together.
        difference: positive where the first is better.
        interval: of the difference, at the confidence asked for, of this one comparison.
        p_value: of no difference; ``p_adjusted`` is the same for all tasks taken together (Holm).
        method: how both were computed, one of the constants of this module.
    """

    task: str
    difference: float
    interval: Interval
    p_value: float
    p_adjusted: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """Every attribute, in JSON."""
        return {
            "task": self.task,
            "difference": round(self.difference, 4),
            "interval": [round(end, 4) for end in self.interval],
            "p_value": float(f"{self.p_value:.3g}"),
            "p_adjusted": float(f"{self.p_adjusted:.3g}"),
            "method": self.method,
        }


@dataclass(frozen=True)
class Comparison:
    """Two candidates on the tasks that both have answers for.

    Attributes:
        a, b: the profiles.
        scores_a, scores_b: of every task that either profile has, in one order.
        overall: over all tasks in common.
        tasks: one difference per task in common, in the order of the scores.
    """

    a: CapabilityProfile
    b: CapabilityProfile
    confidence: float
    scores_a: tuple[TaskScore, ...]
    scores_b: tuple[TaskScore, ...]
    overall: Difference
    tasks: tuple[Difference, ...]

    @property
    def certain(self) -> tuple[Difference, ...]:
        """The tasks whose difference stands, all tasks taken together."""
        return tuple(task for task in self.tasks if task.p_adjusted < 1 - self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON."""
        return {
            "a": _side(self.a, self.scores_a),
            "b": _side(self.b, self.scores_b),
            "confidence": self.confidence,
            "overall": self.overall.to_json(),
            "tasks": [task.to_json() for task in self.tasks],
            "tasks_that_differ": [task.task for task in self.certain],
        }


def task_scores(profile: CapabilityProfile, confidence: float = 0.95) -> tuple[TaskScore, ...]:
    """Every task of a profile with its Wilson interval, in the profile's order."""
    return tuple(
        TaskScore(task, profile.correct[task], total, wilson(profile.correct[task], total, confidence))
        for task, total in profile.total.items()
    )


def overall_score(profile: CapabilityProfile, confidence: float = 0.95) -> TaskScore:
    """All answers of a profile together; the task is called ""."""
    correct, total = sum(profile.correct.values()), sum(profile.total.values())
    return TaskScore("", correct, total, wilson(correct, total, confidence))


def compare(
    a: CapabilityProfile, b: CapabilityProfile, test: AptitudeTest | None = None, confidence: float = 0.95
) -> Comparison:
    """Compare two profiles of one aptitude test.

    Args:
        test: the test, whose items tell which answers belong to which task. Without it, or when it is another one
            than the profiles', answers are compared as independent.
        confidence: of every interval.

    Raises:
        ProfileError: profiles of two tests, or no task that both have answers for.
    """
    if a.test_id and b.test_id and a.test_id != b.test_id:
        raise ProfileError(
            f"{a.name} took the aptitude test {a.test_id}, {b.name} took {b.test_id}: their accuracies are on "
            "different questions; grade both on one test"
        )
    common = [task for task in a.total if a.total[task] and b.total.get(task)]
    if not common:
        raise ProfileError(f"{a.name} and {b.name} have no task in common that both have answers for")
    items = _items(a, b, test)
    raw: list[tuple[str, float, Interval, float, str]] = []
    tables: list[tuple[int, int, int, int]] = []
    for task in common:
        table = _table(a, b, task, items.get(task, ()))
        if table is not None:
            tables.append(table)
            raw.append((task, *_paired(table, confidence), PAIRED))
            continue
        counts = (a.correct[task], a.total[task], b.correct[task], b.total[task])
        share = counts[0] / counts[1] - counts[2] / counts[3]
        raw.append((task, share, difference(*counts, confidence), fisher(*counts), INDEPENDENT))
    adjusted = holm([p for _, _, _, p, _ in raw])
    if len(tables) == len(common):
        both, only_a, only_b, neither = (sum(column) for column in zip(*tables, strict=True))
        middle, interval, p_value = _paired((both, only_a, only_b, neither), confidence)
        overall = Difference("", middle, interval, p_value, p_value, PAIRED)
    else:
        whole = stratified_difference(
            [(a.correct[t], a.total[t], b.correct[t], b.total[t]) for t in common], confidence
        )
        overall = Difference("", whole.difference, whole.interval, whole.p_value, whole.p_value, STRATIFIED)
    order = list(dict.fromkeys([*a.total, *b.total]))
    return Comparison(
        a,
        b,
        confidence,
        _scores(a, order, confidence),
        _scores(b, order, confidence),
        overall,
        tuple(Difference(*values[:4], p, values[4]) for values, p in zip(raw, adjusted, strict=True)),
    )


def _items(a: CapabilityProfile, b: CapabilityProfile, test: AptitudeTest | None) -> dict[str, tuple[str, ...]]:
    """task -> its items, where the profiles belong to the test."""
    if test is None or any(profile.test_id not in (None, test.id) for profile in (a, b)):
        return {}
    return {task.name: task.item_ids for task in test.tasks}


def _table(
    a: CapabilityProfile, b: CapabilityProfile, task: str, items: tuple[str, ...]
) -> tuple[int, int, int, int] | None:
    """(both right, only a, only b, neither) when single answers to the same items make up both counts."""
    theirs_a = {item: (a.answers or {})[item] for item in items if item in (a.answers or {})}
    theirs_b = {item: (b.answers or {})[item] for item in items if item in (b.answers or {})}
    if not theirs_a or theirs_a.keys() != theirs_b.keys():
        return None
    if (sum(theirs_a.values()), len(theirs_a)) != (a.correct[task], a.total[task]):
        return None
    if (sum(theirs_b.values()), len(theirs_b)) != (b.correct[task], b.total[task]):
        return None
    pairs = [(theirs_a[item], theirs_b[item]) for item in theirs_a]
    return (
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
    )


def _paired(table: tuple[int, int, int, int], confidence: float) -> tuple[float, Interval, float]:
    share = (table[1] - table[2]) / sum(table)
    return share, paired_difference(*table, confidence), mcnemar(table[1], table[2])


def _scores(profile: CapabilityProfile, order: list[str], confidence: float) -> tuple[TaskScore, ...]:
    known = {score.task: score for score in task_scores(profile, confidence)}
    return tuple(known.get(task, TaskScore(task, 0, 0, Interval(0.0, 1.0))) for task in order)


def _side(profile: CapabilityProfile, scores: tuple[TaskScore, ...]) -> dict[str, Any]:
    whole = overall_score(profile)
    return {
        "name": profile.name,
        "notes": profile.notes,
        "accuracy": None if whole.accuracy is None else round(whole.accuracy, 4),
        "answers": whole.total,
        "tasks": [score.to_json() for score in scores],
    }
