"""Where the files of one user lie: caches, and the zoo that commands use when none is named."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Moves the caches, or switches them off with one of OFF.
CACHE_VARIABLE = "MODELSAT_CACHE"
OFF = frozenset({"off", "none", "0"})
_OURS = "modelsat-engine"


def cache_directory(kind: str) -> Path | None:
    """Where caches of a kind are kept for this user; it need not exist.

    ``MODELSAT_CACHE``, else ``XDG_CACHE_HOME``, else ``~/.cache``; inside it ``modelsat-engine/<kind>``.

    Returns:
        None when ``MODELSAT_CACHE`` is ``off``, or the user has no home directory: then nothing is kept.
    """
    moved = os.environ.get(CACHE_VARIABLE, "")
    if moved.lower() in OFF:
        return None
    home = Path(moved) if moved else _home("XDG_CACHE_HOME", ".cache")
    return None if home is None else home / _OURS / kind


def user_zoo_path(aptitude_test_id: str) -> Path | None:
    """The zoo file of this user for routers of one aptitude test; it need not exist.

    ``XDG_DATA_HOME``, else ``~/.local/share``; inside it ``modelsat-engine/zoo-<test>.json``. Routers of different
    tests have different zoos, since a profile of one test means nothing to the other.

    Args:
        aptitude_test_id: :attr:`AptitudeTest.id`.

    Returns:
        None for a user without a home directory.
    """
    home = _home("XDG_DATA_HOME", os.path.join(".local", "share"))
    return None if home is None else home / _OURS / f"zoo-{aptitude_test_id.rpartition(':')[2]}.json"


def _home(variable: str, below_home: str) -> Path | None:
    named = os.environ.get(variable, "")
    if os.path.isabs(named):  # the XDG specification: a relative one is to be ignored
        return Path(named)
    with contextlib.suppress(RuntimeError):  # a user without a home directory
        return Path.home() / below_home
    return None
