"""Asks the router and every baseline for all that the chosen scenarios need to know, and scores nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.evaluation.baselines import baseline_predictions, baselines_elsewhere
from modelsat_engine.evaluation.cost import cost_rows
from modelsat_engine.evaluation.embedding_cache import cached_embeddings
from modelsat_engine.evaluation.history import refined_profiles
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.router import instruction_embeddings, router_probabilities
from modelsat_engine.evaluation.routerbench import RouterBench, profile_rows
from modelsat_engine.evaluation.scenarios import ZOO_SCENARIOS, make_scenarios, sample_of
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle

Progress = Callable[[float, str], object]
# Shares of the whole work, for the progress bar.
_EMBEDDED, _REFINED, _ROUTED, PREDICTED = 0.4, 0.6, 0.8, 0.9


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the router and every baseline say.

    Attributes:
        P: predictor -> float32 ``[Q, M]`` over all questions and rows of the data, NaN where nothing was asked.
        on_bench: predictor -> float32 ``[N, M]`` for the questions of RouterBench; empty without it.
        seconds: wall time of embedding, refining, routing and baselines.
    """

    P: dict[str, np.ndarray]
    on_bench: dict[str, np.ndarray]
    seconds: dict[str, float]


def predict(
    bundle: Bundle,
    data: OutcomeData,
    split: Split,
    names: Iterable[str],
    *,
    max_questions: int | None = None,
    bench: RouterBench | None = None,
    report: Progress = lambda share, note: None,
    embedding: np.ndarray | None = None,
    cache: Path | None = None,
    executor: str = "auto",
) -> Predictions:
    """Predictions of the router and of the baselines for the scenarios of these names.

    Args:
        names, max_questions, embedding, cache, executor: as for :func:`modelsat_engine.evaluation.run.evaluate`.
        bench: questions of RouterBench to predict as well; needs ``embedding`` None.
        report: called with the share done, up to PREDICTED, and a note.
    """
    test, everyone = bundle.aptitude_test, np.concatenate([split.seen_rows, split.new_rows])
    rows_of_column = _wanted(data, split, list(names), max_questions)
    columns = np.array(sorted(rows_of_column), np.int64)
    bench_texts = bench.instruction if bench is not None else ()
    watch = _Stopwatch()

    bench_embedding = np.empty((0, 0), np.float32)
    if embedding is None:
        needed = np.unique(np.concatenate([columns, split.train, data.columns(sorted(test.item_ids))]))
        texts = [*(data.questions.instruction[column] for column in needed), *bench_texts]
        embedded = _embed(bundle, texts, cache, lambda share: report(share * _EMBEDDED, "embedding"))
        embedding = np.full((len(data.questions), embedded.shape[1]), np.nan, np.float32)
        embedding[needed], bench_embedding = embedded[: len(needed)], embedded[len(needed) :]
    watch.lap("embedding")

    profiles = {"router": dict(zip(everyone.tolist(), profiles_from_outcomes(data, test, everyone), strict=True))}
    if bundle.config.get("refinement_axes"):
        profiles["router_refined"] = refined_profiles(
            bundle,
            profiles["router"],
            data,
            split.train,
            executor=executor,
            progress=lambda share: report(_EMBEDDED + share * (_REFINED - _EMBEDDED), "refining"),
        )
    watch.lap("refining")
    asked, total = 0, len(profiles) * (len(columns) + len(bench_texts))

    def route(name: str, rows: np.ndarray, texts: list[str]) -> np.ndarray:
        nonlocal asked
        before, asked = asked, asked + len(texts)
        return router_probabilities(
            bundle,
            [profiles[name][row] for row in rows.tolist()],
            texts,
            executor=executor,
            progress=lambda share: report(
                _REFINED + (_ROUTED - _REFINED) * (before + share * len(texts)) / total, "routing"
            ),
        )

    P, on_bench = {}, {}
    together: dict[tuple[int, ...], list[int]] = {}  # questions for the same models share batches
    for column, rows in rows_of_column.items():
        together.setdefault(tuple(sorted(rows)), []).append(column)
    bench_rows = np.empty(0, np.int64)
    if bench is not None:
        scored = {row for of_model in profile_rows(data, everyone, bench.models).values() for row in of_model}
        bench_rows = np.array(sorted(scored), np.int64)
    for name in profiles:
        P[name] = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)  # [Q, M]
        for of_rows, of_columns in together.items():
            rows_, columns_ = np.array(of_rows, np.int64), np.array(of_columns, np.int64)
            texts = [data.questions.instruction[column] for column in of_columns]
            P[name][np.ix_(columns_, rows_)] = route(name, rows_, texts)
        if bench is not None:
            on_bench[name] = np.full((len(bench_texts), len(data.model_keys)), np.nan, np.float32)
            if len(bench_rows):
                on_bench[name][:, bench_rows] = route(name, bench_rows, list(bench_texts))
    watch.lap("routing")

    def compared(share: float) -> None:
        report(_ROUTED + share * (PREDICTED - _ROUTED), "baselines")

    baselines = baseline_predictions(data, split, test, embedding, columns, progress=compared)
    if len(bench_rows):
        on_bench.update(baselines_elsewhere(data, split, test, embedding, bench_embedding, bench_rows))
    watch.lap("baselines")
    return Predictions({**P, **baselines}, on_bench, watch.seconds)


def _wanted(data: OutcomeData, split: Split, names: list[str], max_questions: int | None) -> dict[int, set[int]]:
    """Question -> models whose probability some scenario needs."""
    size = max_questions or len(data.questions)
    chosen = make_scenarios(data, split, [name for name in names if name in ZOO_SCENARIOS], max_questions)
    blocks = [(scenario.columns, scenario.rows) for scenario in chosen]
    if "cost_pairs" in names:
        blocks.append((sample_of(data, split.test, size), np.concatenate([split.seen_rows, split.new_rows])))
    if "cost_pairs" in names or "routerbench" in names:
        # Validation questions choose the deferral rule, and nothing else.
        blocks.append((sample_of(data, split.validation, size), np.array(cost_rows(data, split), np.int64)))
    rows_of_column: dict[int, set[int]] = {}
    for columns, rows in blocks:
        for column in columns.tolist():
            rows_of_column.setdefault(column, set()).update(rows.tolist())
    return rows_of_column


def _embed(bundle: Bundle, texts: list[str], cache: Path | None, progress: Callable[[float], object]) -> np.ndarray:
    if cache is None:
        return instruction_embeddings(bundle, texts, progress=progress)
    return cached_embeddings(bundle, texts, progress=progress, directory=cache)


class _Stopwatch:
    """Wall time of named stretches of work, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._since = round(now - self._since, 1), now
