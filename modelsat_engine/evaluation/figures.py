"""Means and spreads as the results carry them: JSON-safe, over seeds and resampled questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Figure = dict[str, float | None]  # {"mean", "sd"}


def figure(plain: Sequence[float], resampled: Sequence[float]) -> Figure:
    """``{"mean", "sd"}``: the mean of what all questions give, the spread of what resampled ones give.

    Values that are not finite are left out; None where nothing remains (or, for sd, less than two).
    """
    means = [value for value in plain if math.isfinite(value)]
    spread = [value for value in resampled if math.isfinite(value)]
    sd = float(np.std(spread, ddof=1)) if len(spread) > 1 else math.nan
    return {"mean": number(np.mean(means)) if means else None, "sd": number(sd)}


def number(value: Any) -> float | None:
    """A float that JSON can hold: NaN and infinity become None."""
    return float(value) if math.isfinite(value) else None


def resample(seed: int, size: int) -> np.ndarray:
    """A bootstrap resample of ``size`` questions, int64 ``[size]``; the same for equal arguments."""
    return np.random.default_rng([seed, size]).integers(0, size, size)
