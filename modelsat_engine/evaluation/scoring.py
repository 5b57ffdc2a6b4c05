"""Scores predictions that are already made, in every scenario: arithmetic over arrays, no bundle and no text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.cost import choose_rules, cost_rows, make_pairs, score_cost_pairs
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.routerbench import RouterBench, score_routerbench
from modelsat_engine.evaluation.scenarios import (
    ZOO_SCENARIOS,
    ZOOS_PER_SEED,
    make_scenarios,
    sample_of,
    score_scenarios,
)
from modelsat_engine.evaluation.splits import Split

ALL_SCENARIOS = (*ZOO_SCENARIOS, "cost_pairs", "routerbench")


def score_predictions(
    P: np.ndarray | Mapping[str, np.ndarray],
    data: OutcomeData,
    split: Split,
    test: AptitudeTest,
    *,
    scenarios: Iterable[str] | None = None,
    seeds: int = 5,
    zoo_size: int = 5,
    zoos_per_seed: int = ZOOS_PER_SEED,
    max_questions: int | None = None,
    bench: RouterBench | None = None,
    bench_P: np.ndarray | Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Every scenario of one or several predictors.

    Args:
        P: float ``[Q, M]`` over all questions and rows of ``data``, or several by name; one alone is called
            ``router``. Needed are seen and new models on test questions and, for new_datasets, on those of new
            datasets; on validation questions the deferral rule is chosen if it is there. NaN elsewhere.
        scenarios: out of ALL_SCENARIOS; default all, routerbench if its predictions are given.
        seeds, zoo_size, zoos_per_seed: as :func:`score_scenarios`.
        max_questions: judge on at most this many questions a scenario.
        bench, bench_P: RouterBench and predictions ``[N, M]`` for its questions, by the same names as P.

    Returns:
        scenario -> its result, as :func:`score_scenarios`, :func:`score_cost_pairs` and :func:`score_routerbench`
        return them.

    Raises:
        DataError: an unknown scenario, or predictions that cannot be scored.
    """
    predictors = {"router": P} if isinstance(P, np.ndarray) else dict(P)
    bench_predictors = {"router": bench_P} if isinstance(bench_P, np.ndarray) else dict(bench_P or {})
    names = list(ALL_SCENARIOS if scenarios is None else scenarios)
    if scenarios is None and not (bench and bench_predictors):
        names.remove("routerbench")
    unknown = [name for name in names if name not in ALL_SCENARIOS]
    if unknown:
        raise DataError(f"there is no scenario {unknown[0]!r}; choose from {', '.join(ALL_SCENARIOS)}")
    chosen = make_scenarios(data, split, [name for name in names if name in ZOO_SCENARIOS], max_questions)
    scored = score_scenarios(
        predictors,
        data,
        split,
        test,
        scenarios=chosen,
        seeds=seeds,
        zoo_size=zoo_size,
        zoos_per_seed=zoos_per_seed,
    )
    columns = split.test if max_questions is None else sample_of(data, split.test, max_questions)
    validation = split.validation if max_questions is None else sample_of(data, split.validation, max_questions)
    if "cost_pairs" in names:
        scored["cost_pairs"] = score_cost_pairs(predictors, data, split, columns, validation=validation, seeds=seeds)
    if "routerbench" in names:
        if bench is None or not bench_predictors:
            raise DataError("scenario routerbench needs RouterBench's outcomes and predictions for its questions")
        priced = make_pairs(data, cost_rows(data, split), columns, priced=True)
        rules = choose_rules(
            {name: predictors[name] for name in bench_predictors if name in predictors}, data, priced, validation
        )
        scored["routerbench"] = score_routerbench(
            bench_predictors,
            bench,
            data,
            np.concatenate([split.seen_rows, split.new_rows]),
            {name: rules[name]["rule"] for name in rules},
            seeds=seeds,
        )
    return {name: scored[name] for name in dict.fromkeys(names)}
