"""Metrics equal their definitions, computed the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import metrics

SEEDS = (0, 1, 2)


def random_pairs(seed: int, questions: int = 83, models: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and outcomes with gaps, both [Q, M]."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    P = rng.integers(0, 21, (questions, models)) / 20
    Y = (rng.random((questions, models)) < P).astype(np.int8)
    Y[rng.random(Y.shape) < 0.1] = -1
    return P, Y


def auc_by_pairs(p: np.ndarray, y: np.ndarray) -> float:
    """Share of (right, wrong) pairs in which the right one has the higher p; a tie is half."""
    wins = [(a > b) + 0.5 * (a == b) for a in p[y == 1] for b in p[y == 0]]
    return float(np.mean(wins))


@pytest.mark.parametrize("seed", SEEDS)
def test_pooled_auc_counts_ordered_pairs(seed: int) -> None:
    P, Y = random_pairs(seed)
    known = Y >= 0
    assert metrics.pooled_auc(P, Y) == pytest.approx(auc_by_pairs(P[known], Y[known]), abs=1e-12)
    assert metrics.pooled_auc(P, Y) == pytest.approx(roc_auc_score(Y[known], P[known]), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_auc_ignores_how_strong_a_model_is(seed: int) -> None:
    P, Y = random_pairs(seed)
    shift = np.linspace(-0.4, 0.4, P.shape[1])
    by_hand = np.mean([auc_by_pairs(P[Y[:, m] >= 0, m], Y[Y[:, m] >= 0, m]) for m in range(P.shape[1])])
    assert metrics.mean_auc_per_model(P, Y) == pytest.approx(by_hand, abs=1e-12)
    # 1.7 keeps the order of the values inside a model; the shift is the same for all questions
    assert metrics.mean_auc_per_model(1.7 * P + shift, Y) == pytest.approx(by_hand, abs=1e-12)


def test_auc_is_undefined_when_all_are_right() -> None:
    P = np.linspace(0, 1, 9)[:, None]
    assert math.isnan(metrics.pooled_auc(P, np.ones((9, 1), np.int8)))
    assert math.isnan(metrics.mean_auc_per_model(P, np.ones((9, 1), np.int8)))
    both = np.concatenate([np.ones((9, 1)), (np.arange(9) > 4)[:, None]], axis=1).astype(np.int8)
    assert metrics.mean_auc_per_model(np.repeat(P, 2, 1), both) == 1.0  # the other model is left out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_the_mean_gap_over_equal_bins(seed: int, bins: int) -> None:
    P, Y = random_pairs(seed)
    pairs = sorted(
        ((p, i, y) for i, (p, y) in enumerate(zip(P.ravel(), Y.ravel(), strict=True)) if y >= 0), key=lambda t: t[:2]
    )
    size, longer = divmod(len(pairs), bins)
    expected, start = 0.0, 0
    for bin_ in range(bins):
        part = pairs[start : start + size + (bin_ < longer)]
        start += len(part)
        expected += abs(sum(p for p, _, _ in part) - sum(int(y) for _, _, y in part)) / len(pairs)
    assert metrics.expected_calibration_error(P, Y, bins) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_zero_for_certain_truth_and_one_for_its_opposite() -> None:
    Y = (np.arange(60).reshape(20, 3) % 2).astype(np.int8)
    assert metrics.expected_calibration_error(Y.astype(float), Y) == 0
    assert metrics.expected_calibration_error(1.0 - Y, Y, bins=6) == 1
    assert math.isnan(metrics.expected_calibration_error(np.zeros((3, 1)), np.full((3, 1), -1, np.int8)))


def test_fewer_pairs_than_bins_is_fine() -> None:
    assert metrics.expected_calibration_error(np.array([[0.25, 0.5]]), np.array([[0, 1]], np.int8)) == 0.375


@pytest.mark.parametrize("seed", SEEDS)
def test_brier_score_is_the_mean_square(seed: int) -> None:
    P, Y = random_pairs(seed)
    squares = [(p - y) ** 2 for p, y in zip(P.ravel(), Y.ravel(), strict=True) if y >= 0]
    assert metrics.brier_score(P, Y) == pytest.approx(np.mean(squares), abs=1e-12)


def test_candidates_that_tie_share_the_question() -> None:
    P = np.array([[0.9, 0.1, 0.9], [0.2, 0.3, 0.1], [0.5, 0.5, 0.5]])
    Y = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]], np.int8)
    assert metrics.routed_accuracy(P, Y) == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_choice_beats_the_oracle_and_a_constant_one_is_random(seed: int) -> None:
    P, Y = random_pairs(seed)
    P, Y = P[(Y >= 0).all(1)], Y[(Y >= 0).all(1)]
    bounds = metrics.zoo_bounds(Y)
    assert bounds.random <= bounds.best_single <= bounds.oracle
    assert metrics.routed_accuracy(P, Y) <= bounds.oracle
    assert metrics.routed_accuracy(Y.astype(float), Y) == pytest.approx(bounds.oracle)
    assert metrics.routed_accuracy(np.ones_like(P), Y) == pytest.approx(bounds.random)
    assert metrics.routed_accuracy(np.tile(Y.mean(0), (len(Y), 1)), Y) == pytest.approx(bounds.best_single)


@pytest.mark.parametrize(
    ("P", "words"),
    [
        (np.zeros((4, 2)), "shape"),
        (np.full((3, 2), np.nan), "missing"),
        (np.full((3, 2), 1.5), "probabilities"),
        (np.full((3, 2), -0.1), "probabilities"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(P: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        metrics.check_predictions("guess", P, np.ones((3, 2), np.int8))


def test_a_prediction_may_be_missing_where_nothing_is_known() -> None:
    metrics.check_predictions("guess", np.array([[0.5, np.nan]]), np.array([[1, -1]], np.int8))
