"""The engine's zoo as its user sees it: add, replace and remove candidates while requests are in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.zoo import joined
from modelsat_engine.errors import CandidateError
from modelsat_engine.runtime.candidate_table import CandidateTable, Encoder
from modelsat_engine.runtime.dispatch import BoundTable


class Candidates:
    """Holds the current snapshot and swaps it; readers never wait. Thread-safe.

    A change takes effect for requests that come after it; requests in flight finish on the snapshot they started
    with. A change that fails leaves the zoo as it was. Every change makes one snapshot, which costs about half a
    millisecond for each new candidate and 13 us for each old one: to add many, add them in one call.

    Args:
        profiles: the first zoo, may be empty.
        encoder: encodes those that join.
        require_open: raises when the engine is closed.
        bind: makes of a snapshot what the executor needs, before requests see it.
        widen: adds what intervals need to a snapshot.

    Attributes:
        followed: the zoo file that the engine watches, which alone may change its zoo then; None without one.

    Raises:
        CandidateError: two profiles share a name.
        ProfileError: a profile does not fit the router's aptitude test.
    """

    def __init__(
        self,
        profiles: Iterable[CapabilityProfile],
        encoder: Encoder,
        require_open: Callable[[], None],
        bind: Callable[[CandidateTable], BoundTable],
        widen: Callable[[BoundTable], BoundTable],
    ) -> None:
        self.followed: Path | None = None
        self._encoder = encoder
        self._require_open = require_open
        self._bind = bind
        self._widen = widen
        self._widening = threading.Lock()
        self._widens = False
        self._changing = threading.Lock()
        self._bound = bind(CandidateTable.build(profiles, encoder))

    @property
    def bound(self) -> BoundTable:
        """The current snapshot, with the executor's view of it."""
        return self._bound

    def wide(self, bound: BoundTable) -> BoundTable:
        """A snapshot with what intervals need; made when first asked for, and from then on before requests see it."""
        with self._widening:
            self._widens = True
            if bound.wide is None:
                bound.wide = self._widen(bound)
            return bound.wide

    @property
    def table(self) -> CandidateTable:
        """The current snapshot."""
        return self._bound.table

    @property
    def names(self) -> tuple[str, ...]:
        """Names in column order."""
        return self.table.names

    @property
    def profiles(self) -> tuple[CapabilityProfile, ...]:
        """Profiles in column order."""
        return self.table.profiles

    def add(self, *profiles: CapabilityProfile) -> None:
        """Add candidates as the last columns, all of them or none.

        Where the zoo is refined by its traffic (`runtime.refinement`), they take what all share: `aptitude.zoo.joined`.

        Raises:
            CandidateError: a name is taken already, or given twice; or the engine follows a zoo file.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        self._swap(lambda table: table.with_added(joined(profiles, table.profiles), self._encoder))

    def replace(self, profile: CapabilityProfile) -> None:
        """Put a new profile in the place of the candidate of the same name; refined as in :meth:`add`.

        Raises:
            CandidateError: no candidate has that name, or the engine follows a zoo file.
            ProfileError: the profile does not fit the router's aptitude test.
        """
        self._swap(lambda table: table.with_replaced(joined([profile], table.profiles)[0], self._encoder))

    def remove(self, *names: str) -> None:
        """Remove candidates, all of them or none; the others keep their order.

        Raises:
            CandidateError: a name is unknown, or the engine follows a zoo file.
        """
        self._swap(lambda table: table.without(names))

    def replace_all(self, profiles: Iterable[CapabilityProfile]) -> None:
        """Make the zoo exactly these candidates in this order, in one step; only those that changed are encoded.

        Raises:
            CandidateError: two profiles share a name, or the engine follows a zoo file.
            ProfileError: a profile does not fit the router's aptitude test.
        """
        zoo = tuple(profiles)
        self._swap(lambda table: table.with_profiles(zoo, self._encoder))

    def follow(self, profiles: Iterable[CapabilityProfile]) -> bool:
        """:meth:`replace_all` by the watcher of the zoo file; returns whether anything was different."""
        zoo = tuple(profiles)
        if zoo == self.profiles:
            return False
        self._swap(lambda table: table.with_profiles(zoo, self._encoder), by_file=True)
        return True

    def release(self) -> None:
        """Free what the executor holds for the zoo; the profiles stay readable."""
        self._bound = BoundTable(self._bound.table, None)

    def __getitem__(self, name: str) -> CapabilityProfile:
        table = self.table
        return table.profiles[table.column_of(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.names)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"Candidates({', '.join(self.names)})"

    def _swap(self, change: Callable[[CandidateTable], CandidateTable], *, by_file: bool = False) -> None:
        self._require_open()
        if self.followed is not None and not by_file:
            raise CandidateError(
                f"this engine follows {self.followed}, which would undo the change; change the file: "
                "modelsat candidates, or modelsat_engine.aptitude.edit_zoo"
            )
        with self._changing:  # one change at a time, each on the snapshot that the last one left
            bound = self._bind(change(self._bound.table))
            if self._widens:
                self.wide(bound)
            self._bound = bound
