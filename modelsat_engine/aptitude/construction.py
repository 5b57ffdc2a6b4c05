"""Build an aptitude test from any question set, with past outcomes where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelsat_engine.aptitude.keyword_extraction import describe_tasks
from modelsat_engine.aptitude.outcome_table import OutcomeTable
from modelsat_engine.aptitude.questions import Question, plain
from modelsat_engine.aptitude.sampling import PoolItem, distinguishability, sample_test
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.aptitude.test_report import TestReport, measure_test
from modelsat_engine.errors import DataError


@dataclass(frozen=True)
class BuiltTest:
    """A test, and how it came about.

    Attributes:
        keywords_from: task of the test -> "given", "known" or "extracted".
        questions: how many there were; ``without_task``, ``repeated`` (the same question again) and ``untold`` (no
            outcome of at least half of the models, or all of one mind) of them could not be used.
        models: whose outcomes were used; 0: items were drawn uniformly.
    """

    test: AptitudeTest
    report: TestReport
    keywords_from: dict[str, str]
    questions: int
    without_task: int
    repeated: int
    untold: int
    models: int


def build_test_from_questions(
    questions: Sequence[Question],
    outcomes: OutcomeTable | None = None,
    *,
    seed: int = 0,
    num_tasks: int = 50,
    items_per_task: int = 20,
    keywords: Mapping[str, Sequence[str]] | None = None,
) -> BuiltTest:
    """Sample tasks and items by how well they tell models apart, or uniformly when there are no outcomes.

    Of several questions with one text (options, case and spacing aside) the first is used. With outcomes, a usable
    item is one that at least half of the models answered, some of them right and some wrong; its weight is p (1 - p).
    Without, every item has the same weight, and the tasks with most questions are taken.

    Args:
        questions: each with a task.
        outcomes: of models that the router may know; leave out those it will be judged on.
        keywords: task -> keywords, where they are not to be extracted from the questions.

    Raises:
        DataError: no question has a task, no outcome is of any of the questions, or fewer than ``num_tasks`` tasks
            have ``items_per_task`` usable items.
        MissingExtraError: keywords must be extracted and scikit-learn is not installed.
    """
    if num_tasks < 1 or items_per_task < 1:
        raise DataError(f"a test needs at least one task and one item, not {num_tasks} and {items_per_task}")
    weight_of = _weights(questions, outcomes)
    without_task, repeated, untold = 0, 0, 0
    pools: dict[str, list[PoolItem]] = {}
    everything: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    seen: set[str] = set()
    for question in questions:
        if question.task is None:
            without_task += 1
            continue
        stem = plain(question.text).lower()
        if stem in seen:
            repeated += 1
            continue
        weight = weight_of.get(question.id, 0.0)
        everything.setdefault(question.task, []).append(question.id)
        pool = pools.setdefault(question.task, [])
        if weight <= 0:
            untold += 1
            continue
        seen.add(stem)
        pool.append(PoolItem(question.id, weight, question.hash))
        texts.setdefault(question.task, []).append(question.text)
    if not everything:
        raise DataError(
            f"none of {len(questions):,} questions has a task; name the column that tells it (--task-column)"
        )
    # Keywords cost time, so only the tasks that are chosen get theirs.
    draft = sample_test(
        pools, dict.fromkeys(pools, ("-",)), seed=seed, num_tasks=num_tasks, items_per_task=items_per_task
    )
    words, source = describe_tasks({task: texts[task] for task in draft.task_names}, keywords)
    test = sample_test(
        {task: pools[task] for task in draft.task_names},
        words,
        seed=seed,
        num_tasks=num_tasks,
        items_per_task=items_per_task,
    )
    return BuiltTest(
        test,
        measure_test(test, outcomes, everything),
        source,
        len(questions),
        without_task,
        repeated,
        untold,
        0 if outcomes is None else len(outcomes.models),
    )


def _weights(questions: Sequence[Question], outcomes: OutcomeTable | None) -> dict[str, float]:
    if outcomes is None:
        return dict.fromkeys((question.id for question in questions), 1.0)
    ids = [question.id for question in questions]
    if not set(ids) & set(outcomes.items):
        raise DataError(
            f"no outcome is of any of the questions: outcomes name items such as {outcomes.items[0]!r}, the questions "
            f"such as {ids[0]!r}; use the same ids in both (--id-prefix puts something before those of the questions)"
        )
    return dict(zip(ids, distinguishability(outcomes.for_items(ids)).tolist(), strict=True))
