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
    plain, resampled = [], []
    for zoos, some in zip(drawn, resamples, strict=True):
        if zoos:
            counts = np.stack([np.ones(len(Y)), np.bincount(some, minlength=len(Y))], axis=1)  # [q, 2]
            once, again = zoo_choices(predictors, Y, zoos, aptitude, counts)
            plain.append(once)
            resampled.append(again)
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
    counts: np.ndarray,
) -> list[dict[str, dict[str, float]]]:
    """Choice metrics averaged over zoos, on the questions all candidates of a zoo answered.

    Args:
        predictors: name -> float ``[q, m]``.
        Y: int8 ``[q, m]``.
        zoos: positions among the m models.
        aptitude: float64 ``[m]``.
        counts: float ``[q, k]``, how often each question counts in each of k samples: choosing is done once for all.

    Returns:
        For each of the k samples: rule or predictor -> metric of CHOICE_METRICS -> value. First random, best_single
        and oracle.
    """
    rules = ("random", "best_single", "oracle", *predictors)
    accuracy = np.empty((len(zoos), len(rules), counts.shape[1]))
    aptitude_best = np.empty((len(zoos), counts.shape[1]))
    for place, zoo in enumerate(zoos):
        common = np.flatnonzero((Y[:, zoo] >= 0).all(1))
        y = Y[np.ix_(common, zoo)].astype(np.float64)
        weights = counts[common] / counts[common].sum(0)  # [c, k]
        single = y.T @ weights  # [zoo, k]
        aptitude_best[place] = single[int(np.nanargmax(aptitude[zoo]))]
        accuracy[place, :3] = single.mean(0), single.max(0), y.max(1) @ weights
        if predictors:
            routed = [metrics.routed_right(P[np.ix_(common, zoo)], y) for P in predictors.values()]
            accuracy[place, 3:] = np.array(routed) @ weights
    return [
        _metrics(dict(zip(rules, accuracy[:, :, k].mean(0).tolist(), strict=True)), float(aptitude_best[:, k].mean()))
        for k in range(counts.shape[1])
    ]


def _metrics(mean: Mapping[str, float], aptitude_best: float) -> dict[str, dict[str, float]]:
    room = mean["oracle"] - mean["best_single"]
    return {
        name: {
            "routed_accuracy": value,
            "gain_over_best_single": value - mean["best_single"],
            "gain_over_aptitude_best": value - aptitude_best,
            "oracle_gap_share": (value - mean["best_single"]) / room if room > 0 else math.nan,
        }
        for name, value in mean.items()
    }
