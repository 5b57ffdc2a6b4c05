"""How far a probability could move if its candidate were known exactly: the rows that tell, and the range they give.

Beside each candidate the table gets some drawn profiles of the same candidate (`aptitude.uncertainty`). They are scored
like candidates, in the same pass, and their spread in logits is the candidate's standard error for this instruction::

    low, high = sigmoid(logit(P) -+ t sd(logit(P_1), ..., logit(P_D)))      t: Student's, D - 1 degrees of freedom

Coverage on real outcomes is measured in docs/onboarding.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from statistics import NormalDist
from weakref import WeakKeyDictionary

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.uncertainty import PRIOR_STRENGTH, TaskPrior, draw_profiles
from modelsat_engine.errors import OptionError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.dispatch import BoundTable

_SMALLEST = 1e-6  # keeps logits finite


class Intervals:
    """Widens snapshots by drawn profiles, once a candidate. Thread-safe.

    Args:
        bundle: the router.
        encoder: of its candidates.
        bind: makes the executor's view of a table.
    """

    def __init__(
        self, bundle: Bundle, encoder: CapabilityEncoder, bind: Callable[[CandidateTable], BoundTable]
    ) -> None:
        self._bundle, self._encoder, self._bind = bundle, encoder, bind
        self._lock = threading.Lock()
        self._prior: TaskPrior | None = None
        self._drawn: WeakKeyDictionary[CapabilityProfile, tuple[list[CapabilityProfile], EncodedCandidates]]
        self._drawn = WeakKeyDictionary()

    def widen(self, bound: BoundTable) -> BoundTable:
        """A table of M (1 + D) columns: the M candidates of the snapshot, then the D draws of each in turn."""
        table = bound.table
        with self._lock:
            drawn = [self._draws_of(profile) for profile in table.profiles]
        profiles = [draw for draws, _ in drawn for draw in draws]
        encoded = EncodedCandidates.concatenate([table.slice(0, len(table)), *(part for _, part in drawn)])
        return self._bind(CandidateTable([*table.profiles, *profiles], encoded, table.version))

    def _draws_of(self, profile: CapabilityProfile) -> tuple[list[CapabilityProfile], EncodedCandidates]:
        drawn = self._drawn.get(profile)
        if drawn is None:
            if self._prior is None:
                self._prior = task_prior(self._bundle)
            draws = draw_profiles(profile, self._bundle.aptitude_test, self._prior)
            drawn = self._drawn[profile] = draws, self._encoder.encode_together(draws)
        return drawn


def bounds(P: np.ndarray, candidates: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends for each candidate.

    Args:
        P: float32 ``[B, M (1 + D)]``, of a table that :meth:`Intervals.widen` made.
        candidates: M.
        level: how sure, in (0, 1).

    Returns:
        low, high: float64 ``[B, M]`` each, ``low <= P <= high``.
    """
    logits = np.clip(P.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    logits = np.log(logits) - np.log1p(-logits)
    center, drawn = logits[:, :candidates], logits[:, candidates:].reshape(len(P), candidates, -1)
    reach = student_quantile((1 + level) / 2, drawn.shape[2] - 1) * drawn.std(axis=2, ddof=1)  # [B, M]
    point = P[:, :candidates].astype(np.float64)
    low, high = (1 / (1 + np.exp(-(center + sign * reach))) for sign in (-1, 1))
    return np.minimum(low, point), np.maximum(high, point)


def checked_level(interval: object) -> float | None:
    """The level, or None for no interval.

    Raises:
        OptionError: not a number between 0 and 1.
    """
    if interval is None:
        return None
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 < interval < 1:
        raise OptionError(f"interval is {interval!r}; use how sure it should be, such as 0.9, or None for none")
    return float(interval)


def task_prior(bundle: Bundle) -> TaskPrior:
    """What the router knows of its test: from its weights where they say, else from the zoo that it ships."""
    from safetensors import safe_open

    strength = float(bundle.config["capability_encoder"].get("prior_strength", PRIOR_STRENGTH))
    with safe_open(bundle.file("weights.safetensors"), "np") as weights:
        if {"capability.offsets", "capability.center"} <= set(weights.keys()):
            offsets = weights.get_tensor("capability.offsets").astype(np.float64)
            return TaskPrior(-offsets, float(weights.get_tensor("capability.center")), strength)
    return TaskPrior.from_profiles(bundle.zoo, bundle.aptitude_test, strength)


def student_quantile(share: float, degrees: int) -> float:
    """Quantile of Student's t distribution (Abramowitz and Stegun 26.7.5; within 0.002 for 15 degrees up to 0.995)."""
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / (4 * degrees),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3),
    )
    return sum(terms)
