"""Which zoo a command works on: the one that is named, else the user's own, else the bundle's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelsat_engine.errors import CandidateError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.export.bundle import Bundle


@dataclass(frozen=True)
class Zoo:
    """A zoo that was read, and where it comes from.

    Attributes:
        profiles: in the file's order.
        path: the zoo file; None: the bundle's own, which no command changes.
        named: whether --zoo or MODELSAT_ZOO named the file.
    """

    profiles: list[CapabilityProfile]
    path: Path | None
    named: bool

    @property
    def label(self) -> str:
        """The path, or that it is the bundle's."""
        return "the bundle's own" if self.path is None else str(self.path)


def read_zoo(bundle: Bundle, named: Path | None) -> Zoo:
    """The zoo that a command reads; may be empty.

    Args:
        named: the value of --zoo.

    Raises:
        ProfileError: the file cannot be read.
    """
    from modelsat_engine.aptitude import load_zoo
    from modelsat_engine.user_files import user_zoo_path

    if named is not None:
        return Zoo(load_zoo(named), named, True)
    own = user_zoo_path(bundle.aptitude_test.id)
    if own is not None and own.exists():
        return Zoo(load_zoo(own), own, False)
    return Zoo(list(bundle.zoo), None, False)


def writable_zoo_path(bundle: Bundle, named: Path | None) -> Path:
    """The zoo file that a command changes; it need not exist.

    Raises:
        CandidateError: none is named, and the user has no home directory.
    """
    from modelsat_engine.user_files import user_zoo_path

    path = named or user_zoo_path(bundle.aptitude_test.id)
    if path is None:
        raise CandidateError("there is no home directory for a zoo of your own; name a file with --zoo zoo.json")
    return path
