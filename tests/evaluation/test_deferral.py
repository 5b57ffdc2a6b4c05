"""Deferral curves: known areas, equal scores, and what a share of strong calls costs."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.deferral import DeferralCurve


def outcomes(seed: int, n: int = 211) -> tuple[np.ndarray, np.ndarray]:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    return (rng.random(n) < 0.4).astype(np.int8), (rng.random(n) < 0.7).astype(np.int8)


def test_a_curve_of_four_questions_by_hand() -> None:
    weak, strong = np.array([1, 0, 0, 0]), np.array([1, 1, 1, 0])
    curve = DeferralCurve.of(np.array([0.1, 0.9, 0.5, 0.2]), weak, strong, 1.0, 5.0)
    np.testing.assert_allclose(curve.share, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.accuracy, [0.25, 0.5, 0.75, 0.75, 0.75])
    np.testing.assert_allclose(curve.cost, [1, 2, 3, 4, 5])
    # Area of PGR: two triangles' slopes over the first half, then 1.
    assert curve.apgr() == pytest.approx(0.25 * (0.25 + 0.75) + 0.5)
    assert curve.share_reaching(0.75) == 0.5
    assert curve.share_reaching(0.6) == pytest.approx(0.35)
    assert curve.share_reaching(0.2) == 0.0
    assert curve.share_reaching(0.9) == 1.0
    assert curve.cost_saved(0.5) == pytest.approx(1 - 3 / 5)


@pytest.mark.parametrize("seed", [3, 4])
def test_one_score_for_all_is_the_random_mix(seed: int) -> None:
    weak, strong = outcomes(seed)
    curve = DeferralCurve.of(np.full(len(weak), 0.3), weak, strong, 1.0, 4.0)
    assert curve.apgr() == pytest.approx(0.5)
    np.testing.assert_allclose(curve.accuracy_at(np.array([0.25])), weak.mean() + 0.25 * curve.gap)
    # Half of the calls at 4, half at 1.
    assert curve.cost_saved(0.5) == pytest.approx(1 - 2.5 / 4)


@pytest.mark.parametrize("seed", [5, 6])
def test_the_best_order_is_an_upper_bound_and_the_reverse_a_lower_one(seed: int) -> None:
    weak, strong = outcomes(seed)
    best = DeferralCurve.of(strong.astype(float) - weak, weak, strong)
    worst = DeferralCurve.of(weak.astype(float) - strong, weak, strong)
    some = DeferralCurve.of(np.random.default_rng(seed).random(len(weak)), weak, strong)
    assert best.apgr() > some.apgr() > worst.apgr()
    assert best.apgr() + worst.apgr() == pytest.approx(1), "the curves are each other's mirror image"
    assert best.accuracy.max() == pytest.approx(np.maximum(weak, strong).mean())


def test_the_area_is_the_limit_of_the_published_ten_shares() -> None:
    seed = 7
    weak, strong = outcomes(seed, 5000)
    score = strong - weak + np.random.default_rng(seed).normal(0, 1.5, 5000)
    curve = DeferralCurve.of(score, weak, strong)
    shares = np.linspace(0, 1, 11)
    recovered = (curve.accuracy_at(shares) - curve.accuracy[0]) / curve.gap
    assert curve.apgr() == pytest.approx(np.trapezoid(recovered, shares), abs=0.01)


def test_equal_scores_do_not_depend_on_the_order_of_questions() -> None:
    seed = 8
    weak, strong = outcomes(seed)
    score = np.round(np.random.default_rng(seed).random(len(weak)), 1)
    turned = np.random.default_rng(1).permutation(len(weak))
    one = DeferralCurve.of(score, weak, strong)
    other = DeferralCurve.of(score[turned], weak[turned], strong[turned])
    np.testing.assert_allclose(one.accuracy, other.accuracy)
    assert one.apgr() == pytest.approx(other.apgr())


def test_costs_may_differ_call_by_call() -> None:
    curve = DeferralCurve.of(
        np.array([2.0, 1.0]), np.array([0, 0]), np.array([1, 1]), np.array([1.0, 2.0]), np.array([10.0, 20.0])
    )
    np.testing.assert_allclose(curve.cost, [1.5, 6.0, 15.0])
    assert np.isnan(DeferralCurve.of(np.array([2.0, 1.0]), np.array([0, 0]), np.array([1, 1])).cost_saved(0.5))


def test_what_is_no_curve_is_refused() -> None:
    for score, weak in ((np.array([]), np.array([])), (np.array([np.nan]), np.array([1])), (np.ones(2), np.ones(3))):
        with pytest.raises(DataError, match="deferral curve"):
            DeferralCurve.of(score, weak, weak)
    assert np.isnan(DeferralCurve.of(np.ones(2), np.ones(2), np.ones(2)).apgr())
