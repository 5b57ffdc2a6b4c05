"""Cost scenarios: which pairs there are, who defers best, and that validation questions choose the rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelsat_engine.evaluation import cost
from modelsat_engine.evaluation.cost import (
    DIFFERENCE,
    GROUPS,
    MIN_GAP,
    WEAK_ALONE,
    WIDE_GAP,
    choose_rules,
    cost_rows,
    make_pairs,
    score_cost_pairs,
)
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import Split
from tests.evaluation.test_scenarios import noisy_truth


def test_pairs_have_a_gap_and_a_price_to_save(data: OutcomeData, split: Split) -> None:
    rows = cost_rows(data, split)
    assert len({data.families[row] for row in rows}) == len(rows)
    pairs = make_pairs(data, rows, split.test, priced=True)
    assert pairs
    gaps = []
    for pair in pairs:
        common = split.test[data.known[np.ix_([pair.weak, pair.strong], split.test)].all(0)]
        gaps.append(data.Y[pair.strong, common].mean() - data.Y[pair.weak, common].mean())
        assert data.usd_per_million_tokens[pair.strong] > data.usd_per_million_tokens[pair.weak]
    assert min(gaps) >= MIN_GAP
    assert gaps == sorted(gaps, reverse=True)
    assert len(make_pairs(data, rows, split.test)) > len(pairs), "without prices the dear weak ones come back"


def test_better_predictions_recover_more_of_the_gap(data: OutcomeData, split: Split) -> None:
    predictors = {
        "truth": (data.Y.T == 1).astype(float),
        "good": noisy_truth(data, 0.3),
        "poor": noisy_truth(data, 0.1),
        "same": np.full(data.Y.T.shape, 0.5),
    }
    result = score_cost_pairs(predictors, data, split, split.test, seeds=3, pairs_per_seed=9)
    json.dumps(result, allow_nan=False)
    assert tuple(result["groups"]) == GROUPS
    for group in GROUPS:
        for width in ("wide", "close"):
            part = result["groups"][group][width]
            if not part["pairs"]:
                continue
            assert (part["gap"] >= WIDE_GAP) is (width == "wide")
            apgr = {name: figures["apgr"]["mean"] for name, figures in part["predictors"].items()}
            assert apgr["oracle"] == pytest.approx(apgr["truth"])
            assert apgr["truth"] > apgr["good"] > apgr["poor"] > apgr["same"]
            assert apgr["same"] == pytest.approx(0.5)
            assert apgr["random"] == pytest.approx(0.5)
            share = {name: figures["strong_share"]["mean"] for name, figures in part["predictors"].items()}
            assert share["truth"] <= share["good"] <= share["random"]
            saved = part["predictors"]["good"]["cost_saved"]["mean"]
            assert (saved is not None) is (group == "priced")
    for pair in result["pairs"]:
        figures = pair["predictors"]["good"]
        cheap = pair["weak_usd_per_million_tokens"] / pair["strong_usd_per_million_tokens"]
        assert figures["cost_saved"] == pytest.approx((1 - figures["strong_share"]) * (1 - cheap), abs=1e-6)
    assert result["named_pair"] is None, "invented data has no Mistral"


def test_a_named_pair_comes_with_its_curves(data: OutcomeData, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pairs(data, cost_rows(data, split), split.test, priced=True)[0]
    monkeypatch.setattr(cost, "NAMED_PAIR", cost._names(data, pair))
    named = score_cost_pairs({"router": noisy_truth(data, 0.3)}, data, split, split.test, seeds=1)["named_pair"]
    assert named["weak"] == data.model_keys[pair.weak]
    for curve in (named["curves"][name] for name in ("random", "router", "oracle")):
        assert len(curve) == len(named["curves"]["share"])
        assert (curve[0], curve[-1]) == pytest.approx((named["weak_accuracy"], named["strong_accuracy"]))


def test_validation_questions_choose_the_deferral_rule(data: OutcomeData, split: Split) -> None:
    """Predictions that know the weak model and, of the strong one, the opposite of the truth."""
    pairs = make_pairs(data, cost_rows(data, split), split.test, priced=True)[:1]
    columns = split.train  # synthetic validation questions are few
    P = np.full(data.Y.T.shape, np.nan)
    P[np.ix_(columns, [pairs[0].weak])] = data.Y.T[np.ix_(columns, [pairs[0].weak])].clip(0)
    P[np.ix_(columns, [pairs[0].strong])] = 1 - data.Y.T[np.ix_(columns, [pairs[0].strong])].clip(0)
    rule = choose_rules({"odd": P}, data, pairs, columns)["odd"]
    assert rule["rule"] == WEAK_ALONE
    assert rule["chosen_on"] == "validation"
    assert rule["validation_apgr"][WEAK_ALONE] > rule["validation_apgr"][DIFFERENCE]
    truth = (data.Y.T == 1).astype(float)
    assert choose_rules({"truth": truth}, data, pairs, columns)["truth"]["rule"] == DIFFERENCE
    unknown = choose_rules({"odd": P}, data, pairs, split.test)["odd"]
    assert (unknown["rule"], unknown["chosen_on"]) == (DIFFERENCE, "default"), "no prediction there, no choice"


def test_pairs_are_drawn_by_seed_and_repeat(data: OutcomeData, split: Split) -> None:
    P = {"router": noisy_truth(data, 0.3)}
    once = score_cost_pairs(P, data, split, split.test, seeds=2, pairs_per_seed=3)
    assert score_cost_pairs(P, data, split, split.test, seeds=2, pairs_per_seed=3) == once
    assert once["groups"]["seen_models"]["wide"]["pairs"] <= 6
    assert (
        score_cost_pairs(P, data, split, split.test, seeds=1)["groups"]["priced"]["wide"]["predictors"]["router"][
            "apgr"
        ]["sd"]
        is None
    )
