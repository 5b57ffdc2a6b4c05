"""Policies: which candidate to take, given how likely each is to answer correctly and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from modelsat_engine.errors import CandidateError, PolicyError


class PricedCandidates(Protocol):
    """What a policy reads of the candidate table."""

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates, ``M`` of them, in column order."""

    @property
    def usd_per_million_tokens(self) -> np.ndarray:
        """float32 ``[M]``, NaN where unknown."""


@runtime_checkable
class Policy(Protocol):
    """Chooses one candidate per instruction. ``repr`` of a policy is how decisions and logs name it."""

    def choose(self, probabilities: np.ndarray, table: PricedCandidates) -> np.ndarray:
        """Column of the candidate chosen for each instruction.

        Args:
            probabilities: float32 ``[B, M]`` (or ``[M]`` for one instruction) in the table's column order, M >= 1.

        Returns:
            int64 ``[B]`` (or a scalar).

        Raises:
            CandidateError: the table is empty.
            PolicyError: the policy needs a price that a candidate lacks.
        """


@dataclass(frozen=True)
class HighestProbability:
    """The candidate most likely to be right; the earlier column among equals."""

    def choose(self, probabilities: np.ndarray, table: PricedCandidates) -> np.ndarray:
        """See :meth:`Policy.choose`."""
        _require_candidates(table)
        return _column_of_largest(probabilities)


@dataclass(frozen=True)
class CheapestAbove:
    """The cheapest candidate that is likely enough to be right.

    Among equal prices the more probable one is taken, then the earlier column. When no candidate reaches the
    threshold, the most probable one is taken.

    Args:
        threshold: least probability that is good enough, in [0, 1].
    """

    threshold: float

    def __post_init__(self) -> None:
        _require_number("threshold", self.threshold)
        if not 0.0 <= self.threshold <= 1.0:
            raise PolicyError(f"threshold must be a probability from 0 to 1, not {self.threshold}")

    def choose(self, probabilities: np.ndarray, table: PricedCandidates) -> np.ndarray:
        """See :meth:`Policy.choose`."""
        prices = _prices(self, table)  # [M]
        passes = probabilities >= self.threshold  # [B, M]
        price = np.where(passes, prices, np.inf)  # [B, M]
        cheapest = passes & (price == price.min(axis=-1, keepdims=True))
        best = _column_of_largest(np.where(cheapest, probabilities, -1.0))  # [B]
        return np.where(passes.any(axis=-1), best, _column_of_largest(probabilities))


@dataclass(frozen=True)
class MaximumUtility:
    """The candidate with the largest expected gain: P(correct) * value - price * tokens / 1e6, in US dollars.

    Args:
        usd_value_of_correct: what one correct answer is worth, >= 0.
        tokens_per_request: tokens that an answer is billed for, prompt included, > 0.
    """

    usd_value_of_correct: float
    tokens_per_request: float = 1000.0

    def __post_init__(self) -> None:
        _require_number("usd_value_of_correct", self.usd_value_of_correct)
        _require_number("tokens_per_request", self.tokens_per_request)
        if self.usd_value_of_correct < 0:
            raise PolicyError(f"usd_value_of_correct must be 0 or more, not {self.usd_value_of_correct}")
        if self.tokens_per_request <= 0:
            raise PolicyError(f"tokens_per_request must be more than 0, not {self.tokens_per_request}")

    def choose(self, probabilities: np.ndarray, table: PricedCandidates) -> np.ndarray:
        """See :meth:`Policy.choose`."""
        cost_usd = _prices(self, table).astype(np.float64) * (self.tokens_per_request * 1e-6)  # [M]
        return _column_of_largest(probabilities * self.usd_value_of_correct - cost_usd)


def _column_of_largest(values: np.ndarray) -> np.ndarray:
    """``[..., M]`` -> int64 ``[...]``; the earlier column among equals."""
    columns: np.ndarray = np.argmax(values, axis=-1)
    return columns


def _require_number(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise PolicyError(f"{field} must be a finite number, not {value!r}")


def _require_candidates(table: PricedCandidates) -> None:
    if not table.names:
        raise CandidateError("the zoo is empty: add a candidate before routing")


def _prices(policy: object, table: PricedCandidates) -> np.ndarray:
    """Every candidate's price; unknown ones are refused always, not only when they would have mattered."""
    _require_candidates(table)
    unknown = [table.names[column] for column in np.flatnonzero(np.isnan(table.usd_per_million_tokens))]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise PolicyError(
            f"{policy} needs the price of {unknown[0]!r}{more}: set usd_per_million_tokens in the capability "
            "profile, or use HighestProbability()"
        )
    return table.usd_per_million_tokens
