"""The stream of releases: each new model joins a zoo of the five best so far, as in a gateway that keeps up.

Models come by the month of their public release (``model_facts``), and by name inside a month; those without a known
month are left out. When fewer than a zoo and one more have a month, as in invented data, all come by strength, the
weakest first. One row stands for a family: the one with most outcomes. The best so far are those of the highest
aptitude accuracy, which is all that an operator knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelsat_engine.evaluation.model_facts import released
from modelsat_engine.evaluation.outcomes import OutcomeData

BEST_SO_FAR = 5
BY_MONTH, BY_STRENGTH = "month of release", "strength, weakest first"


@dataclass(frozen=True, eq=False)
class Arrival:
    """A model joins.

    Attributes:
        row: the new model.
        month: its release, ``2024-07``; None when models come by strength.
        zoo: int64, rows of the best so far and, last, the new one.
    """

    row: int
    month: str | None
    zoo: np.ndarray


def release_order(data: OutcomeData, rows: np.ndarray, columns: np.ndarray, zoo_size: int) -> tuple[str, list[int]]:
    """The rule that orders the stream, and the rows in that order, one a family."""
    of_family: dict[str, int] = {}
    known = data.known[:, columns].sum(1)
    for row in sorted(rows.tolist(), key=lambda row: (-int(known[row]), row)):
        of_family.setdefault(data.families[row], row)
    months = {row: released(data.model_names[row]) for row in of_family.values()}
    dated = [(month, data.model_names[row], row) for row, month in months.items() if month is not None]
    if len(dated) > zoo_size:
        return BY_MONTH, [row for _, _, row in sorted(dated)]
    return BY_STRENGTH, sorted(of_family.values(), key=lambda row: (float(data.strength[row]), data.model_names[row]))


def release_zoos(
    data: OutcomeData,
    rows: np.ndarray,
    columns: np.ndarray,
    aptitude: np.ndarray,
    min_questions: int,
    best: int = BEST_SO_FAR,
) -> tuple[str, list[Arrival]]:
    """The stream over a scenario's models.

    Args:
        rows, columns: int64, the models and questions that are judged.
        aptitude: float64 ``[M]``, aptitude accuracies.
        min_questions: an arrival that shares fewer answered questions with the best so far is not judged.
        best: size of the standing zoo.

    Returns:
        The ordering rule, and the arrivals after the first ``best`` models.
    """
    rule, order = release_order(data, rows, columns, best)
    arrivals = []
    for place, row in enumerate(order[best:], start=best):
        standing = sorted(order[:place], key=lambda other: -float(aptitude[other]))[:best]
        zoo = np.array([*standing, row], np.int64)
        if data.known[np.ix_(zoo, columns)].all(0).sum() >= min_questions:
            month = released(data.model_names[row]) if rule == BY_MONTH else None
            arrivals.append(Arrival(row, month, zoo))
    return rule, arrivals


def describe_arrival(
    data: OutcomeData,
    arrival: Arrival,
    columns: np.ndarray,
    predictors: Mapping[str, np.ndarray],
    seen_rows: np.ndarray,
) -> dict[str, object]:
    """One step of the stream for people and plots.

    Args:
        columns: int64, the questions that are judged.
        predictors: name -> float ``[Q, M]`` over all of ``data``.

    Returns:
        ``{"model", "month", "seen", "zoo", "questions", "accuracy": {predictor: share}, "accuracy_before":
        {predictor: share}}``: accuracies of the zoo with the arrival, and of the best so far without it, on the same
        questions.
    """
    from modelsat_engine.evaluation import metrics

    common = columns[data.known[np.ix_(arrival.zoo, columns)].all(0)]

    def accuracies(zoo: np.ndarray) -> dict[str, float]:
        Y = data.Y.T[np.ix_(common, zoo)]
        bounds = metrics.zoo_bounds(Y)
        routed = {name: metrics.routed_accuracy(P[np.ix_(common, zoo)], Y) for name, P in predictors.items()}
        return {"random": bounds.random, "best_single": bounds.best_single, "oracle": bounds.oracle, **routed}

    return {
        "model": data.model_keys[arrival.row],
        "month": arrival.month,
        "seen": bool(arrival.row in seen_rows),
        "zoo": [data.model_keys[row] for row in arrival.zoo[:-1]],
        "questions": len(common),
        "accuracy": accuracies(arrival.zoo),
        "accuracy_before": accuracies(arrival.zoo[:-1]),
    }
