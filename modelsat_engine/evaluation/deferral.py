"""Deferring from a weak model to a strong one: accuracy and cost against the share of strong calls.

Following RouteLLM (Ong et al. 2024, arXiv 2406.18665): with r(c) the accuracy when the share c of questions, those of
the highest deferral score, goes to the strong model,

    PGR(c) = (r(c) - r_weak) / (r_strong - r_weak)        performance gap recovered
    APGR   = integral of PGR(c) over c from 0 to 1         random mixing 0.5

Their code takes ten shares and the trapezoid rule; here every question is a share, which is the integral itself.
Questions of equal score are deferred in equal parts, so that a score that is the same for all of them gives exactly
the random mix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelsat_engine.errors import DataError


@dataclass(frozen=True, eq=False)
class DeferralCurve:
    """Corners of the curve, straight between them.

    Attributes:
        share: float64 ``[k]``, ascending from 0 to 1, share of questions that go to the strong model.
        accuracy: float64 ``[k]``, share of right answers.
        cost: float64 ``[k]``, mean cost of a question in the unit of the inputs; NaN when costs are unknown.
    """

    share: np.ndarray
    accuracy: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(
        cls,
        score: np.ndarray,
        weak: np.ndarray,
        strong: np.ndarray,
        weak_cost: float | np.ndarray = np.nan,
        strong_cost: float | np.ndarray = np.nan,
    ) -> DeferralCurve:
        """The curve of a deferral score.

        Args:
            score: float ``[n]``, the higher the sooner a question is deferred.
            weak, strong: ``[n]``, 1 right or 0 wrong.
            weak_cost, strong_cost: cost of a call, one for all or ``[n]``.

        Raises:
            DataError: no question, different lengths, or a score that is NaN.
        """
        if not (len(score) == len(weak) == len(strong) > 0) or np.isnan(score).any():
            raise DataError("a deferral curve needs a score, not NaN, and both outcomes for at least one question")
        n = len(score)
        order = np.argsort(-np.asarray(score, np.float64), kind="stable")
        ordered = np.asarray(score)[order]
        last_of_equal = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # [k - 1]

        def along(start: np.ndarray | float, change: np.ndarray) -> np.ndarray:
            total = np.cumsum(np.broadcast_to(change, (n,))[order])[last_of_equal]
            corners: np.ndarray = np.concatenate([[0.0], total]) / n + np.mean(start)
            return corners

        gain = np.asarray(strong, np.float64) - np.asarray(weak, np.float64)
        extra = np.asarray(strong_cost, np.float64) - np.asarray(weak_cost, np.float64)
        return cls(
            np.concatenate([[0.0], (last_of_equal + 1) / n]),
            along(np.asarray(weak, np.float64), gain),
            along(weak_cost, extra),
        )

    @property
    def gap(self) -> float:
        """Accuracy of the strong model minus that of the weak one."""
        return float(self.accuracy[-1] - self.accuracy[0])

    def apgr(self) -> float:
        """Average performance gap recovered; NaN when the models are equally accurate."""
        area = float(np.sum((self.accuracy[1:] + self.accuracy[:-1]) / 2 * np.diff(self.share)))
        return (area - float(self.accuracy[0])) / self.gap if self.gap else float("nan")

    def share_reaching(self, accuracy: float) -> float:
        """The smallest share of strong calls that gives at least this accuracy; 1 when none does."""
        enough = np.flatnonzero(self.accuracy >= accuracy - 1e-12)
        if not len(enough):
            return 1.0
        corner = int(enough[0])
        if corner == 0:
            return 0.0
        before, after = self.accuracy[corner - 1], self.accuracy[corner]
        part = (accuracy - before) / (after - before) if after > before else 1.0
        return float(self.share[corner - 1] + min(1.0, part) * (self.share[corner] - self.share[corner - 1]))

    def cost_saved(self, share: float) -> float:
        """Share of the strong model's cost that is saved at a share of strong calls; NaN when costs are unknown."""
        return 1.0 - float(np.interp(share, self.share, self.cost)) / float(self.cost[-1])

    def accuracy_at(self, share: np.ndarray) -> np.ndarray:
        """Accuracy at shares of strong calls, float64 like ``share``."""
        return np.asarray(np.interp(share, self.share, self.accuracy))
