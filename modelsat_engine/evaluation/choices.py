"""What routing by a predictor earns inside zoos, beside the rules that need no prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelsat_engine.evaluation import metrics
from modelsat_engine.evaluation.figures import Figure, figure, number
from modelsat_engine.evaluation.outcomes import OutcomeData

CHOICE_METRICS = ("routed_accuracy", "gain_over_best_single", "gain_over_aptitude_best", "oracle_gap_share")


def score_zoos(
    predictors: Mapping[str, np.ndarray],
    data: OutcomeData,
    rows: np.ndarray,
    columns: np.ndarray,
    drawn: Sequence[Sequence[np.ndarray]],
    aptitude: np.ndarray,
    resamples: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Choice figures of one kind of zoo.

    Args:
        predictors: name -> float ``[q, m]`` over ``columns`` and ``rows``.
        rows, columns: int64, the models and questions that are judged.
        drawn: for every seed its zoos, as rows of ``data``.
        aptitude: float64 ``[M]``, aptitude accuracies of all rows of ``data``.
        resamples: for every seed int64 ``[q]``, resampled positions in ``columns``.

    Returns:
        ``{"count", "strength_range", "strength_range_sd", "questions", "choices": {predictor: {metric: {"mean",
        "sd"}}}}``: how many zoos, how far apart in MMLU-Pro accuracy their strongest and weakest candidates lie
        (mean and standard deviation over zoos), and questions in common (mean). Without a zoo the count is 0 and
        choices are empty.
    """
    zoos = [zoo for of_seed in drawn for zoo in of_seed]
    local = np.full(len(data.model_keys), -1)
    local[rows] = np.arange(len(rows))
    ranges = [float(np.ptp(data.strength[zoo])) for zoo in zoos]
    Y = data.Y.T[np.ix_(columns, rows)]  # [q, m]
    return {
        "count": len(zoos),
        "strength_range": number(np.mean(ranges)) if zoos else None,
        "strength_range_sd": number(np.std(ranges)) if zoos else None,
        "questions": number(np.mean([data.known[np.ix_(z, columns)].all(0).sum() for z in zoos])) if zoos else 0.0,
        "choices": _choices(predictors, Y, [[local[z] for z in d] for d in drawn], aptitude[rows], resamples),
    }


def _choices(
    predictors: Mapping[str, np.ndarray],
    Y: np.ndarray,
    drawn: list[list[np.ndarray]],
    aptitude: np.ndarray,
    resamples: Sequence[np.ndarray],
) -> dict[str, dict[str, Figure]]:
    """Choice metrics of every rule and predictor: mean on all questions, sd over resampled seeds."""
    if not any(drawn):
        return {}
    everything = np.arange(len(Y))
    plain = [zoo_choices(predictors, Y, zoos, aptitude, everything) for zoos in drawn if zoos]
    resampled = [
        zoo_choices(predictors, Y, zoos, aptitude, some) for zoos, some in zip(drawn, resamples, strict=True) if zoos
    ]
    return {
        name: {
            metric: figure([one[name][metric] for one in plain], [one[name][metric] for one in resampled])
            for metric in CHOICE_METRICS
        }
        for name in plain[0]
    }


def zoo_choices(
    predictors: Mapping[str, np.ndarray],
    Y: np.ndarray,
    zoos: Sequence[np.ndarray],
    aptitude: np.ndarray,
    questions: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Choice metrics averaged over zoos, on the questions all candidates of a zoo answered.

    Args:
        predictors: name -> float ``[q, m]``.
        Y: int8 ``[q, m]``.
        zoos: positions among the m models.
        aptitude: float64 ``[m]``.
        questions: int64, positions among the q questions, with repeats in a resample.

    Returns:
        Rule or predictor -> metric of CHOICE_METRICS -> value. First random, best_single and oracle.
    """
    accuracy: dict[str, list[float]] = {name: [] for name in ("random", "best_single", "oracle", *predictors)}
    aptitude_best = []
    for zoo in zoos:
        common = questions[(Y[np.ix_(questions, zoo)] >= 0).all(1)]
        y = Y[np.ix_(common, zoo)]
        bounds = metrics.zoo_bounds(y)
        accuracy["random"].append(bounds.random)
        accuracy["best_single"].append(bounds.best_single)
        accuracy["oracle"].append(bounds.oracle)
        aptitude_best.append(float(y[:, int(np.nanargmax(aptitude[zoo]))].mean()))
        for name, P in predictors.items():
            accuracy[name].append(metrics.routed_accuracy(P[np.ix_(common, zoo)], y))
    mean = {name: float(np.mean(values)) for name, values in accuracy.items()}
    room = mean["oracle"] - mean["best_single"]
    return {
        name: {
            "routed_accuracy": value,
            "gain_over_best_single": value - mean["best_single"],
            "gain_over_aptitude_best": value - float(np.mean(aptitude_best)),
            "oracle_gap_share": (value - mean["best_single"]) / room if room > 0 else math.nan,
        }
        for name, value in mean.items()
    }
