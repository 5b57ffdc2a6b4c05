"""Effects of many groups and what they share, against other ways to the same maximum. Seed 67."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.runtime.mixed_effects import Answers, Effects, averaged, fit, fit_together, posterior

SEED, SIZE, GROUPS = 67, 5, 7


def drawn(
    count: int, shared: np.ndarray, own: np.ndarray, share: float = 0.6
) -> tuple[np.ndarray, np.ndarray, Answers]:
    rng = np.random.default_rng(SEED)
    features = rng.normal(size=(count, SIZE))
    offset = rng.normal(size=(count, GROUPS))
    P = 1 / (1 + np.exp(-(offset + features @ (shared + own).T)))
    outcomes = (rng.random(P.shape) < P).astype(np.int8)
    outcomes[rng.random(P.shape) > share] = -1
    return features, offset, Answers.of_outcomes(outcomes)


def test_a_fit_finds_what_made_the_answers() -> None:
    rng = np.random.default_rng(SEED)
    features, offset = rng.normal(size=(20_001, 3)), rng.normal(size=20_001)
    true = np.array([0.8, -0.5, 0.0])
    right = rng.random(len(offset)) < 1 / (1 + np.exp(-(offset + features @ true)))
    theta, covariance = posterior(features, offset, right, np.full(3, 10.0))
    assert np.abs(theta - true).max() < 4 * np.sqrt(np.diag(covariance)).max()
    assert np.sqrt(np.diag(covariance)).max() < 0.03


def test_few_answers_hardly_move_anything() -> None:
    rng = np.random.default_rng(SEED)
    features, offset, right = rng.normal(size=(11, 4)), np.zeros(11), np.ones(11)
    tight, wide = (np.abs(fit(features, offset, right, np.full(4, variance))).max() for variance in (1e-3, 10.0))
    assert tight < 0.02 < 0.2 < wide
    assert not fit(features[:0], offset[:0], right[:0], np.ones(4)).any()


def test_what_is_shared_and_what_is_ones_own_are_told_apart() -> None:
    rng = np.random.default_rng(SEED)
    shared, own = rng.normal(size=SIZE), 0.3 * rng.normal(size=(GROUPS, SIZE))
    own -= own.mean(0)  # else their mean is as well called shared
    found = fit_together(*drawn(9001, shared, own), np.full(SIZE, 0.1), np.full(SIZE, 2.0))
    np.testing.assert_allclose(found.shared, shared, atol=0.1)
    np.testing.assert_allclose(found.own, own, atol=0.15)
    np.testing.assert_array_equal(found.total, found.shared + found.own)


def test_the_gradient_is_zero_where_it_ends() -> None:
    rng = np.random.default_rng(SEED)
    features, offset, answers = drawn(211, 3 * rng.normal(size=SIZE), rng.normal(size=(GROUPS, SIZE)))
    own_variance, shared_variance = rng.uniform(0.05, 2, SIZE), rng.uniform(0.5, 5, SIZE)
    found = fit_together(features, offset, answers, own_variance, shared_variance)
    shared, own = found.shared, found.own
    slopes = -own / own_variance
    for row, column, right in zip(answers.rows, answers.columns, answers.right, strict=True):
        p = 1 / (1 + np.exp(-(offset[row, column] + features[row] @ (shared + own[column]))))
        slopes[column] += (right - p) * features[row]
    assert np.abs(slopes).max() < 1e-6
    total = (slopes + own / own_variance).sum(0) - shared / shared_variance
    assert np.abs(total).max() < 1e-6


def test_one_group_alone_has_the_sum_of_both_priors() -> None:
    rng = np.random.default_rng(SEED)
    features, offset, answers = drawn(101, rng.normal(size=SIZE), np.zeros((GROUPS, SIZE)))
    own_variance, shared_variance = rng.uniform(0.05, 2, SIZE), rng.uniform(0.5, 5, SIZE)
    only = answers[answers.columns == 3]
    found = fit_together(features, offset, only, own_variance, shared_variance)
    together = fit(features[only.rows], offset[only.rows, 3], only.right, own_variance + shared_variance)
    np.testing.assert_allclose(found.total[3], together, atol=1e-8)
    assert not found.own[[0, 1, 2, 4, 5, 6]].any()


def test_an_answer_given_twice_counts_twice_and_none_is_nothing() -> None:
    features, offset, answers = drawn(101, np.ones(SIZE), np.zeros((GROUPS, SIZE)))
    variances = np.full(SIZE, 0.3), np.full(SIZE, 2.0)
    twice = fit_together(features, offset, answers[np.repeat(np.arange(len(answers)), 2)], *variances)
    doubled = fit_together(np.tile(features, (2, 1)), np.tile(offset, (2, 1)), _both(answers, 101), *variances)
    np.testing.assert_allclose(twice.total, doubled.total, atol=1e-9)
    assert not fit_together(features, offset, answers[np.array([], np.int64)], *variances).total.any()


@pytest.mark.parametrize("right", [0, 1])
def test_answers_all_alike_have_a_maximum(right: int) -> None:
    features, offset, answers = drawn(53, np.zeros(SIZE), np.zeros((GROUPS, SIZE)))
    same = Answers(answers.rows, answers.columns, np.full(len(answers), right, np.int8))
    ones = np.column_stack([np.ones(len(features)), features[:, 1:]])
    found = fit_together(ones, offset - 40 * right + 20, same, np.full(SIZE, 0.01), np.full(SIZE, 100.0))
    assert np.isfinite(found.total).all()
    assert np.sign(found.shared[0]) == 2 * right - 1


def test_the_evidence_is_that_of_the_exact_integral() -> None:
    """One axis and one group: the two effects are one Gaussian, and the integral is a sum over a grid."""
    rng = np.random.default_rng(SEED)
    features, offset = rng.normal(size=(40, 1)), rng.normal(size=(40, 1))
    right = (rng.random(40) < 0.7).astype(np.int8)
    answers = Answers(np.arange(40), np.zeros(40, np.int64), right)
    grid = np.linspace(-8, 8, 40_001)
    logits = offset + features * grid
    log_likelihood = (right[:, None] * logits - np.logaddexp(0, logits)).sum(0)
    for own_variance, shared_variance in ((0.1, 0.5), (0.01, 3.0)):
        variance = own_variance + shared_variance
        density = np.exp(log_likelihood - grid**2 / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        exact = np.log(density.sum() * (grid[1] - grid[0]))
        found = fit_together(features, offset, answers, np.array([own_variance]), np.array([shared_variance]))
        assert found.log_evidence == pytest.approx(exact, abs=0.03)


def test_priors_are_averaged_by_their_evidence() -> None:
    one, other = (
        Effects(np.full(2, value), np.full((3, 2), value), log) for value, log in ((1.0, -700.0), (4.0, -701.0))
    )
    both = averaged([one, other])
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(both.total, np.full((3, 2), 2 * (share + 4 * (1 - share))))
    assert both.log_evidence == pytest.approx(np.log((np.exp(-10.0) + np.exp(-11.0)) / 2) - 690)


def _both(answers: Answers, count: int) -> Answers:
    return Answers(
        np.concatenate([answers.rows, answers.rows + count]),
        np.tile(answers.columns, 2),
        np.tile(answers.right, 2),
    )
