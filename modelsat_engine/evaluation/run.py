"""`modelsat evaluate`: a router on real outcomes, next to every baseline."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.errors import BundleError, DataError, MissingExtraError
from modelsat_engine.evaluation.baselines import baseline_predictions
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.router import instruction_embeddings, router_probabilities
from modelsat_engine.evaluation.scenarios import SCENARIO_NAMES, ZOOS_PER_SEED, make_scenarios, score_scenarios
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle

FORMAT_VERSION = 1
MAX_SEEDS = 1000
# Shares of the whole work, for the progress bar.
_EMBED, _ROUTE, _COMPARE = 0.45, 0.75, 0.9

Progress = Callable[[float, str], object]


def evaluate(
    bundle_path: str | Path | Bundle | None = None,
    data_dir: str | Path = ".",
    seeds: int = 5,
    scenarios: Iterable[str] | None = None,
    zoo_size: int = 5,
    max_questions: int | None = None,
    progress: Progress | None = None,
    embedding: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measure a router where its own training record says it may be measured.

    The split is read from router.json, ``training.split``: test questions only, aptitude items nowhere, models by
    whether the router trained on them. Models of the data that the record does not name count as new.

    Args:
        bundle_path: the router; None is the shipped one.
        data_dir: directory of outcomes, as :meth:`OutcomeData.load` reads.
        seeds: zoos are drawn, and questions resampled for the spread, this many times.
        scenarios: names out of seen_models, new_models, new_datasets (``-`` for ``_`` is fine); default all.
        zoo_size: candidates in a zoo, 2 or more.
        max_questions: judge on at most this many questions a scenario; default all.
        progress: called with the share done and a note.
        embedding: float ``[Q, D]`` for the nearest-neighbour and factorisation baselines, a row for each question of
            the data; default the router's own instruction embedding.

    Returns:
        A dict that JSON can hold::

            format_version   1
            bundle           {"name", "hash"}
            settings         {"seeds", "zoo_size", "zoos_per_seed", "max_questions"}
            data             {"models", "questions", "seen_models", "new_models", "train_questions"}
            split            {"seed", "aptitude_test_id", "new_tasks"}
            scenarios        {name: scenario}

        and a scenario is what :func:`score_scenarios` returns: ``predictions[predictor]`` with auc (all pairs pooled),
        auc_per_model, ece, brier; ``by_benchmark``; ``zoos[kind]["choices"][predictor]`` with routed_accuracy,
        gain_over_best_single, gain_over_aptitude_best, oracle_gap_share for kind similar and mixed. Every figure is
        ``{"mean", "sd"}``, shares not per cent, null where it is not defined. Predictors: router, aptitude_accuracy,
        best_per_task, knn_full_history, knn_aptitude_answers, matrix_factorisation; choices have random, best_single
        and oracle as well.

    Raises:
        BundleError: the bundle is broken, or records no split.
        DataError: the data is malformed, belongs to another aptitude test, or a setting is out of range.
        MissingExtraError: scikit-learn is not installed (extra ``evaluate``).
    """
    _check_settings(seeds, zoo_size, max_questions)
    _require_sklearn()
    names = _scenario_names(scenarios)
    report = progress or (lambda share, note: None)
    report(0.0, "reading")
    bundle = bundle_path if isinstance(bundle_path, Bundle) else Bundle.load(bundle_path)
    test = bundle.aptitude_test
    data = OutcomeData.load(data_dir)
    split = Split.from_json(recorded_split(bundle), data, test)
    chosen = make_scenarios(data, split, names, max_questions)
    columns = np.unique(np.concatenate([scenario.columns for scenario in chosen]))
    rows = np.unique(np.concatenate([scenario.rows for scenario in chosen]))

    if embedding is None:
        needed = np.unique(np.concatenate([columns, split.train, data.columns(sorted(test.item_ids))]))
        rows_of_needed = instruction_embeddings(
            bundle,
            [data.questions.instruction[column] for column in needed],
            progress=lambda share: report(share * _EMBED, "embedding"),
        )
        embedding = np.full((len(data.questions), rows_of_needed.shape[1]), np.nan, np.float32)
        embedding[needed] = rows_of_needed

    P = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)  # [Q, M]
    P[np.ix_(columns, rows)] = router_probabilities(
        bundle,
        profiles_from_outcomes(data, test, rows),
        [data.questions.instruction[column] for column in columns],
        progress=lambda share: report(_EMBED + share * (_ROUTE - _EMBED), "routing"),
    )
    predictors = {
        "router": P,
        **baseline_predictions(
            data,
            split,
            test,
            embedding,
            columns,
            progress=lambda share: report(_ROUTE + share * (_COMPARE - _ROUTE), "baselines"),
        ),
    }
    report(_COMPARE, "scoring")
    scored = score_scenarios(predictors, data, split, test, scenarios=chosen, seeds=seeds, zoo_size=zoo_size)
    report(1.0, "done")
    return {
        "format_version": FORMAT_VERSION,
        "bundle": {"name": bundle.config.get("name"), "hash": bundle.hash},
        "settings": {
            "seeds": seeds,
            "zoo_size": zoo_size,
            "zoos_per_seed": ZOOS_PER_SEED,
            "max_questions": max_questions,
        },
        "data": {
            "models": len(data.model_keys),
            "questions": len(data.questions),
            "seen_models": len(split.seen_rows),
            "new_models": len(split.new_rows),
            "train_questions": len(split.train),
        },
        "split": {"seed": split.seed, "aptitude_test_id": split.test_id, "new_tasks": list(split.new_tasks)},
        "scenarios": scored,
    }


def recorded_split(bundle: Bundle) -> Mapping[str, Any]:
    """The split that the bundle's training recorded in router.json.

    Raises:
        BundleError: there is none, so nobody can say which questions are fair to ask.
    """
    training = bundle.config.get("training")
    split = training.get("split") if isinstance(training, Mapping) else None
    if not isinstance(split, Mapping):
        raise BundleError(
            f"bundle {bundle.path}: router.json records no training.split, so seen and new models cannot be told "
            "apart; export the bundle again from a checkpoint that has one"
        )
    return split


def _scenario_names(scenarios: Iterable[str] | None) -> list[str]:
    if isinstance(scenarios, str):
        raise DataError(f"scenarios must be a list of names, not one string: [{scenarios!r}]")
    names = list(SCENARIO_NAMES if scenarios is None else (name.replace("-", "_") for name in scenarios))
    unknown = [name for name in names if name not in SCENARIO_NAMES]
    if unknown or not names:
        raise DataError(f"there is no scenario {unknown[0] if unknown else ''!r}; use {', '.join(SCENARIO_NAMES)}")
    return list(dict.fromkeys(names))


def _check_settings(seeds: int, zoo_size: int, max_questions: int | None) -> None:
    if not 1 <= seeds <= MAX_SEEDS:
        raise DataError(f"seeds is {seeds}; use 1 to {MAX_SEEDS}")
    if zoo_size < 2:
        raise DataError(f"zoo_size is {zoo_size}; routing needs at least 2 candidates")
    if max_questions is not None and max_questions < 1:
        raise DataError(f"max_questions is {max_questions}; use at least 1, or leave it out")


def _require_sklearn() -> None:
    """Say at once what is missing, not after minutes of work."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("modelsat evaluate", "evaluate")
