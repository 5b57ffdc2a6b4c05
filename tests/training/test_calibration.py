"""Calibration finds the distortion that was put in, and refuses what cannot be calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.training.calibration import fit_temperature


def test_a_known_temperature_and_bias_are_found() -> None:
    rng = np.random.default_rng(31)
    true = rng.normal(-0.4, 1.2, 60_001)
    labels = (rng.random(len(true)) < 1 / (1 + np.exp(-true))).astype(np.float64)
    distorted = (true - 0.3) * 2.5  # an overconfident network with an offset
    temperature, bias = fit_temperature(distorted, labels)
    assert abs(temperature - 2.5) < 0.1
    assert abs(bias - 0.3) < 0.05


def test_one_class_and_useless_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="both right and wrong"):
        fit_temperature(np.zeros(5), np.ones(5))
    with pytest.raises(ValueError, match="one length"):
        fit_temperature(np.zeros(5), np.ones(4))
    logits = np.linspace(-3, 3, 101)
    with pytest.raises(ValueError, match="has not learned"):
        fit_temperature(logits, (logits < 0).astype(np.float64))
