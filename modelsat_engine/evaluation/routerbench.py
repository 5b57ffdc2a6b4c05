"""RouterBench: pairs of its models that took the aptitude test, at its own costs, on datasets never trained on.

RouterBench (Hu et al. 2024, arXiv 2403.12031) names models in its own way. One can be scored if the same model took
the aptitude test, that is, has a row in the main panel; a base model does not stand in for its chat version. Whoever
cannot is listed with the reason, never approximated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.evaluation.cost import (
    CURVE_SHARES,
    MIN_GAP,
    ORACLE,
    QUALITY_TARGET,
    RANDOM,
    curve_figures,
    deferral_score,
)
from modelsat_engine.evaluation.deferral import DeferralCurve
from modelsat_engine.evaluation.figures import figure, number, resample
from modelsat_engine.evaluation.model_names import normalised_name
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import share_of

FILE = "routerbench_0shot_subset.parquet"

# RouterBench's name -> the models it may be. It does not say which release of Mistral 7B it called; both are tried and
# reported.
SAME_MODEL = {
    "mistralai/mistral-7b-chat": ("mistral-7b-instruct-v0.1", "mistral-7b-instruct-v0.2"),
    "mistralai/mixtral-8x7b-chat": ("mixtral-8x7b-instruct-v0.1",),
}
_ONLY_BASE = {
    "zero-one-ai/Yi-34B-Chat": "only its base model took the aptitude test",
    "meta/llama-2-70b-chat": "only its base model took the aptitude test",
}


@dataclass(frozen=True, eq=False)
class RouterBench:
    """A subset of RouterBench, N questions x K models.

    Attributes:
        task: str ``[N]``.
        instruction: the prompts, N of them.
        models: K names of its own.
        Y: int8 ``[K, N]``: 1 right, 0 wrong, -1 not available.
        usd: float64 ``[K, N]``, cost of the call; NaN where not available.
    """

    task: np.ndarray
    instruction: tuple[str, ...]
    models: tuple[str, ...]
    Y: np.ndarray
    usd: np.ndarray

    @classmethod
    def load(cls, directory: str | Path) -> RouterBench | None:
        """Read FILE of a directory; None when it is not there.

        Raises:
            DataError: the file is malformed. MissingExtraError: pyarrow is not installed.
        """
        path = Path(directory) / FILE
        if not path.is_file():
            return None
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtraError("reading RouterBench", "evaluate") from error
        try:
            table = parquet.read_table(path).to_pydict()
            models = tuple(name.removeprefix("score|") for name in table if name.startswith("score|"))
            score = np.array([table[f"score|{name}"] for name in models], np.float64)  # [K, N]
            usd = np.array([table[f"cost|{name}"] for name in models], np.float64)
            task, texts = np.array(table["task"], str), tuple(str(text) for text in table["question"])
        except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not a readable subset of RouterBench: {error}") from error
        known = np.isin(score, (0.0, 1.0)) & np.isfinite(usd)
        Y = np.where(known, score, -1).astype(np.int8)
        return cls(task, texts, models, Y, np.where(known, usd, np.nan))

    def sample(self, size: int) -> RouterBench:
        """At most ``size`` of the questions; which ones depends on their texts only."""
        ranked = sorted(range(len(self.instruction)), key=lambda i: share_of(0, "sample", self.instruction[i]))
        some = np.sort(np.array(ranked[:size], np.int64))
        texts = tuple(self.instruction[i] for i in some)
        return RouterBench(self.task[some], texts, self.models, self.Y[:, some], self.usd[:, some])


def profile_rows(data: OutcomeData, rows: np.ndarray, models: tuple[str, ...]) -> dict[str, list[int]]:
    """The rows of the main panel that are a model of RouterBench, one for each release it may be.

    Of several rows of one release the one with most outcomes is taken: its profile says most.

    Args:
        rows: int64, rows that may be used.
        models: RouterBench's names.
    """
    known = data.known.sum(1)
    found: dict[str, list[int]] = {}
    for model in models:
        for name in SAME_MODEL.get(model, (normalised_name(model),)):
            same = [row for row in rows.tolist() if normalised_name(data.model_names[row]) == name]
            if same:
                found.setdefault(model, []).append(max(same, key=lambda row: (int(known[row]), -row)))
    return found


def score_routerbench(
    predictors: Mapping[str, np.ndarray],
    bench: RouterBench,
    data: OutcomeData,
    rows: np.ndarray,
    rules: Mapping[str, str],
    *,
    seeds: int = 5,
) -> dict[str, Any]:
    """Deferral figures of every pair that can be scored.

    Args:
        predictors: name -> float ``[N, M]``, M the rows of ``data``; NaN for rows of no model here is fine.
        rows: int64, seen and new rows of ``data``.
        rules: predictor -> deferral rule, as chosen by :func:`modelsat_engine.evaluation.cost.choose_rules`.
        seeds: resamples of the questions for the spread.

    Returns:
        ``{"questions", "quality_target", "scored": {model: [model key, ...]}, "left_out": {model: reason}, "pairs":
        [...]}``; a pair has weak, strong (RouterBench's names), weak_profile, strong_profile (model keys), both
        accuracies, gap, questions, mean costs in USD a call, ``predictors[name]`` with figures apgr, strong_share
        and cost_saved, and ``curves``. Costs are RouterBench's, call by call.
    """
    found = profile_rows(data, rows, bench.models)
    pairs = []
    for place, one in enumerate(bench.models):
        for other in bench.models[place + 1 :]:
            if one in found and other in found:
                pairs += [
                    _pair(predictors, bench, data, (one, row), (other, other_row), rules, seeds)
                    for row in found[one]
                    for other_row in found[other]
                ]
    no_row = "did not take the aptitude test"
    return {
        "questions": len(bench.instruction),
        "quality_target": QUALITY_TARGET,
        "scored": {model: [data.model_keys[row] for row in of_model] for model, of_model in found.items()},
        "left_out": {model: _ONLY_BASE.get(model, no_row) for model in bench.models if model not in found},
        "pairs": [pair for pair in pairs if pair is not None],
    }


def _pair(
    predictors: Mapping[str, np.ndarray],
    bench: RouterBench,
    data: OutcomeData,
    one: tuple[str, int],
    other: tuple[str, int],
    rules: Mapping[str, str],
    seeds: int,
) -> dict[str, Any] | None:
    k_one, k_other = bench.models.index(one[0]), bench.models.index(other[0])
    common = np.flatnonzero((bench.Y[k_one] >= 0) & (bench.Y[k_other] >= 0))
    gap = float(bench.Y[k_other, common].mean() - bench.Y[k_one, common].mean())
    if abs(gap) < MIN_GAP:
        return None
    (weak, k_weak), (strong, k_strong) = (
        ((one, k_one), (other, k_other)) if gap > 0 else ((other, k_other), (one, k_one))
    )

    def curve(name: str, questions: np.ndarray) -> DeferralCurve:
        y_weak, y_strong = bench.Y[k_weak, questions], bench.Y[k_strong, questions]
        if name == RANDOM:
            score = np.zeros(len(questions))
        elif name == ORACLE:
            score = y_strong.astype(np.float64) - y_weak
        else:
            P = predictors[name]
            score = deferral_score(rules[name], P[questions, weak[1]], P[questions, strong[1]])
        return DeferralCurve.of(score, y_weak, y_strong, bench.usd[k_weak, questions], bench.usd[k_strong, questions])

    resamples = [common[resample(seed, len(common))] for seed in range(seeds)]
    names = (RANDOM, *predictors, ORACLE)
    figures = {}
    for name in names:
        plain = curve_figures(curve(name, common))
        spread = [curve_figures(curve(name, some)) for some in resamples]
        figures[name] = {metric: figure([plain[metric]], [one[metric] for one in spread]) for metric in plain}
    return {
        "weak": weak[0],
        "strong": strong[0],
        "weak_profile": data.model_keys[weak[1]],
        "strong_profile": data.model_keys[strong[1]],
        "weak_accuracy": float(bench.Y[k_weak, common].mean()),
        "strong_accuracy": float(bench.Y[k_strong, common].mean()),
        "gap": abs(gap),
        "questions": len(common),
        "weak_usd_per_call": number(bench.usd[k_weak, common].mean()),
        "strong_usd_per_call": number(bench.usd[k_strong, common].mean()),
        "predictors": figures,
        "curves": {
            "share": CURVE_SHARES.tolist(),
            **{name: curve(name, common).accuracy_at(CURVE_SHARES).tolist() for name in names},
        },
    }
