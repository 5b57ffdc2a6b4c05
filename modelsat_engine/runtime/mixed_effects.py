"""Logistic regression with Gaussian priors, one group of effects or many with a part in common (MAP, Newton's method).

A generalised linear mixed model (GLMix, Zhang et al., KDD 2016) on top of logits that are given::

    logit P(x, c) = offset(x, c) + a(x) . (shared + own_c)        shared ~ Normal(0, S), own_c ~ Normal(0, V)

S and V are diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NEWTON_STEPS = 50
_SMALLEST_STEP = 1e-8
_LARGEST_STEP = 2.0  # a full step can overshoot where a sigmoid is flat


@dataclass(frozen=True, eq=False)
class Answers:
    """Graded answers of M groups to N instructions; a pair may have several, or none.

    Attributes:
        rows, columns: int64 ``[n]``, which instruction and which group.
        right: int8 ``[n]``, 1 or 0.
    """

    rows: np.ndarray
    columns: np.ndarray
    right: np.ndarray

    @classmethod
    def of_outcomes(cls, outcomes: np.ndarray) -> Answers:
        """From int8 ``[N, M]``, 1 right, 0 wrong, -1 not known."""
        rows, columns = np.nonzero(outcomes >= 0)
        return cls(rows, columns, outcomes[rows, columns])

    def __getitem__(self, chosen: np.ndarray) -> Answers:
        return Answers(self.rows[chosen], self.columns[chosen], self.right[chosen])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Effects:
    """What answers say of M groups.

    Attributes:
        shared: float64 ``[A]``.
        own: float64 ``[M, A]``; zero for a group without an answer.
        log_evidence: log probability of the answers under the priors, by Laplace's approximation, nats: what priors
            are compared by (MacKay 1992).
    """

    shared: np.ndarray
    own: np.ndarray
    log_evidence: float

    @property
    def total(self) -> np.ndarray:
        """Float64 ``[M, A]``, shared and own together."""
        return np.asarray(self.shared + self.own)


def fit(features: np.ndarray, offset: np.ndarray, right: np.ndarray, prior_variance: np.ndarray) -> np.ndarray:
    """The most probable effects of one group.

    Args:
        features: float64 ``[N, A]``, a(x).
        offset: float64 ``[N]``, logits.
        right: ``[N]``, 1 or 0.
        prior_variance: float64 ``[A]``.

    Returns:
        float64 ``[A]``.
    """
    return posterior(features, offset, right, prior_variance)[0]


def posterior(
    features: np.ndarray, offset: np.ndarray, right: np.ndarray, prior_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`fit` with its covariance by Laplace's approximation: float64 ``[A]`` and ``[A, A]``."""
    precision = np.diag(1 / prior_variance)
    theta = np.zeros(features.shape[1])
    curvature = precision
    for _ in range(_NEWTON_STEPS):
        slope, information = _slope_and_information(features, offset + features @ theta, right)
        curvature = information + precision
        step = np.linalg.solve(curvature, slope - precision @ theta)
        theta = theta + _limited(step)
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return theta, np.linalg.inv(curvature)


def fit_together(
    features: np.ndarray,
    offset: np.ndarray,
    answers: Answers,
    own_variance: np.ndarray,
    shared_variance: np.ndarray,
) -> Effects:
    """The most probable effects of many groups, and of what they share.

    The curvature is an arrow: a block for each group, and a border that couples it with the shared part. So a step
    costs one solve of size A a group, however many there are.

    Args:
        features: float64 ``[N, A]``, a(x).
        offset: float64 ``[N, M]``, logits.
        answers: n outcomes of pairs of them.
        own_variance, shared_variance: float64 ``[A]``, the diagonals of V and S.
    """
    size, groups = features.shape[1], offset.shape[1]
    of_group = [np.flatnonzero(answers.columns == group) for group in range(groups)]
    answered = [group for group in range(groups) if len(of_group[group])]
    shared, own = np.zeros(size), np.zeros((groups, size))
    evidence = 0.0
    for _ in range(_NEWTON_STEPS):
        slope = -shared / shared_variance
        curvature = np.diag(1 / shared_variance)
        evidence = -0.5 * float((shared**2 / shared_variance).sum() + np.log(shared_variance).sum())
        eliminated = []
        for group in answered:
            rows = answers.rows[of_group[group]]
            logits = offset[rows, group] + features[rows] @ (shared + own[group])
            right = answers.right[of_group[group]]
            here, information = _slope_and_information(features[rows], logits, right)
            block = information + np.diag(1 / own_variance)
            # The group's own step, and how it answers to a shared one
            solved = np.linalg.solve(block, np.column_stack([here - own[group] / own_variance, information]))
            evidence += float((right * logits - np.logaddexp(0, logits)).sum())
            evidence -= 0.5 * float((own[group] ** 2 / own_variance).sum() + np.log(own_variance).sum())
            evidence -= 0.5 * float(np.linalg.slogdet(block)[1])
            slope += here - information @ solved[:, 0]
            curvature += information - information @ solved[:, 1:]
            eliminated.append(solved)
        evidence -= 0.5 * float(np.linalg.slogdet(curvature)[1])
        step = np.linalg.solve(curvature, slope)
        steps = np.stack([step, *(solved[:, 0] - solved[:, 1:] @ step for solved in eliminated)])
        limited = _limited(steps)
        shared = shared + limited[0]
        own[answered] += limited[1:]
        if np.abs(steps).max() < _SMALLEST_STEP:
            break
    return Effects(shared, own, evidence)


def averaged(effects: Sequence[Effects]) -> Effects:
    """The mean of what different priors make of the same answers, each weighted by its evidence."""
    logs = np.array([one.log_evidence for one in effects])
    weights = np.exp(logs - logs.max())
    evidence = float(logs.max() + np.log(weights.mean()))
    weights /= weights.sum()
    return Effects(
        np.tensordot(weights, np.stack([one.shared for one in effects]), 1),
        np.tensordot(weights, np.stack([one.own for one in effects]), 1),
        evidence,
    )


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))


def _slope_and_information(
    features: np.ndarray, logits: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the log likelihood: gradient ``[A]`` and negative Hessian ``[A, A]``."""
    p = sigmoid(logits)
    return features.T @ (right - p), (features * (p * (1 - p))[:, None]).T @ features


def _limited(step: np.ndarray) -> np.ndarray:
    return np.asarray(step / max(1.0, float(np.abs(step).max()) / _LARGEST_STEP))
