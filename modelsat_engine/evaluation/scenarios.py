"""Routing scenarios: which models meet which questions, in which zoos, and how every predictor fares there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import metrics
from modelsat_engine.evaluation.choices import CHOICE_METRICS, score_zoos
from modelsat_engine.evaluation.figures import Figure, figure, number, resample
from modelsat_engine.evaluation.outcomes import RIGHT, OutcomeData
from modelsat_engine.evaluation.releases import describe_arrival, release_zoos
from modelsat_engine.evaluation.splits import Split, share_of
from modelsat_engine.evaluation.zoos import MIN_QUESTIONS, SIZE_CLASSES, SPARSE, ZOO_KINDS, ZOOS_PER_SEED, draw_zoos

__all__ = [
    "CHOICE_METRICS",
    "MIN_QUESTIONS",
    "SCENARIO_NAMES",
    "ZOOS_PER_SEED",
    "ZOO_KINDS",
    "ZOO_SCENARIOS",
    "Scenario",
    "aptitude_accuracy",
    "draw_zoos",
    "make_scenarios",
    "score_scenarios",
]

SCENARIO_NAMES = ("seen_models", "new_models", "new_datasets")
ZOO_SCENARIOS = (*SCENARIO_NAMES, "size_classes", "release_stream")
ZOO_KINDS_OF = {"seen_models": (*ZOO_KINDS, SPARSE), "size_classes": SIZE_CLASSES}  # elsewhere ZOO_KINDS

PREDICTION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": metrics.pooled_auc,
    "auc_per_model": metrics.mean_auc_per_model,
    "ece": metrics.expected_calibration_error,
    "brier": metrics.brier_score,
}


@dataclass(frozen=True, eq=False)
class Scenario:
    """Models and questions that a router is judged on together.

    Attributes:
        name: one of ZOO_SCENARIOS.
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
    - new_datasets: seen and new models, questions of datasets it never trained on;
    - size_classes, release_stream: seen and new models, test questions.

    Model rows without an outcome on enough of the questions are left out.

    Args:
        names: out of ZOO_SCENARIOS; default SCENARIO_NAMES, the first three.
        max_questions: judge on at most this many questions a scenario, a sample that depends on ids only.

    Raises:
        DataError: an unknown name, or a scenario with no model or question in this data.
    """
    everyone = np.concatenate([split.seen_rows, split.new_rows])
    groups = {
        "seen_models": (split.seen_rows, split.test),
        "new_models": (split.new_rows, split.test),
        "new_datasets": (everyone, split.new_datasets),
        "size_classes": (everyone, split.test),
        "release_stream": (everyone, split.test),
    }
    scenarios = []
    for name in SCENARIO_NAMES if names is None else names:
        if name not in groups:
            raise DataError(f"there is no scenario {name!r}; choose from {', '.join(ZOO_SCENARIOS)}")
        rows, columns = groups[name]
        if max_questions is not None:
            columns = sample_of(data, columns, max_questions)
        rows = rows[data.known[np.ix_(rows, columns)].sum(1) >= MIN_QUESTIONS]
        if not len(rows):
            raise DataError(f"scenario {name} has no model with {MIN_QUESTIONS} known outcomes; bring more questions")
        scenarios.append(Scenario(name, rows, columns))
    return scenarios


def sample_of(data: OutcomeData, columns: np.ndarray, size: int) -> np.ndarray:
    """At most ``size`` of the question columns, ascending; which ones depends on question ids only."""
    ranked = sorted(columns.tolist(), key=lambda column: share_of(0, "sample", str(data.questions.id[column])))
    return np.sort(np.array(ranked[:size], np.int64))


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
        scenarios: names, or what :func:`make_scenarios` returned; default SCENARIO_NAMES.
        seeds: how many; seed s draws its zoos and its resample from s.

    Returns:
        ``{scenario: {"models", "questions", "predictions": {predictor: {metric: {"mean", "sd"}}}, "by_benchmark":
        {benchmark: {"questions", "auc": {predictor: float}}}, "zoos": {kind: ...}}}``, a kind as
        :func:`score_zoos` returns it. Choices list the rules that need no prediction first: random, best_single,
        oracle. Gains are differences of shares (0.01 is one point); ``oracle_gap_share`` is the mean gain over the
        best single in hindsight divided by the mean of what the oracle gains. size_classes and release_stream have
        no predictions and by_benchmark of their own; release_stream has ``order`` (the rule) and ``steps``, a list
        of :func:`describe_arrival`, and its kinds are all_arrivals, seen_arrivals and new_arrivals.

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
        scenario.name: _score_scenario(predictors, data, split, scenario, aptitude, seeds, zoo_size, zoos_per_seed)
        for scenario in chosen
        if isinstance(scenario, Scenario)
    }


def _score_scenario(
    predictors: Mapping[str, np.ndarray],
    data: OutcomeData,
    split: Split,
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
    resamples = [resample(seed, len(scenario.columns)) for seed in range(seeds)]

    def score(drawn: list[list[np.ndarray]]) -> dict[str, Any]:
        return score_zoos(cuts, data, scenario.rows, scenario.columns, drawn, aptitude, resamples)

    result: dict[str, Any] = {"models": len(scenario.rows), "questions": len(scenario.columns)}
    if scenario.name in SCENARIO_NAMES:
        benchmarks = data.questions.benchmark[scenario.columns]
        result["predictions"] = _prediction_figures(cuts, Y, resamples)
        result["by_benchmark"] = _auc_by_benchmark(cuts, Y, benchmarks)
    if scenario.name == "release_stream":
        rule, arrivals = release_zoos(data, scenario.rows, scenario.columns, aptitude, MIN_QUESTIONS)
        seen = np.isin([arrival.row for arrival in arrivals], split.seen_rows).tolist()
        of_kind = {
            "all_arrivals": [arrival.zoo for arrival in arrivals],
            "seen_arrivals": [arrival.zoo for arrival, known in zip(arrivals, seen, strict=True) if known],
            "new_arrivals": [arrival.zoo for arrival, known in zip(arrivals, seen, strict=True) if not known],
        }
        # The order is given, not drawn: every seed has the same zoos and only resamples questions.
        result["zoos"] = {kind: {**score([zoos] * seeds), "count": len(zoos)} for kind, zoos in of_kind.items()}
        result["order"] = rule
        result["steps"] = [
            describe_arrival(data, arrival, scenario.columns, predictors, split.seen_rows) for arrival in arrivals
        ]
        return result
    new_families = len({data.families[row] for row in split.new_rows.tolist()})
    result["zoos"] = {}
    for kind in ZOO_KINDS_OF.get(scenario.name, ZOO_KINDS):
        settings = {"zoo_size": zoo_size, "count": zoos_per_seed, "families": new_families}
        result["zoos"][kind] = score([draw_zoos(data, scenario, kind, seed=seed, **settings) for seed in range(seeds)])
    return result


def _prediction_figures(
    cuts: Mapping[str, np.ndarray], Y: np.ndarray, resamples: Sequence[np.ndarray]
) -> dict[str, dict[str, Figure]]:
    return {
        name: {
            metric: figure([score(predicted, Y)], [score(predicted[some], Y[some]) for some in resamples])
            for metric, score in PREDICTION_METRICS.items()
        }
        for name, predicted in cuts.items()
    }


def _auc_by_benchmark(cuts: Mapping[str, np.ndarray], Y: np.ndarray, benchmarks: np.ndarray) -> dict[str, Any]:
    result = {}
    for benchmark in sorted(set(benchmarks.tolist())):
        some = np.flatnonzero(benchmarks == benchmark)
        auc = {name: number(metrics.pooled_auc(predicted[some], Y[some])) for name, predicted in cuts.items()}
        result[benchmark] = {"questions": len(some), "auc": auc}
    return result
