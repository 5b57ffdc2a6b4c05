"""Scenarios hold who they should, zoos are fair, and scores keep the order that must hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import metrics
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.scenarios import (
    MIN_QUESTIONS,
    SCENARIO_NAMES,
    ZOO_KINDS,
    aptitude_accuracy,
    draw_zoos,
    make_scenarios,
    score_scenarios,
)
from modelsat_engine.evaluation.splits import Split


def noisy_truth(data: OutcomeData, share_true: float, seed: int = 0) -> np.ndarray:
    """Predictions [Q, M] that agree with the outcome more often the larger ``share_true``."""
    noise = np.random.default_rng(seed).random(data.Y.T.shape)
    return share_true * (data.Y.T == 1) + (1 - share_true) * noise


def test_scenarios_hold_the_models_and_questions_of_their_name(data: OutcomeData, split: Split) -> None:
    by_name = {scenario.name: scenario for scenario in make_scenarios(data, split)}
    assert tuple(by_name) == SCENARIO_NAMES
    assert set(by_name["seen_models"].rows) == set(split.seen_rows)
    assert set(by_name["new_models"].rows) == set(split.new_rows)
    np.testing.assert_array_equal(by_name["new_models"].columns, split.test)
    np.testing.assert_array_equal(by_name["new_datasets"].columns, split.new_datasets)
    for row in by_name["new_datasets"].rows:
        assert data.model_keys[row].startswith("olb2/"), "the others have no outcomes there"
        assert row not in split.validation_rows


def test_fewer_questions_are_a_fixed_sample(data: OutcomeData, split: Split) -> None:
    few = make_scenarios(data, split, ["seen_models"], max_questions=71)[0]
    more = make_scenarios(data, split, ["seen_models"], max_questions=80)[0]
    assert len(few.columns) == 71
    assert set(few.columns) < set(more.columns) < set(split.test)


@pytest.mark.parametrize("kind", ZOO_KINDS)
@pytest.mark.parametrize(("seed", "zoo_size"), [(0, 5), (1, 2), (2, 6)])
def test_zoos_are_distinct_families_with_questions_in_common(
    data: OutcomeData, split: Split, kind: str, seed: int, zoo_size: int
) -> None:
    for scenario in make_scenarios(data, split):
        zoos = draw_zoos(data, scenario, kind, seed=seed, zoo_size=zoo_size, count=13)
        again = draw_zoos(data, scenario, kind, seed=seed, zoo_size=zoo_size, count=13)
        assert [z.tolist() for z in zoos] == [z.tolist() for z in again]
        assert len({tuple(zoo) for zoo in zoos}) == len(zoos)
        for zoo in zoos:
            assert len({data.families[row] for row in zoo}) == zoo_size
            assert set(zoo) <= set(scenario.rows)
            assert data.known[np.ix_(zoo, scenario.columns)].all(0).sum() >= MIN_QUESTIONS


def test_zoos_of_similar_strength_are_closer_than_mixed_ones(data: OutcomeData, split: Split) -> None:
    scenario = make_scenarios(data, split, ["seen_models"])[0]
    ranges = {
        kind: np.mean([np.ptp(data.strength[zoo]) for zoo in draw_zoos(data, scenario, kind, seed=4)])
        for kind in ZOO_KINDS
    }
    assert ranges["similar"] < 0.6 * ranges["mixed"]


def test_too_few_families_give_no_zoo_and_no_choices(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest
) -> None:
    result = score_scenarios(noisy_truth(data, 0.5), data, split, aptitude_test, scenarios=["new_models"], zoo_size=9)
    for kind in ZOO_KINDS:
        assert result["new_models"]["zoos"][kind]["count"] == 0
        assert result["new_models"]["zoos"][kind]["choices"] == {}
    assert result["new_models"]["predictions"]["router"]["auc"]["mean"] > 0.5


def test_scores_keep_the_order_that_must_hold(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    predictors = {
        "truth": (data.Y.T == 1).astype(float),
        "good": noisy_truth(data, 0.3),
        "poor": noisy_truth(data, 0.1),
        "same": np.full(data.Y.T.shape, 0.5),
        "aptitude": np.tile(aptitude_accuracy(data, aptitude_test), (len(data.questions), 1)),
    }
    result = score_scenarios(predictors, data, split, aptitude_test, seeds=3, zoos_per_seed=7, zoo_size=3)
    json.dumps(result, allow_nan=False)
    for name in SCENARIO_NAMES:
        auc = {key: value["auc"]["mean"] for key, value in result[name]["predictions"].items()}
        assert auc["truth"] == 1.0 > auc["good"] > auc["poor"] > auc["same"] == 0.5
        for kind in ZOO_KINDS:
            choices = result[name]["zoos"][kind]["choices"]
            accuracy = {key: value["routed_accuracy"]["mean"] for key, value in choices.items()}
            assert max(accuracy.values()) == accuracy["oracle"] == pytest.approx(accuracy["truth"])
            assert accuracy["same"] == pytest.approx(accuracy["random"])
            assert accuracy["oracle"] > accuracy["good"] > accuracy["poor"]
            assert accuracy["best_single"] >= accuracy["aptitude"] - 1e-12
            assert choices["oracle"]["oracle_gap_share"]["mean"] == pytest.approx(1)
            assert choices["best_single"]["gain_over_best_single"] == {"mean": 0, "sd": 0}
            assert abs(choices["aptitude"]["gain_over_aptitude_best"]["mean"]) < 0.01  # ties of the score aside
            for key, value in choices.items():
                gain = accuracy[key] - accuracy["best_single"]
                assert value["gain_over_best_single"]["mean"] == pytest.approx(gain, abs=1e-9)


def test_figures_are_those_of_the_metrics(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    P = noisy_truth(data, 0.3)
    result = score_scenarios(P, data, split, aptitude_test, scenarios=["new_models"], seeds=2)["new_models"]
    cut = np.ix_(split.test, split.new_rows)
    for metric, score in (("auc", metrics.pooled_auc), ("ece", metrics.expected_calibration_error)):
        assert result["predictions"]["router"][metric]["mean"] == pytest.approx(score(P[cut], data.Y.T[cut]))
        assert result["predictions"]["router"][metric]["sd"] > 0
    scenario = make_scenarios(data, split, ["new_models"])[0]
    expected = []
    for seed in range(2):
        of_seed = []
        for zoo in draw_zoos(data, scenario, "mixed", seed=seed):
            common = split.test[(data.Y[np.ix_(zoo, split.test)] >= 0).all(0)]
            of_seed.append(metrics.routed_accuracy(P[np.ix_(common, zoo)], data.Y.T[np.ix_(common, zoo)]))
        expected.append(np.mean(of_seed))
    choice = result["zoos"]["mixed"]["choices"]["router"]["routed_accuracy"]
    assert choice["mean"] == pytest.approx(np.mean(expected))


def test_scoring_twice_gives_the_same(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    P = noisy_truth(data, 0.3)
    settings = {"seeds": 2, "zoos_per_seed": 3}
    once = score_scenarios(P, data, split, aptitude_test, **settings)
    assert score_scenarios(P, data, split, aptitude_test, **settings) == once


def test_one_seed_has_a_mean_and_no_spread(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    result = score_scenarios(
        noisy_truth(data, 0.3), data, split, aptitude_test, scenarios=["seen_models"], seeds=1, zoos_per_seed=1
    )["seen_models"]
    assert result["predictions"]["router"]["auc"]["sd"] is None
    assert result["zoos"]["similar"]["count"] == 1


def test_what_cannot_be_scored_is_refused(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    P = noisy_truth(data, 0.3)
    with pytest.raises(DataError, match="shape"):
        score_scenarios(P.T, data, split, aptitude_test)
    holed = P.copy()
    holed[split.test[3], split.seen_rows[2]] = np.nan
    with pytest.raises(DataError, match="missing"):
        score_scenarios({"holed": holed}, data, split, aptitude_test, scenarios=["seen_models"])
    with pytest.raises(DataError, match="probabilities"):
        score_scenarios(3 * P, data, split, aptitude_test)
    with pytest.raises(DataError, match="no scenario"):
        score_scenarios(P, data, split, aptitude_test, scenarios=["old_models"])
    for setting in ({"seeds": 0}, {"zoo_size": 1}, {"zoos_per_seed": 0}):
        with pytest.raises(DataError, match="too small"):
            score_scenarios(P, data, split, aptitude_test, **setting)


def test_a_prediction_is_needed_only_where_it_is_judged(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest
) -> None:
    P = np.full(data.Y.T.shape, np.nan)
    P[np.ix_(split.test, split.new_rows)] = 0.25
    result = score_scenarios(P, data, split, aptitude_test, scenarios=["new_models"])
    assert result["new_models"]["predictions"]["router"]["auc"]["mean"] == 0.5
