"""The engine's zoo as its user sees it: add, replace and remove candidates while requests are in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.runtime.candidate_table import CandidateTable, Encoder


class Candidates:
    """Holds the current snapshot and swaps it; readers never wait. Thread-safe.

    A change takes effect for requests that come after it; requests in flight finish on the snapshot they started
    with. A change that fails leaves the zoo as it was.

    Args:
        profiles: the first zoo, may be empty.
        encoder: encodes those that join.
        require_open: raises when the engine is closed.
        prepare: called with a snapshot before requests see it.

    Raises:
        CandidateError: two profiles share a name.
        ProfileError: a profile does not fit the router's aptitude test.
    """

    def __init__(
        self,
        profiles: Iterable[CapabilityProfile],
        encoder: Encoder,
        require_open: Callable[[], None],
        prepare: Callable[[CandidateTable], None],
    ) -> None:
        self._encoder = encoder
        self._require_open = require_open
        self._prepare = prepare
        self._changing = threading.Lock()
        self._table = CandidateTable.build(profiles, encoder)
        self._prepare(self._table)

    @property
    def table(self) -> CandidateTable:
        """The current snapshot."""
        return self._table

    @property
    def names(self) -> tuple[str, ...]:
        """Names in column order."""
        return self._table.names

    @property
    def profiles(self) -> tuple[CapabilityProfile, ...]:
        """Profiles in column order."""
        return self._table.profiles

    def add(self, *profiles: CapabilityProfile) -> None:
        """Add candidates as the last columns, all of them or none.

        Raises:
            CandidateError: a name is taken already, or given twice.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        self._swap(lambda table: table.with_added(profiles, self._encoder))

    def replace(self, profile: CapabilityProfile) -> None:
        """Put a new profile in the place of the candidate of the same name.

        Raises:
            CandidateError: no candidate has that name.
            ProfileError: the profile does not fit the router's aptitude test.
        """
        self._swap(lambda table: table.with_replaced(profile, self._encoder))

    def remove(self, *names: str) -> None:
        """Remove candidates, all of them or none; the others keep their order.

        Raises:
            CandidateError: a name is unknown.
        """
        self._swap(lambda table: table.without(names))

    def __getitem__(self, name: str) -> CapabilityProfile:
        table = self._table
        return table.profiles[table.column_of(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Candidates({', '.join(self.names)})"

    def _swap(self, change: Callable[[CandidateTable], CandidateTable]) -> None:
        self._require_open()
        with self._changing:  # one change at a time, each on the snapshot that the last one left
            table = change(self._table)
            self._prepare(table)
            self._table = table
