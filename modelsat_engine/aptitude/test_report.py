"""How good an aptitude test is: what each task tells, and how far a model's accuracy on it may be off.

All of it is classical test theory, over the models with past outcomes:

- *difficulty*: the share of right answers; *distinguishability*: the mean of p (1 - p) over the items, at most .25.
- *discrimination*: the mean correlation of an item with the accuracy on all other items of the test (the corrected
  item-total correlation; Lord and Novick, Statistical Theories of Mental Test Scores, 1968, ch. 15). Near 0: the item
  says nothing about the model. Below 0: its answer may be wrong.
- *standard error* of a model's accuracy on a task of k items: sqrt of the mean over models of a (1 - a) / (k - 1), the
  binomial-error form of Lord, "Do tests of the same length have the same standard error of measurement?",
  Educational and Psychological Measurement 17 (1957). Over T tasks of equal weight: sqrt(sum of squares) / T.
- *reliability*: KR-20 = K / (K - 1) * (1 - sum p (1 - p) / variance of the number right) (Kuder and Richardson,
  Psychometrika 2, 1937), from the models that answered all K items: the share of the spread between models that is
  not noise of the items.
- *shift*: accuracy on the test's items less accuracy on the task's other questions, mean over models. The test is
  drawn to tell models apart, so it is not as hard as the rest; an accuracy over the whole task is not the same.

Without outcomes nothing but the worst case of the standard error is known: .5 / sqrt(k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.outcome_table import RIGHT, OutcomeTable
from modelsat_engine.aptitude.test import AptitudeTest

FEWEST_MODELS = 3


@dataclass(frozen=True)
class TaskReport:
    """What one task tells; None where the outcomes do not say."""

    task: str
    items: int
    difficulty: float | None
    distinguishability: float | None
    discrimination: float | None
    standard_error: float
    reliability: float | None
    shift: float | None


@dataclass(frozen=True)
class TestReport:
    """What the whole test tells.

    Attributes:
        models: how many models the figures are over; 0 without outcomes, and then standard errors are the worst case.
        standard_error: of a model's accuracy over all tasks.
        reliability: of the accuracy over all items; None when fewer than three models answered them all.
        spread: standard deviation of the models' accuracies.
        shift: accuracy on the test less accuracy on the tasks' other questions, mean over models and tasks.
        shift_spread: standard deviation of the shift between tasks.
    """

    __test__ = False  # not for pytest

    tasks: tuple[TaskReport, ...]
    models: int
    standard_error: float
    reliability: float | None
    spread: float | None
    shift: float | None
    shift_spread: float | None

    def to_json(self) -> dict[str, Any]:
        """Every attribute, in JSON, rounded to four digits."""
        value = {key: _rounded(entry) for key, entry in vars(self).items() if key != "tasks"}
        value["tasks"] = [{key: _rounded(entry) for key, entry in vars(task).items()} for task in self.tasks]
        return value


def measure_test(
    test: AptitudeTest, outcomes: OutcomeTable | None = None, pools: Mapping[str, Sequence[str]] | None = None
) -> TestReport:
    """The report of a test.

    Args:
        outcomes: who answered what right; None when nobody knows.
        pools: task -> all its questions, those of the test among them; for the shift.
    """
    if outcomes is None:
        worst = [0.5 / math.sqrt(len(task.item_ids)) for task in test.tasks]
        tasks = tuple(
            TaskReport(task.name, len(task.item_ids), None, None, None, error, None, None)
            for task, error in zip(test.tasks, worst, strict=True)
        )
        return TestReport(tasks, 0, math.hypot(*worst) / len(worst), None, None, None, None)
    items = [item for task in test.tasks for item in task.item_ids]
    Y = outcomes.for_items(items)  # [M, K]
    Y = Y[(Y >= 0).any(1)]
    correlation = _item_rest_correlations(Y)  # [K]
    reports = []
    start = 0
    for task in test.tasks:
        part = slice(start, start + len(task.item_ids))
        start = part.stop
        others = [item for item in (pools or {}).get(task.name, ()) if item not in test.item_ids]
        reports.append(_task_report(task.name, Y[:, part], correlation[part], outcomes, task.item_ids, others))
    shifts = [report.shift for report in reports if report.shift is not None]
    accuracies = _accuracies(Y)
    accuracies = accuracies[~np.isnan(accuracies)]
    return TestReport(
        tuple(reports),
        len(Y),
        math.hypot(*(report.standard_error for report in reports)) / len(reports),
        _reliability(Y),
        float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        float(np.mean(shifts)) if shifts else None,
        float(np.std(shifts, ddof=1)) if len(shifts) > 1 else None,
    )


def _task_report(
    name: str,
    Y: np.ndarray,
    correlation: np.ndarray,
    outcomes: OutcomeTable,
    items: Sequence[str],
    others: Sequence[str],
) -> TaskReport:
    known = Y >= 0
    share = (Y == RIGHT).sum(0) / np.maximum(known.sum(0), 1)  # [k]
    share = share[known.any(0)]
    correlation = correlation[~np.isnan(correlation)]
    return TaskReport(
        name,
        Y.shape[1],
        float(share.mean()) if len(share) else None,
        float((share * (1 - share)).mean()) if len(share) else None,
        float(correlation.mean()) if len(correlation) else None,
        _standard_error(Y),
        _reliability(Y),
        _shift(outcomes, items, others),
    )


def _accuracies(Y: np.ndarray) -> np.ndarray:
    """float64 ``[M]``: share of the known items answered right, NaN for a model without any."""
    known = (Y >= 0).sum(1)
    shares: np.ndarray = np.where(known > 0, (Y == RIGHT).sum(1) / np.maximum(known, 1), np.nan)
    return shares


def _standard_error(Y: np.ndarray) -> float:
    """Root of the mean binomial error over models; the worst case where no model answered two items."""
    known = (Y >= 0).sum(1)
    enough = known > 1
    if not enough.any():
        return 0.5 / math.sqrt(max(Y.shape[1], 1))
    share = (Y[enough] == RIGHT).sum(1) / known[enough]
    return math.sqrt(float((share * (1 - share) / (known[enough] - 1)).mean()))


def _reliability(Y: np.ndarray) -> float | None:
    """KR-20 over the models that answered everything; None when it is not defined."""
    complete = Y[(Y >= 0).all(1)].astype(np.float64)
    size = Y.shape[1]
    if len(complete) < FEWEST_MODELS or size < 2:
        return None
    variance = float(complete.sum(1).var())
    if variance == 0:
        return None
    share = complete.mean(0)
    noise = float((share * (1 - share)).sum())
    return float(size / (size - 1) * (1 - noise / variance))


def _item_rest_correlations(Y: np.ndarray) -> np.ndarray:
    """float64 ``[K]``: each item with the accuracy on all others, over the models that know it; NaN if undefined."""
    known = Y >= 0
    right = np.where(known, Y, 0).astype(np.float64)
    rest_known = known.sum(1, keepdims=True) - known  # [M, K]
    rest = (right.sum(1, keepdims=True) - right) / np.maximum(rest_known, 1)
    use = known & (rest_known > 0)
    count = use.sum(0)
    safe = np.maximum(count, 1)
    x = np.where(use, right - np.where(use, right, 0).sum(0) / safe, 0.0)
    y = np.where(use, rest - np.where(use, rest, 0).sum(0) / safe, 0.0)
    scale = np.sqrt((x * x).sum(0) * (y * y).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations: np.ndarray = np.where((count >= FEWEST_MODELS) & (scale > 1e-12), (x * y).sum(0) / scale, np.nan)
    return correlations


def _shift(outcomes: OutcomeTable, items: Sequence[str], others: Sequence[str]) -> float | None:
    if not others:
        return None
    differences = _accuracies(outcomes.for_items(items)) - _accuracies(outcomes.for_items(others))
    differences = differences[~np.isnan(differences)]
    return float(differences.mean()) if len(differences) else None


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
