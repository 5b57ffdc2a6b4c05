"""Calibration of P(Yes): a temperature and a bias on the logit, fitted on validation outcomes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Minimises the log loss of ``sigmoid(logit / temperature + bias)`` (Guo et al. 2017, with Platt's bias).

    Args:
        logits, labels: float64 ``[N]``, finite logits and 0 or 1.

    Returns:
        Temperature (> 0) and bias.

    Raises:
        ValueError: fewer than two classes, or shapes differ.
    """
    if logits.shape != labels.shape or logits.ndim != 1:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} must be one vector each, of one length")
    if not 0 < labels.mean() < 1:
        raise ValueError("calibration needs both right and wrong answers")
    slope, bias = 1.0, 0.0
    for _ in range(50):  # Newton's method on a convex loss of two parameters
        p = 1 / (1 + np.exp(-(slope * logits + bias)))
        residual, curvature = p - labels, np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([residual @ logits, residual.sum()])
        cross = curvature @ logits
        hessian = np.array([[curvature @ logits**2, cross], [cross, curvature.sum()]])
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        slope, bias = slope - step[0], bias - step[1]
        if np.abs(step).max() < 1e-10:
            break
    if not slope > 0:
        raise ValueError("the logits do not rise with correctness; the network has not learned")
    return float(1 / slope), float(bias)
