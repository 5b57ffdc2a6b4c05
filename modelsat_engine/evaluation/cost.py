"""Cost scenarios: when to call the strong, dear model of a pair, and when the weak, cheap one is good enough.

Three groups of pairs, on test questions of tasks the router was trained on:

    priced        all pairs of models with a price where the stronger one costs more; costs count
    seen_models   pairs of models the router trained on, drawn at random, whatever they cost
    new_models    pairs of models it knows by their profile alone

A pair is two families, at least MIN_GAP apart in accuracy on the questions both answered: closer ones have no gap to
recover. Figures are means over the pairs WIDE_GAP or more apart (wide) and over the others (close). A predictor's
deferral score is P_strong - P_weak, or 1 - P_weak where that recovers more on the validation questions (priced pairs);
the choice is one for all pairs. Without predictions on validation questions it is the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.evaluation.deferral import DeferralCurve
from modelsat_engine.evaluation.figures import figure, number, resample
from modelsat_engine.evaluation.model_names import normalised_name
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.evaluation.zoos import MIN_QUESTIONS

MIN_GAP, WIDE_GAP = 0.05, 0.15
QUALITY_TARGET = 0.95  # of the strong model's accuracy
PAIRS_PER_SEED = 40
GROUPS = ("priced", "seen_models", "new_models")
NAMED_PAIR = ("mistral-7b-instruct-v0.2", "llama-3.1-70b-instruct")
DIFFERENCE, WEAK_ALONE = "P_strong - P_weak", "1 - P_weak"
RULES = (DIFFERENCE, WEAK_ALONE)
CURVE_SHARES = np.linspace(0, 1, 21)
# What needs no prediction: one score for all questions, and the best order in hindsight.
RANDOM, ORACLE = "random", "oracle"


@dataclass(frozen=True)
class Pair:
    """Two model rows; the strong one answers more of the judged questions right."""

    weak: int
    strong: int


def score_cost_pairs(
    predictors: Mapping[str, np.ndarray],
    data: OutcomeData,
    split: Split,
    columns: np.ndarray,
    *,
    validation: np.ndarray | None = None,
    seeds: int = 5,
    pairs_per_seed: int = PAIRS_PER_SEED,
) -> dict[str, Any]:
    """Deferral figures of every predictor.

    Args:
        predictors: name -> float ``[Q, M]``, finite on ``columns`` for seen and new models; NaN elsewhere is fine.
        columns: int64, the questions that are judged.
        validation: int64, the questions that choose the deferral rule; default the split's.
        seeds: draws of the pairs of seen_models and new_models, and resamples of the questions for the spread.

    Returns:
        ``{"questions", "min_gap", "wide_gap", "quality_target", "rules": {predictor: {"rule", "chosen_on",
        "validation_apgr"}}, "groups": {group: {"wide" | "close": {"pairs", "gap", "predictors": {name: {"apgr",
        "strong_share", "cost_saved"}}}}}, "pairs": [...], "named_pair"}``. ``strong_share`` is the smallest share of
        strong calls that reaches QUALITY_TARGET of the strong model's accuracy, ``cost_saved`` what that saves of the
        cost of calling the strong model always, at equal tokens a call. Figures of groups are ``{"mean", "sd"}``;
        ``pairs`` are the priced ones; ``named_pair`` is the entry of NAMED_PAIR with ``curves``, None if the data
        lacks it. Predictors include random and oracle.
    """
    priced = make_pairs(data, cost_rows(data, split), columns, priced=True)
    rules = choose_rules(predictors, data, priced, split.validation if validation is None else validation)
    judge = _Judge(predictors, data, columns, {name: rule["rule"] for name, rule in rules.items()})
    drawn: dict[str, list[list[Pair]]] = {"priced": [priced] * seeds, "seen_models": [], "new_models": []}
    for seed in range(seeds):
        for group, rows in (("seen_models", split.seen_rows), ("new_models", split.new_rows)):
            rng = np.random.default_rng([seed, GROUPS.index(group)])
            pairs = make_pairs(data, _one_a_family(data, rng.permutation(rows)), columns)
            both = [[pair for pair in pairs if judge.wide(pair) is wide] for wide in (True, False)]
            picked = [[of[i] for i in rng.permutation(len(of))[:pairs_per_seed]] for of in both]
            drawn[group].append([pair for of in picked for pair in of])
    resamples = [resample(seed, len(columns)) for seed in range(seeds)]
    named = [pair for pair in priced if _names(data, pair) == NAMED_PAIR]
    return {
        "questions": len(columns),
        "min_gap": MIN_GAP,
        "wide_gap": WIDE_GAP,
        "quality_target": QUALITY_TARGET,
        "rules": rules,
        "groups": {group: _group(judge, of_seed, resamples) for group, of_seed in drawn.items()},
        "pairs": [judge.describe(pair) for pair in priced],
        "named_pair": judge.describe(named[0], curves=True) if named else None,
    }


def cost_rows(data: OutcomeData, split: Split) -> list[int]:
    """Seen and new rows with a price, one a family: those that the group ``priced`` is made of."""
    everyone = np.concatenate([split.seen_rows, split.new_rows])
    return _one_a_family(data, everyone[~np.isnan(data.usd_per_million_tokens[everyone])])


def make_pairs(data: OutcomeData, rows: Sequence[int], columns: np.ndarray, priced: bool = False) -> list[Pair]:
    """Every pair of the rows that has a gap to recover, the widest first.

    Args:
        rows: model rows, one a family.
        columns: int64, questions that decide who is stronger.
        priced: keep only pairs whose strong model costs more.
    """
    found = []
    for place, one in enumerate(rows):
        for other in rows[place + 1 :]:
            common = columns[data.known[one, columns] & data.known[other, columns]]
            if len(common) < MIN_QUESTIONS:
                continue
            gap = float(data.Y[other, common].mean() - data.Y[one, common].mean())
            weak, strong = (one, other) if gap > 0 else (other, one)
            if abs(gap) < MIN_GAP:
                continue
            if priced and not data.usd_per_million_tokens[strong] > data.usd_per_million_tokens[weak]:
                continue
            found.append((-abs(gap), weak, strong))
    return [Pair(weak, strong) for _, weak, strong in sorted(found)]


def choose_rules(
    predictors: Mapping[str, np.ndarray], data: OutcomeData, pairs: Sequence[Pair], validation: np.ndarray
) -> dict[str, dict[str, Any]]:
    """The deferral score of every predictor: the rule of the highest mean APGR over the pairs on validation questions.

    Returns:
        predictor -> ``{"rule", "chosen_on": "validation" or "default", "validation_apgr": {rule: float or None}}``.
    """
    chosen = {}
    for name, P in predictors.items():
        apgr: dict[str, float] = {}
        rows = np.array(sorted({row for pair in pairs for row in (pair.weak, pair.strong)}), np.int64)
        if pairs and len(validation) >= MIN_QUESTIONS and np.isfinite(P[np.ix_(validation, rows)]).all():
            for rule in RULES:
                judge = _Judge({name: P}, data, validation, {name: rule})
                values = [judge.curve(name, pair).apgr() for pair in pairs if judge.gap(pair) > 0]
                apgr[rule] = float(np.mean(values)) if values else math.nan
        decided = len(apgr) == len(RULES) and all(math.isfinite(value) for value in apgr.values())
        chosen[name] = {
            # A tie, as of a predictor that ignores the question, stays with the difference.
            "rule": WEAK_ALONE if decided and apgr[WEAK_ALONE] > apgr[DIFFERENCE] + 1e-9 else DIFFERENCE,
            "chosen_on": "validation" if decided else "default",
            "validation_apgr": {rule: number(apgr.get(rule, math.nan)) for rule in RULES},
        }
    return chosen


def deferral_score(rule: str, P_weak: np.ndarray, P_strong: np.ndarray) -> np.ndarray:
    """The score by which questions are deferred, float ``[n]`` of two float ``[n]``."""
    return 1 - P_weak if rule == WEAK_ALONE else P_strong - P_weak


class _Judge:
    """Curves of pairs on fixed questions, of predictors with fixed rules."""

    def __init__(
        self,
        predictors: Mapping[str, np.ndarray],
        data: OutcomeData,
        columns: np.ndarray,
        rules: Mapping[str, str],
    ) -> None:
        self._predictors, self._data, self._columns, self._rules = predictors, data, columns, rules
        self.names = (RANDOM, *predictors, ORACLE)

    def curve(self, name: str, pair: Pair, some: np.ndarray | None = None) -> DeferralCurve:
        """The curve of one predictor; ``some`` are positions among the questions, with repeats in a resample."""
        data = self._data
        columns = self._columns if some is None else self._columns[some]
        columns = columns[data.known[pair.weak, columns] & data.known[pair.strong, columns]]
        weak, strong = data.Y[pair.weak, columns], data.Y[pair.strong, columns]
        if name == RANDOM:
            score = np.zeros(len(columns))
        elif name == ORACLE:
            score = strong.astype(np.float64) - weak
        else:
            P = self._predictors[name]
            score = deferral_score(self._rules[name], P[columns, pair.weak], P[columns, pair.strong])
        prices = data.usd_per_million_tokens
        return DeferralCurve.of(score, weak, strong, float(prices[pair.weak]), float(prices[pair.strong]))

    def gap(self, pair: Pair) -> float:
        return self.curve(RANDOM, pair).gap

    def wide(self, pair: Pair) -> bool:
        return self.gap(pair) >= WIDE_GAP

    def figures(self, name: str, pair: Pair, some: np.ndarray | None = None) -> dict[str, float]:
        curve = self.curve(name, pair, some)
        return curve_figures(curve)

    def describe(self, pair: Pair, curves: bool = False) -> dict[str, Any]:
        data = self._data
        line = self.curve(RANDOM, pair)
        common = data.known[pair.weak, self._columns] & data.known[pair.strong, self._columns]
        described: dict[str, Any] = {
            "weak": data.model_keys[pair.weak],
            "strong": data.model_keys[pair.strong],
            "weak_accuracy": float(line.accuracy[0]),
            "strong_accuracy": float(line.accuracy[-1]),
            "gap": line.gap,
            "questions": int(common.sum()),
            "weak_usd_per_million_tokens": number(data.usd_per_million_tokens[pair.weak]),
            "strong_usd_per_million_tokens": number(data.usd_per_million_tokens[pair.strong]),
            "predictors": {
                name: {metric: number(value) for metric, value in self.figures(name, pair).items()}
                for name in self.names
            },
        }
        if curves:
            described["curves"] = {
                "share": CURVE_SHARES.tolist(),
                **{name: self.curve(name, pair).accuracy_at(CURVE_SHARES).tolist() for name in self.names},
            }
        return described


def curve_figures(curve: DeferralCurve) -> dict[str, float]:
    """APGR, the share of strong calls that reaches QUALITY_TARGET, and what it saves; NaN where not defined."""
    share = curve.share_reaching(QUALITY_TARGET * float(curve.accuracy[-1]))
    # A resample may turn a close pair around; then there is no gap to recover.
    return {
        "apgr": curve.apgr() if curve.gap > 0 else math.nan,
        "strong_share": share,
        "cost_saved": curve.cost_saved(share),
    }


def _group(judge: _Judge, drawn: Sequence[Sequence[Pair]], resamples: Sequence[np.ndarray]) -> dict[str, Any]:
    result = {}
    for width, wide in (("wide", True), ("close", False)):
        of_seed = [[pair for pair in pairs if judge.wide(pair) is wide] for pairs in drawn]
        gaps = [judge.gap(pair) for pairs in of_seed for pair in pairs]
        figures: dict[str, Any] = {}
        for name in judge.names if gaps else ():
            plain = [_mean_figures([judge.figures(name, pair) for pair in pairs]) for pairs in of_seed if pairs]
            resampled = [
                _mean_figures([judge.figures(name, pair, some) for pair in pairs])
                for pairs, some in zip(of_seed, resamples, strict=True)
                if pairs
            ]
            figures[name] = {
                metric: figure([one[metric] for one in plain], [one[metric] for one in resampled])
                for metric in ("apgr", "strong_share", "cost_saved")
            }
        result[width] = {
            "pairs": len({pair for pairs in of_seed for pair in pairs}),
            "gap": number(np.mean(gaps)) if gaps else None,
            "predictors": figures,
        }
    return result


def _mean_figures(of_pairs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over pairs of each metric, of what is defined; cost only where every pair has one."""
    means = {}
    for metric in of_pairs[0]:
        values = np.array([one[metric] for one in of_pairs])
        defined = values[np.isfinite(values)]
        whole = len(defined) == len(values) or metric == "apgr"
        means[metric] = float(defined.mean()) if len(defined) and whole else math.nan
    return means


def _one_a_family(data: OutcomeData, rows: np.ndarray) -> list[int]:
    """The first row of every family, in order."""
    of_family: dict[str, int] = {}
    for row in rows.tolist():
        of_family.setdefault(data.families[row], row)
    return list(of_family.values())


def _names(data: OutcomeData, pair: Pair) -> tuple[str, str]:
    return normalised_name(data.model_names[pair.weak]), normalised_name(data.model_names[pair.strong])
