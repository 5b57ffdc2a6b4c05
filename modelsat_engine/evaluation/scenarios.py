"""Routing scenarios: which models meet which questions, in which zoos, and how every predictor fares there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import metrics
from modelsat_engine.evaluation.outcomes import RIGHT, OutcomeData
from modelsat_engine.evaluation.splits import Split, share_of

SCENARIO_NAMES = ("seen_models", "new_models", "new_datasets")
ZOO_KINDS = ("similar", "mixed")
ZOOS_PER_SEED = 20
MIN_QUESTIONS = 50  # a zoo judged on fewer questions says nothing
# A zoo of similar strength is drawn from this many more families than it needs, and refused when its accuracies lie
# further apart: a dozen new families leave gaps, and across a gap there is nothing to route.
SPARE_FAMILIES = 2
SIMILAR_RANGE = 0.2

PREDICTION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": metrics.pooled_auc,
    "auc_per_model": metrics.mean_auc_per_model,
    "ece": metrics.expected_calibration_error,
    "brier": metrics.brier_score,
}
CHOICE_METRICS = ("routed_accuracy", "gain_over_best_single", "gain_over_aptitude_best", "oracle_gap_share")


@dataclass(frozen=True, eq=False)
class Scenario:
    """Models and questions that a router is judged on together.

    Attributes:
        name: one of SCENARIO_NAMES.
        rows: int64, model rows.
        columns: int64, question columns.
    """

    name: str
    rows: np.ndarray
    columns: np.ndarray


def make_scenarios(
    data: OutcomeData, split: Split, names: Iterable[str] | None = None, max_questions: int | None = None
) -> list[Scenario]:
    """The scenarios of a split.

    - seen_models: models the router trained on, test questions of tasks it trained on;
    - new_models: models it meets as profiles only, the same questions;
    - new_datasets: seen and new models, questions of datasets it never trained on.

    Model rows without an outcome on enough of the questions are left out.

    Args:
        max_questions: judge on at most this many questions a scenario, a sample that depends on ids only.

    Raises:
        DataError: an unknown name, or a scenario with no model or question in this data.
    """
    groups = {
        "seen_models": (split.seen_rows, split.test),
        "new_models": (split.new_rows, split.test),
        "new_datasets": (np.concatenate([split.seen_rows, split.new_rows]), split.new_datasets),
    }
    scenarios = []
    for name in SCENARIO_NAMES if names is None else names:
        if name not in groups:
            raise DataError(f"there is no scenario {name!r}; choose from {', '.join(SCENARIO_NAMES)}")
        rows, columns = groups[name]
        if max_questions is not None:
            ranked = sorted(columns.tolist(), key=lambda c: share_of(0, "sample", str(data.questions.id[c])))
            columns = np.sort(np.array(ranked[:max_questions], np.int64))
        rows = rows[data.known[np.ix_(rows, columns)].sum(1) >= MIN_QUESTIONS]
        if not len(rows):
            raise DataError(f"scenario {name} has no model with {MIN_QUESTIONS} known outcomes; bring more questions")
        scenarios.append(Scenario(name, rows, columns))
    return scenarios


def draw_zoos(
    data: OutcomeData,
    scenario: Scenario,
    kind: str,
    *,
    seed: int,
    zoo_size: int = 5,
    count: int = ZOOS_PER_SEED,
) -> list[np.ndarray]:
    """Random zoos of a scenario's models, each of distinct families with enough questions in common.

    ``similar``: around a model drawn at random, from the families nearest in MMLU-Pro accuracy (``zoo_size`` and
    two more), no further apart than SIMILAR_RANGE. ``mixed``: any families.

    Returns:
        Up to ``count`` different zoos, int64 ``[zoo_size]`` each, as model rows; none when the scenario has too
        few families.
    """
    if kind not in ZOO_KINDS:
        raise DataError(f"there is no kind of zoo {kind!r}; choose from {', '.join(ZOO_KINDS)}")
    rng = np.random.default_rng([seed, SCENARIO_NAMES.index(scenario.name), ZOO_KINDS.index(kind), zoo_size])
    known = data.known[:, scenario.columns]  # [M, Q]
    zoos: dict[tuple[int, ...], np.ndarray] = {}
    for _ in range(50 * count):
        if len(zoos) == count:
            break
        # One row a family, in random order; the first is the anchor.
        order = rng.permutation(scenario.rows)
        of_family: dict[str, int] = {}
        for row in order.tolist():
            of_family.setdefault(data.families[row], row)
        pool = np.array(list(of_family.values()), np.int64)
        if len(pool) < zoo_size:
            break
        if kind == "similar":
            distance = np.abs(data.strength[pool] - data.strength[pool[0]])
            pool = pool[np.argsort(distance, kind="stable")[: zoo_size + SPARE_FAMILIES]]
        zoo = np.concatenate([pool[:1], rng.permutation(pool[1:])[: zoo_size - 1]])
        if kind == "similar" and np.ptp(data.strength[zoo]) > SIMILAR_RANGE:
            continue
        if known[zoo].all(0).sum() >= MIN_QUESTIONS:
            zoos.setdefault(tuple(sorted(zoo.tolist())), np.sort(zoo))
    return list(zoos.values())


def aptitude_accuracy(data: OutcomeData, test: AptitudeTest) -> np.ndarray:
    """Share of the aptitude items each model answers right, float64 ``[M]``; NaN for a row that answered none."""
    outcomes = data.Y[:, data.columns(sorted(test.item_ids))]
    known = (outcomes >= 0).sum(1)
    return np.where(known > 0, (outcomes == RIGHT).sum(1) / np.maximum(known, 1), np.nan)


def score_scenarios(
    P: np.ndarray | Mapping[str, np.ndarray],
    data: OutcomeData,
    split: Split,
    test: AptitudeTest,
    *,
    scenarios: Sequence[Scenario] | Iterable[str] | None = None,
    seeds: int = 5,
    zoo_size: int = 5,
    zoos_per_seed: int = ZOOS_PER_SEED,
) -> dict[str, Any]:
    """Score predictors in every scenario, pure arithmetic over arrays.

    A figure's ``mean`` is over seeds, each with its own zoos, on all questions. Its ``sd`` is over seeds too, each
    on its own bootstrap resample of the questions, so it holds the luck of the zoos and of the questions.

    Args:
        P: float ``[Q, M]`` over all questions and model rows of ``data``, NaN where nothing is needed; or several
            by name. One alone is called ``router``.
        scenarios: names, or what :func:`make_scenarios` returned; default all.
        seeds: how many; seed s draws its zoos and its resample from s.

    Returns:
        ``{scenario: {"models", "questions", "predictions": {predictor: {metric: {"mean", "sd"}}}, "by_benchmark":
        {benchmark: {"questions", "auc": {predictor: float}}}, "zoos": {kind: {"count", "strength_range",
        "questions", "choices": {predictor: {metric: {"mean", "sd"}}}}}}}``. Choices list the rules that need no
        prediction first: random, best_single, oracle. Gains are differences of shares (0.01 is one point);
        ``oracle_gap_share`` is the mean gain over the best single in hindsight divided by the mean of what the
        oracle gains. A kind without a possible zoo has count 0 and no choices.

    Raises:
        DataError: predictions of a wrong shape, missing where needed, or outside [0, 1]; a number below 1.
    """
    for name, value in (("seeds", seeds), ("zoos_per_seed", zoos_per_seed), ("zoo_size", zoo_size - 1)):
        if value < 1:
            raise DataError(f"{name} is too small; need at least one seed, one zoo and two candidates")
    predictors = {"router": P} if isinstance(P, np.ndarray) else dict(P)
    aptitude = aptitude_accuracy(data, test)
    chosen = [] if scenarios is None else list(scenarios)
    if scenarios is None or any(isinstance(entry, str) for entry in chosen):
        chosen = list(make_scenarios(data, split, None if scenarios is None else [str(name) for name in chosen]))
    Y = data.Y.T  # [Q, M]
    for name, predicted in predictors.items():
        if predicted.shape != Y.shape:
            raise DataError(f"{name}: predictions have shape {predicted.shape}, need {Y.shape}: questions, models")
    return {
        scenario.name: _score_scenario(predictors, data, scenario, aptitude, seeds, zoo_size, zoos_per_seed)
        for scenario in chosen
        if isinstance(scenario, Scenario)
    }


def _score_scenario(
    predictors: Mapping[str, np.ndarray],
    data: OutcomeData,
    scenario: Scenario,
    aptitude: np.ndarray,
    seeds: int,
    zoo_size: int,
    zoos_per_seed: int,
) -> dict[str, Any]:
    cut = np.ix_(scenario.columns, scenario.rows)
    Y = data.Y.T[cut]  # [q, m]
    cuts = {name: predicted[cut] for name, predicted in predictors.items()}
    for name, predicted in cuts.items():
        metrics.check_predictions(name, predicted, Y)
    resamples = [_resample(seed, len(scenario.columns)) for seed in range(seeds)]
    predictions = {
        name: {
            metric: _figure([score(predicted, Y)], [score(predicted[some], Y[some]) for some in resamples])
            for metric, score in PREDICTION_METRICS.items()
        }
        for name, predicted in cuts.items()
    }
    by_benchmark = {}
    for benchmark in sorted(set(data.questions.benchmark[scenario.columns].tolist())):
        some = np.flatnonzero(data.questions.benchmark[scenario.columns] == benchmark)
        auc = {name: _number(metrics.pooled_auc(predicted[some], Y[some])) for name, predicted in cuts.items()}
        by_benchmark[benchmark] = {"questions": len(some), "auc": auc}
    local = np.full(len(data.model_keys), -1)
    local[scenario.rows] = np.arange(len(scenario.rows))
    kinds = {}
    for kind in ZOO_KINDS:
        drawn = [
            draw_zoos(data, scenario, kind, seed=seed, zoo_size=zoo_size, count=zoos_per_seed) for seed in range(seeds)
        ]
        zoos = [zoo for of_seed in drawn for zoo in of_seed]
        kinds[kind] = {
            "count": len(zoos),
            "strength_range": _number(np.mean([np.ptp(data.strength[zoo]) for zoo in zoos]) if zoos else math.nan),
            "questions": _number(np.mean([data.known[np.ix_(z, scenario.columns)].all(0).sum() for z in zoos]))
            if zoos
            else 0.0,
            "choices": _choices(cuts, Y, [[local[z] for z in d] for d in drawn], aptitude[scenario.rows], resamples),
        }
    return {
        "models": len(scenario.rows),
        "questions": len(scenario.columns),
        "predictions": predictions,
        "by_benchmark": by_benchmark,
        "zoos": kinds,
    }


def _choices(
    predictors: Mapping[str, np.ndarray],
    Y: np.ndarray,
    drawn: list[list[np.ndarray]],
    aptitude: np.ndarray,
    resamples: list[np.ndarray],
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Choice metrics of every rule and predictor: mean on all questions, sd over resampled seeds."""
    if not any(drawn):
        return {}
    everything = np.arange(len(Y))
    plain = [_seed_choices(predictors, Y, zoos, aptitude, everything) for zoos in drawn if zoos]
    resampled = [
        _seed_choices(predictors, Y, zoos, aptitude, some) for zoos, some in zip(drawn, resamples, strict=True) if zoos
    ]
    return {
        name: {
            metric: _figure([one[name][metric] for one in plain], [one[name][metric] for one in resampled])
            for metric in CHOICE_METRICS
        }
        for name in plain[0]
    }


def _seed_choices(
    predictors: Mapping[str, np.ndarray],
    Y: np.ndarray,
    zoos: list[np.ndarray],
    aptitude: np.ndarray,
    questions: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Choice metrics of one seed, averaged over its zoos."""
    accuracy: dict[str, list[float]] = {name: [] for name in ("random", "best_single", "oracle", *predictors)}
    aptitude_best = []
    for zoo in zoos:
        common = questions[(Y[np.ix_(questions, zoo)] >= 0).all(1)]  # questions all candidates answered
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


def _resample(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, size]).integers(0, size, size)


def _figure(plain: Sequence[float], resampled: Sequence[float]) -> dict[str, float | None]:
    values = [value for value in resampled if math.isfinite(value)]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {"mean": _number(np.mean(plain)), "sd": _number(sd)}


def _number(value: Any) -> float | None:
    """A float that JSON can hold: NaN becomes None."""
    return float(value) if math.isfinite(value) else None
