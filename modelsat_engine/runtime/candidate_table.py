"""The candidate table: one immutable snapshot of the zoo, with everything that is computed once per candidate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.errors import CandidateError


@dataclass(frozen=True, eq=False)
class EncodedCandidates:
    """What the capability encoder makes of M candidates.

    Attributes:
        inquiry_start: float32 ``[M, R, D]``: where each view's inquiry row starts.
        memory: float32 ``[M, R, L - inject_at, 2, K, D]``: cached keys and values, or None when K = 0.
    """

    inquiry_start: np.ndarray
    memory: np.ndarray | None = None

    def rows(self, selection: slice | np.ndarray) -> EncodedCandidates:
        """Some of the candidates, by slice (a view) or by indices (a copy)."""
        return EncodedCandidates(self.inquiry_start[selection], None if self.memory is None else self.memory[selection])

    def put(self, rows: np.ndarray, part: EncodedCandidates) -> None:
        """Write ``part`` over the candidates at the indices ``rows``."""
        self.inquiry_start[rows] = part.inquiry_start
        if self.memory is not None and part.memory is not None:
            self.memory[rows] = part.memory

    @staticmethod
    def concatenate(parts: Sequence[EncodedCandidates]) -> EncodedCandidates:
        """All of ``parts``, one after the other; at least one."""
        memories = [part.memory for part in parts if part.memory is not None]
        return EncodedCandidates(
            np.concatenate([part.inquiry_start for part in parts]), np.concatenate(memories) if memories else None
        )


class Encoder(Protocol):
    """What the table needs of the capability encoder."""

    def encode(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        """Encode profiles, M >= 0 of them, in order."""


class CandidateTable:
    """One snapshot: never changed after it is made, so a request keeps the one it was admitted with.

    Attributes:
        version: counts the snapshots of one engine, from 0.
        profiles: in column order.
        names: the profiles' names, column order.
        inquiry_start: float32 ``[M, R, D]``, read-only.
        memory: float32 ``[M, R, L - inject_at, 2, K, D]``, read-only, or None when K = 0.
        usd_per_million_tokens: float32 ``[M]``, NaN where unknown, read-only.
    """

    def __init__(self, profiles: Iterable[CapabilityProfile], encoded: EncodedCandidates, version: int = 0) -> None:
        self.version = version
        self.profiles = tuple(profiles)
        self.names = tuple(profile.name for profile in self.profiles)
        self._column_of = {name: column for column, name in enumerate(self.names)}
        if len(self._column_of) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise CandidateError(f"the zoo has two candidates called {twice!r}; give each its own name")
        self._encoded = EncodedCandidates(
            _read_only(encoded.inquiry_start), None if encoded.memory is None else _read_only(encoded.memory)
        )
        self.inquiry_start = self._encoded.inquiry_start
        self.memory = self._encoded.memory
        unknown = float("nan")
        prices = [unknown if p.usd_per_million_tokens is None else p.usd_per_million_tokens for p in self.profiles]
        self.usd_per_million_tokens = _read_only(np.array(prices, np.float32))  # [M]

    @classmethod
    def build(cls, profiles: Iterable[CapabilityProfile], encoder: Encoder) -> CandidateTable:
        """The first snapshot of a zoo; may be empty.

        Raises:
            CandidateError: two profiles share a name.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        profiles = tuple(profiles)
        return cls(profiles, encoder.encode(profiles))

    def with_added(self, profiles: Sequence[CapabilityProfile], encoder: Encoder) -> CandidateTable:
        """A new snapshot with ``profiles`` as its last columns; only they are encoded.

        Raises:
            CandidateError: a name is taken already, or given twice.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        for profile in profiles:
            if profile.name in self._column_of:
                raise CandidateError(
                    f"the zoo has a candidate called {profile.name!r}; replace it, or use another name"
                )
        encoded = EncodedCandidates.concatenate([self._encoded, encoder.encode(profiles)])
        return CandidateTable(self.profiles + tuple(profiles), encoded, self.version + 1)

    def with_replaced(self, profile: CapabilityProfile, encoder: Encoder) -> CandidateTable:
        """A new snapshot in which ``profile`` takes the column of the candidate of the same name.

        Raises:
            CandidateError: no candidate has that name.
            ProfileError: the profile does not fit the router's aptitude test.
        """
        column = self.column_of(profile.name)
        encoded = self._encoded.rows(np.arange(len(self)))
        encoded.put(np.array([column]), encoder.encode([profile]))
        profiles = (*self.profiles[:column], profile, *self.profiles[column + 1 :])
        return CandidateTable(profiles, encoded, self.version + 1)

    def with_profiles(self, profiles: Iterable[CapabilityProfile], encoder: Encoder) -> CandidateTable:
        """A new snapshot of exactly these candidates in this order; those whose capability is known stay as encoded.

        Raises:
            CandidateError: two profiles share a name.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        profiles = tuple(profiles)
        columns = [self._column_of.get(profile.name) for profile in profiles]
        kept = [
            column if column is not None and _same_capability(self.profiles[column], profile) else None
            for column, profile in zip(columns, profiles, strict=True)
        ]
        new = [row for row, column in enumerate(kept) if column is None]
        fresh = encoder.encode([profiles[row] for row in new])
        # Where a row comes from: the old table, or behind it the new ones
        source = np.array([-1 if column is None else column for column in kept], np.int64)
        source[new] = len(self) + np.arange(len(new))
        encoded = EncodedCandidates.concatenate([self._encoded, fresh]).rows(source)
        return CandidateTable(profiles, encoded, self.version + 1)

    def without(self, names: Iterable[str]) -> CandidateTable:
        """A new snapshot without the named candidates; the others keep their order.

        Raises:
            CandidateError: a name is unknown.
        """
        gone = {self.column_of(name) for name in names}
        kept = np.array([column for column in range(len(self)) if column not in gone], np.int64)
        profiles = tuple(self.profiles[column] for column in kept)
        return CandidateTable(profiles, self._encoded.rows(kept), self.version + 1)

    def column_of(self, name: str) -> int:
        """Column of a candidate.

        Raises:
            CandidateError: the name is unknown; the message lists some that are known.
        """
        column = self._column_of.get(name)
        if column is None:
            known = ", ".join(self.names[:10]) + (", ..." if len(self) > 10 else "")
            raise CandidateError(f"no candidate is called {name!r}; the zoo has {known or 'no candidate'}")
        return column

    def slice(self, start: int, stop: int) -> EncodedCandidates:
        """Columns ``start`` to ``stop`` of the encoded candidates, without a copy."""
        return self._encoded.rows(slice(start, stop))

    def __len__(self) -> int:
        return len(self.profiles)

    def __contains__(self, name: object) -> bool:
        return name in self._column_of


def _same_capability(one: CapabilityProfile, other: CapabilityProfile) -> bool:
    """Whether an encoder reads the same of both; names and prices it does not read."""
    read = ("correct", "total", "notes", "test_id", "refinement")
    return all(getattr(one, name) == getattr(other, name) for name in read)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A C-contiguous float32 view or copy that cannot be written to."""
    view: np.ndarray = np.ascontiguousarray(array, np.float32).view()
    view.flags.writeable = False
    return view
