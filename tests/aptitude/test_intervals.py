"""Intervals hold what they promise, and agree with the published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelsat_engine.aptitude.intervals import (
    difference,
    fisher,
    holm,
    mcnemar,
    normal_quantile,
    paired_difference,
    stratified_difference,
    wilson,
)


def test_wilsons_interval_solves_the_score_equation() -> None:
    for correct, total in ((0, 20), (1, 7), (13, 20), (20, 20), (413, 999)):
        low, high = wilson(correct, total)
        for end in (low, high):
            if 0 < end < 1:
                z = abs(correct / total - end) / math.sqrt(end * (1 - end) / total)
                assert z == pytest.approx(1.959964, rel=1e-6)
        assert 0 <= low <= correct / total <= high <= 1
    assert wilson(0, 20).low == 0
    assert wilson(0, 20).high > 0.1, "no right answer out of twenty is no proof of zero"
    assert wilson(0, 0) == (0, 1)


def test_newcombes_examples_come_out() -> None:
    """Table II of Newcombe (1998), method 10."""
    assert difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference(10, 10, 0, 10) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_a_difference_turned_round_is_the_interval_turned_round() -> None:
    low, high = difference(13, 20, 5, 17)
    assert difference(5, 17, 13, 20) == pytest.approx((-high, -low))
    low, high = paired_difference(7, 6, 2, 5)
    assert paired_difference(7, 2, 6, 5) == pytest.approx((-high, -low))


def test_pairs_that_agree_make_the_interval_narrow() -> None:
    paired, apart = paired_difference(400, 60, 30, 510), difference(460, 1000, 430, 1000)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)
    assert paired_difference(20, 0, 0, 0).low > -0.25, "no table is too one-sided"


@pytest.mark.parametrize("size", [20, 300])
def test_intervals_cover_the_truth_as_often_as_they_say(size: int) -> None:
    rng = np.random.default_rng(3)
    hits = {"paired": 0, "independent": 0, "strata": 0}
    rounds = 1500
    for _ in range(rounds):
        easy = rng.beta(2, 2, size)  # the items' shares, the same for both, and B is weaker by 0.1
        a, b = rng.random(size) < easy, rng.random(size) < np.maximum(easy - 0.1, 0)
        truth = float((easy - np.maximum(easy - 0.1, 0)).mean())
        table = (int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))
        low, high = paired_difference(*table)
        hits["paired"] += low <= truth <= high
        low, high = difference(int(a.sum()), size, int(b.sum()), size)
        hits["independent"] += low <= truth <= high
        halves = [
            (float(a[part].sum()), size / 2, float(b[part].sum()), size / 2)
            for part in (slice(0, size // 2), slice(size // 2, size))
        ]
        low, high = stratified_difference(halves).interval
        hits["strata"] += low <= truth <= high
    print({name: count / rounds for name, count in hits.items()}, "seed 3")
    for name, count in hits.items():
        assert count / rounds > (0.90 if name == "strata" and size == 20 else 0.93), name


def test_strata_are_compared_within_themselves() -> None:
    """Simpson's paradox: A is worse on both tasks, but was asked more of the easy one."""
    strata = [(85.0, 100.0, 9.0, 10.0), (1.0, 10.0, 20.0, 100.0)]
    assert stratified_difference(strata).difference < 0
    assert (85 + 1) / 110 > (9 + 20) / 110
    same = stratified_difference([(5.0, 10.0, 5.0, 10.0)])
    assert (same.difference, same.p_value) == (0, 1)


def test_tests_of_no_difference() -> None:
    assert mcnemar(5, 5) == 1
    assert mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 256 - 8 / 256)
    assert mcnemar(1, 7) == mcnemar(7, 1)
    assert mcnemar(0, 0) == 1
    # Fisher's tea tasting, four of four: two-sided exact 2/70, mid-p half of it
    assert fisher(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher(2, 4, 2, 4) > 0.5
    assert mcnemar(300, 700) < 1e-30


def test_a_test_of_nothing_rarely_cries_wolf() -> None:
    rng = np.random.default_rng(8)
    paired = [mcnemar(k, 12 - k) < 0.05 for k in rng.binomial(12, 0.5, 3000).tolist()]
    apart = [fisher(x, 20, y, 20) < 0.05 for x, y in rng.binomial(20, 0.6, (3000, 2)).tolist()]
    assert np.mean(paired) < 0.06
    assert np.mean(apart) < 0.06


def test_holm_adjusts_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


def test_a_confidence_is_a_share() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.959964, abs=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        normal_quantile(95)
