"""Calibration of P(Yes): a temperature and a bias on the logit, fitted on validation outcomes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelsat_engine.errors import DataError


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Minimises the log loss of ``sigmoid(logit / temperature + bias)`` (Guo et al. 2017, with Platt's bias).

    Args:
        logits, labels: float64 ``[N]``, finite logits and 0 or 1.

    Returns:
        Temperature (> 0) and bias.

    Raises:
        DataError: fewer than two classes, shapes that differ, or logits that do not rise with correctness.
    """
    if logits.shape != labels.shape or logits.ndim != 1:
        raise DataError(f"logits {logits.shape} and labels {labels.shape} must be one vector each, of one length")
    if not 0 < labels.mean() < 1:
        raise DataError("calibration needs both right and wrong answers")
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logits[:, None], labels)
    slope, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if not slope > 0:
        raise DataError("the logits do not rise with correctness; the network has not learned")
    return 1 / slope, bias
