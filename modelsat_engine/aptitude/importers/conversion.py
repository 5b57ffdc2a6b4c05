"""From results to a capability profile that claims no more than the results show.

The router reads a profile as answers to the items of its own test. Three kinds of results say something about them:

1. *Answers to the test's own items*, found by id or by content, count as they are.
2. *An accuracy on a whole task of the same benchmark* is over other questions than the test's items, which are drawn
   to tell models apart. On the shipped test, a model's accuracy on a task's items lies 4.0 points above its accuracy
   on the rest of the task in the mean, and by 5.6 points (standard deviation) more or less from task to task, however
   many questions the accuracy is over (tests/aptitude/test_real_results.py). So it counts as at most as many answers
   as the test has for the task, 20 of them if it is over 1,000 questions.
3. *An accuracy on another benchmark's questions* is refused, since it is on another scale: MMLU's four options and
   easier questions would put a model far above candidates that were graded on MMLU-Pro. Anchors, models measured on
   both, carry it over (see :mod:`~modelsat_engine.aptitude.importers.equating`); ``as_is`` takes it at its word.

For a task with answers of the first kind the others are not used. A task without any stays unknown: 0 of 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelsat_engine.aptitude.importers.equating import Counts, Step, step_between
from modelsat_engine.aptitude.importers.names import MMLU_PRO_CATEGORIES, squashed
from modelsat_engine.aptitude.importers.results import Results, TaskResult
from modelsat_engine.aptitude.item_matching import ItemMatcher, common_prefix
from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError

_Task = tuple[str | None, str]  # benchmark and task, as the results call them
DUPLICATES = ("error", "first", "last")
_CATEGORIES = frozenset(map(squashed, MMLU_PRO_CATEGORIES))


@dataclass
class ImportReport:
    """What became of the results.

    Attributes:
        items: answers that count as answers to the test's items.
        items_not_in_test: answers to questions that the test does not ask.
        content_differs: answers whose id is in the test, but whose question is not the test's.
        duplicates: repeated answers that were not counted again.
        tasks_from_items, tasks_from_accuracy, missing_tasks: the test's tasks, by what is known of them.
        unknown_tasks: tasks of the results that the test does not have.
        other_benchmark: tasks of the results that measure the same subject by another benchmark's questions.
        step: how accuracies were carried over from another benchmark; None when they were not.
        remarks: what a person should know, one sentence each.
    """

    items: int = 0
    items_not_in_test: int = 0
    content_differs: int = 0
    duplicates: int = 0
    tasks_from_items: list[str] = field(default_factory=list)
    tasks_from_accuracy: list[str] = field(default_factory=list)
    missing_tasks: list[str] = field(default_factory=list)
    unknown_tasks: list[str] = field(default_factory=list)
    other_benchmark: list[str] = field(default_factory=list)
    step: Step | None = None
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Every attribute, in JSON."""
        value = dict(vars(self))
        value["step"] = None if self.step is None else self.step._asdict()
        return value


@dataclass(frozen=True)
class Anchor:
    """A model that was measured on both benchmarks: its results on the other one, its profile on the test."""

    results: Results
    profile: CapabilityProfile


def profile_from_results(
    name: str,
    test: AptitudeTest,
    results: Results,
    matcher: ItemMatcher,
    *,
    anchors: Sequence[Anchor] = (),
    as_is: bool = False,
    duplicates: str = "error",
    notes: str = "",
    usd_per_million_tokens: float | None = None,
) -> tuple[CapabilityProfile, ImportReport]:
    """The profile, and a report of what was used and what was not.

    Args:
        results: what the importers read.
        matcher: finds the test's items among them.
        anchors: carry accuracies on another benchmark over.
        as_is: take accuracies on another benchmark as if they were on this one.
        duplicates: of two different results for one item or task, take neither and stop ("error"), the "first" or
            the "last". Equal ones count once in any case.

    Raises:
        DataError: contradicting results, or nothing that says anything about the test.
        ProfileError: the name, notes or price cannot be a profile's; an anchor's profile is of another test.
    """
    report = ImportReport(remarks=list(results.remarks))
    answers, found_in = _answers(results, matcher, duplicates, report)
    accuracies = _accuracies(results, found_in, duplicates, report)
    counts = {
        task.name: Counts(sum(answers[i] for i in known), len(known))
        for task in test.tasks
        if (known := [item for item in task.item_ids if item in answers])
    }
    report.items, report.tasks_from_items = len(answers), sorted(counts)
    shots = {task.name: len(task.item_ids) for task in test.tasks}

    same, other = _match_tasks(test, accuracies, report)
    for task, result in same.items():
        if task not in counts:
            counts[task] = _capped(result, shots[task])
            report.tasks_from_accuracy.append(task)
    wanted = {task: result for task, result in other.items() if task not in counts}
    if wanted and anchors:
        report.step = _step(test, anchors, wanted)
        for task, result in wanted.items():
            counts[task] = report.step.carry(Counts(result.accuracy * result.total, result.total), shots[task])
    elif wanted and as_is:
        counts.update({task: _capped(result, shots[task]) for task, result in wanted.items()})
    elif wanted:
        report.other_benchmark = sorted(wanted)
    if wanted and not report.other_benchmark:
        report.tasks_from_accuracy += wanted
        _say_how_carried(report, wanted, as_is)
    report.tasks_from_accuracy.sort()
    report.missing_tasks = [task for task in test.task_names if task not in counts]
    if not counts:
        raise DataError(_nothing(test, results, report, wanted))
    if report.other_benchmark:
        report.remarks.append(_refused(test, wanted))
    profile = CapabilityProfile(
        name,
        {task: int(counts[task].correct) if task in counts else 0 for task in test.task_names},
        {task: int(counts[task].total) if task in counts else 0 for task in test.task_names},
        answers or None,
        notes,
        usd_per_million_tokens,
        test.id,
    )
    return profile, report


def _answers(
    results: Results, matcher: ItemMatcher, duplicates: str, report: ImportReport
) -> tuple[dict[str, bool], set[_Task]]:
    """(item -> right or wrong, the results' tasks in which items of the test were found)."""
    answers: dict[str, bool] = {}
    found_in: set[_Task] = set()
    where_of: dict[str, str] = {}
    for result in results.items:
        item, refused = matcher.find(result.ids, result.content)
        report.content_differs += refused
        if item is None:
            report.items_not_in_test += not refused
            continue
        found_in.add((result.benchmark, result.task or ""))
        if item not in answers:
            answers[item], where_of[item] = result.correct, result.where
            continue
        report.duplicates += 1
        if answers[item] != result.correct:
            if duplicates == "error":
                raise DataError(
                    f"item {item!r} is {_word(answers[item])} in {where_of[item]} and {_word(result.correct)} in "
                    f"{result.where}; keep one of them, or say which counts with --duplicates first or last"
                )
            if duplicates == "last":
                answers[item], where_of[item] = result.correct, result.where
    return answers, found_in


def _accuracies(
    results: Results, found_in: Collection[_Task], duplicates: str, report: ImportReport
) -> dict[_Task, TaskResult]:
    """One accuracy per task: as told, or counted from a known benchmark's questions that are not the test's."""
    counted: dict[_Task, list[bool]] = defaultdict(list)
    for item in results.items:
        if item.benchmark and item.task:
            counted[item.benchmark, item.task].append(item.correct)
    told: dict[_Task, TaskResult] = {}
    for result in results.tasks:
        key = (result.benchmark, result.task)
        before = told.get(key)
        if before is not None and (before.total != result.total or abs(before.accuracy - result.accuracy) > 1e-9):
            if duplicates == "error":
                raise DataError(
                    f"task {result.task!r} is {before.accuracy:.4g} of {before.total} in {before.where} and "
                    f"{result.accuracy:.4g} of {result.total} in {result.where}; keep one of them, or say which "
                    "counts with --duplicates first or last"
                )
            if duplicates == "first":
                continue
        report.duplicates += before is not None
        told[key] = result
    for key, outcomes in counted.items():
        share = sum(outcomes) / len(outcomes)
        if key in told and abs(told[key].accuracy - share) * len(outcomes) > 1 and told[key].total == len(outcomes):
            report.remarks.append(
                f"{key[1]}: the results say {told[key].accuracy:.4g}, the samples give {share:.4g}; the samples count"
            )
        told[key] = TaskResult("the samples", key[1], share, len(outcomes), key[0])
    return {key: result for key, result in told.items() if key not in found_in}


def _match_tasks(
    test: AptitudeTest, accuracies: Mapping[_Task, TaskResult], report: ImportReport
) -> tuple[dict[str, TaskResult], dict[str, TaskResult]]:
    """(accuracies on the test's own benchmark, accuracies on another one), by the test's task names."""
    own = common_prefix(test).rstrip("/") or None
    names: dict[str, list[str]] = defaultdict(list)
    for task in test.task_names:
        names[squashed(task.rpartition("/")[2])].append(task)
    by_category = names.keys() <= _CATEGORIES
    same: dict[str, TaskResult] = {}
    other: dict[str, TaskResult] = {}
    for (benchmark, task), result in accuracies.items():
        found = [task] if task in test.task_names else names.get(squashed(task.rpartition("/")[2]), [])
        if benchmark == "mmlu_pro" and not by_category:
            found = []  # its "philosophy" is a category, MMLU's a subject
        if len(found) != 1:
            report.unknown_tasks.append(f"{benchmark}/{task}" if benchmark else task)
        elif benchmark is None or own is None or benchmark == own:
            same[found[0]] = result
        else:
            other[found[0]] = result
    report.unknown_tasks.sort()
    return same, other


def _capped(result: TaskResult, shots: int) -> Counts:
    total = min(result.total, shots)
    return Counts(math.floor(result.accuracy * total + 0.5), total)


def _step(test: AptitudeTest, anchors: Iterable[Anchor], wanted: Mapping[str, TaskResult]) -> Step:
    benchmark = next(iter(wanted.values())).benchmark
    pairs = []
    for anchor in anchors:
        correct, total = anchor.profile.counts(test)
        accuracies = _accuracies(anchor.results, (), "error", ImportReport())
        _, theirs = _match_tasks(test, accuracies, ImportReport())
        for task, right, answered in zip(test.task_names, correct.tolist(), total.tolist(), strict=True):
            if task in theirs and theirs[task].benchmark == benchmark and answered:
                first = Counts(theirs[task].accuracy * theirs[task].total, theirs[task].total)
                pairs.append((first, Counts(right, answered)))
    return step_between(pairs)


def _say_how_carried(report: ImportReport, wanted: Mapping[str, TaskResult], as_is: bool) -> None:
    benchmark = next(iter(wanted.values())).benchmark
    if report.step is not None:
        report.remarks.append(
            f"{len(wanted)} accuracies on {benchmark} were carried over by {report.step.mean:+.2f} in log-odds, "
            f"from {report.step.pairs} tasks of the anchors"
        )
    elif as_is:
        report.remarks.append(
            f"{len(wanted)} accuracies on {benchmark} were taken as they are; beside candidates graded on the test's "
            "own questions this one looks stronger or weaker than it is"
        )


def _refused(test: AptitudeTest, wanted: Mapping[str, TaskResult]) -> str:
    benchmark = next(iter(wanted.values())).benchmark
    own = common_prefix(test).rstrip("/")
    return (
        f"{len(wanted)} tasks are measured on {benchmark}, the aptitude test asks questions of {own}: these accuracies "
        "are on another scale and were not used; import samples of the test's own benchmark, or carry them over with "
        "--anchor FILE=CANDIDATE, or take them as they are with --as-is"
    )


def _nothing(test: AptitudeTest, results: Results, report: ImportReport, wanted: Mapping[str, TaskResult]) -> str:
    if report.other_benchmark:
        return _refused(test, wanted)
    if report.content_differs:
        return (
            f"{report.content_differs:,} answers have ids of the aptitude test, but other questions; these results are "
            "of another version or benchmark (--trust-ids takes the ids at their word)"
        )
    held = []
    if results.items:
        named = next((item.ids[0] for item in results.items if item.ids), None)
        held.append(f"{len(results.items):,} answers" + (f" to items such as {named!r}" if named else " without ids"))
    if report.unknown_tasks:
        held.append(
            "the tasks " + ", ".join(report.unknown_tasks[:4]) + (" ..." if len(report.unknown_tasks) > 4 else "")
        )
    hint = ""
    if any(result.benchmark == "mmlu_pro" for result in results.tasks):
        hint = "; MMLU-Pro reports 14 categories, the test asks by subject, so import the samples_*.jsonl files"
    elif any(not item.ids for item in results.items):
        hint = "; bring the test's questions with --questions, so that they are found by their content"
    return (
        f"nothing here says anything about the aptitude test {test.id}, which has items such as {min(test.item_ids)!r} "
        f"and tasks such as {test.task_names[0]!r}; there are {' and '.join(held) or 'no results at all'}{hint}"
    )


def _word(correct: bool) -> str:
    return "right" if correct else "wrong"
