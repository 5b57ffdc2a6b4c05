"""`modelsat evaluate`: a router on real outcomes, next to every baseline."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.errors import BundleError, DataError, MissingExtraError
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.predictions import PREDICTED, Progress, predict
from modelsat_engine.evaluation.router import executor_in_use
from modelsat_engine.evaluation.routerbench import FILE as ROUTERBENCH_FILE
from modelsat_engine.evaluation.routerbench import RouterBench
from modelsat_engine.evaluation.scenarios import ZOOS_PER_SEED
from modelsat_engine.evaluation.scoring import ALL_SCENARIOS, score_predictions
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle

FORMAT_VERSION = 2
MAX_SEEDS = 1000


def evaluate(
    bundle_path: str | Path | Bundle | None = None,
    data_dir: str | Path = ".",
    seeds: int = 5,
    scenarios: Iterable[str] | None = None,
    zoo_size: int = 5,
    max_questions: int | None = None,
    progress: Progress | None = None,
    embedding: np.ndarray | None = None,
    cache: Path | None = None,
    executor: str = "auto",
) -> dict[str, Any]:
    """Measure a router where its own training record says it may be measured.

    The split is read from router.json, ``training.split``: test questions only, aptitude items nowhere, models by
    whether the router trained on them. Models of the data that the record does not name count as new.

    Args:
        bundle_path: the router; None is the shipped one.
        data_dir: directory of outcomes, as :meth:`OutcomeData.load` reads, with RouterBench beside them if it is there.
        seeds: zoos are drawn, and questions resampled for the spread, this many times.
        scenarios: names out of ALL_SCENARIOS (``-`` for ``_`` is fine); default all that the data allows.
        zoo_size: candidates in a zoo, 2 or more.
        max_questions: judge on at most this many questions a scenario; default all.
        progress: called with the share done and a note.
        embedding: float ``[Q, D]`` for the nearest-neighbour and factorisation baselines, a row for each question of
            the data; default the router's own instruction embedding. RouterBench is left out with it.
        cache: directory that keeps the router's instruction embeddings from one call to the next; None keeps none.
        executor: what runs the router, as :meth:`Engine.load` takes it.

    Returns:
        A dict that JSON can hold::

            format_version   2
            bundle           {"name", "hash"}
            settings         {"seeds", "zoo_size", "zoos_per_seed", "max_questions", "executor"}
            data             {"models", "questions", "seen_models", "new_models", "train_questions"}
            split            {"seed", "aptitude_test_id", "new_tasks"}
            scenarios        {name: scenario}
            seconds          {"embedding", "refining", "routing", "baselines", "scoring"}, wall time

        and a scenario is what :func:`score_predictions` returns. Every figure is ``{"mean", "sd"}``, shares not per
        cent, null where it is not defined. Predictors: router; router_refined, where the router has axes: every model
        refined by its answers to the training questions; aptitude_accuracy, best_per_task, knn_full_history,
        knn_aptitude_answers, matrix_factorisation.

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
    data = OutcomeData.load(data_dir)
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    bench = RouterBench.load(data_dir) if "routerbench" in names and embedding is None else None
    if "routerbench" in names and bench is None:
        if scenarios is not None:
            raise DataError(
                f"scenario routerbench needs {ROUTERBENCH_FILE} in {data_dir} and the router's own embedding"
            )
        names.remove("routerbench")
    if bench is not None and max_questions is not None:
        bench = bench.sample(max_questions)
    made = predict(
        bundle,
        data,
        split,
        names,
        max_questions=max_questions,
        bench=bench,
        report=report,
        embedding=embedding,
        cache=cache,
        executor=executor,
    )
    report(PREDICTED, "scoring")
    started = time.monotonic()
    scored = score_predictions(
        made.P,
        data,
        split,
        bundle.aptitude_test,
        scenarios=names,
        seeds=seeds,
        zoo_size=zoo_size,
        max_questions=max_questions,
        bench=bench,
        bench_P=made.on_bench,
    )
    report(1.0, "done")
    return {
        "format_version": FORMAT_VERSION,
        "bundle": {"name": bundle.config.get("name"), "hash": bundle.hash},
        "settings": {
            "seeds": seeds,
            "zoo_size": zoo_size,
            "zoos_per_seed": ZOOS_PER_SEED,
            "max_questions": max_questions,
            "executor": executor_in_use(bundle, executor),
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
        "seconds": {**made.seconds, "scoring": round(time.monotonic() - started, 1)},
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
    names = list(ALL_SCENARIOS if scenarios is None else (name.replace("-", "_") for name in scenarios))
    unknown = [name for name in names if name not in ALL_SCENARIOS]
    if unknown or not names:
        raise DataError(f"there is no scenario {unknown[0] if unknown else ''!r}; use {', '.join(ALL_SCENARIOS)}")
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
