"""The zoo file: the candidates of a router, one JSON file of capability profiles."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.files import LOCK_TIMEOUT_S, locked, write_json
from modelsat_engine.aptitude.profile import CapabilityProfile, load_names
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.errors import ProfileError

FORMAT_VERSION = 1


def load_zoo(path: str | Path) -> list[CapabilityProfile]:
    """Read a ``zoo.json``.

    Profiles without a test id of their own take the file's ``aptitude_test_id``.

    Raises:
        ProfileError: the file is missing, is not JSON, is of another format version, holds a malformed profile,
            two profiles of one name, or a profile of another test than the file says. The message names the file.
    """
    return parse_zoo(read_zoo_bytes(path), path)


def read_zoo_bytes(path: str | Path) -> bytes:
    """What :func:`parse_zoo` reads.

    Raises:
        ProfileError: the file is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ProfileError(f"cannot read the zoo {path}: {error.strerror}") from error


def parse_zoo(
    content: bytes, path: str | Path, breathe: Callable[[], object] = lambda: None
) -> list[CapabilityProfile]:
    """:func:`load_zoo` of a file that is read already.

    Args:
        path: for the messages.
        breathe: called several times a profile: decoding a large file otherwise holds the GIL for its whole length.
    """

    def breathing(parsed: dict[str, Any]) -> dict[str, Any]:
        breathe()
        return parsed

    try:
        value = json.loads(content.decode("utf-8"), object_hook=breathing)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path} is not a JSON file ({error})") from error
    if not isinstance(value, dict) or not isinstance(value.get("candidates"), list):
        raise ProfileError(f"{path} is not a zoo: need an object with format_version, aptitude_test_id, candidates")
    if value.get("format_version") != FORMAT_VERSION:
        raise ProfileError(
            f"{path} has zoo format version {value.get('format_version')!r}, this version reads {FORMAT_VERSION}; "
            "install the version that wrote it"
        )
    test_id = value.get("aptitude_test_id")
    try:
        profiles = []
        for entry in value["candidates"]:
            profiles.append(CapabilityProfile.from_json(_with_test_id(entry, test_id)))
            breathe()
        load_names(profiles)
        _common_test_id(profiles)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error
    return profiles


def save_zoo(path: str | Path, profiles: Iterable[CapabilityProfile]) -> None:
    """Write a ``zoo.json``; a crash leaves the old file or the new one, never a part.

    Raises:
        ProfileError: two profiles of one name or of two aptitude tests, or the file cannot be written.
    """
    zoo = list(profiles)
    load_names(zoo)
    value = {
        "format_version": FORMAT_VERSION,
        "aptitude_test_id": _common_test_id(zoo),
        "candidates": [profile.to_json() for profile in zoo],
    }
    try:
        write_json(path, value)
    except OSError as error:
        raise ProfileError(f"cannot write the zoo {path}: {error.strerror}") from error


@contextmanager
def edit_zoo(
    path: str | Path, start: Iterable[CapabilityProfile] | None = None
) -> Iterator[dict[str, CapabilityProfile]]:
    """Change a zoo file that others may change at the same time; nobody's change is lost.

    The file is locked from reading to writing, by threads and processes alike, and written whole or not at all. An
    exception inside leaves it as it was, and so does a zoo that was not changed::

        with edit_zoo("zoo.json") as zoo:
            zoo["my-model"] = profile
            del zoo["old-model"]

    Args:
        path: the zoo file.
        start: what a file that does not exist yet starts from; its directory is made. None: it must exist.

    Yields:
        name -> profile, in the file's order. A profile goes under its own name. One under a new name is
        written as it :func:`joined` the zoo.

    Raises:
        ProfileError: as :func:`load_zoo` and :func:`save_zoo`; the lock is not to be had, as in a directory that
            cannot be written or while somebody else holds it for ten seconds; a profile under another name.
    """
    try:
        if start is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = locked(path, LOCK_TIMEOUT_S)
        lock.__enter__()
    except TimeoutError as error:
        raise ProfileError(f"cannot change the zoo {path}: {error}; try again when that is done") from error
    except OSError as error:
        raise ProfileError(
            f"cannot change the zoo {path}: {error.strerror}; its directory must be there and writable"
        ) from error
    try:
        created = start is not None and not Path(path).exists()
        before = list(start or ()) if created else load_zoo(path)
        load_names(before)
        zoo = {profile.name: profile for profile in before}
        yield zoo
        for name, profile in zoo.items():
            if name != profile.name:
                raise ProfileError(f"the profile of {profile.name!r} stands under the name {name!r}; use its own")
        old = {profile.name for profile in before}
        new = {profile.name: profile for profile in joined((p for p in zoo.values() if p.name not in old), before)}
        after = [new.get(name, profile) for name, profile in zoo.items()]
        if created or after != before:
            save_zoo(path, after)
    finally:
        lock.__exit__(None, None, None)


def joined(profiles: Iterable[CapabilityProfile], zoo: Iterable[CapabilityProfile]) -> list[CapabilityProfile]:
    """Profiles as they join a zoo: what the zoo's traffic has refined all its candidates by refines them as well.

    Otherwise they would be judged as if they had other traffic than the rest. What one brings of another zoo's traffic,
    or was refined by for another router than the rest, it leaves behind; its own effects stay.
    """
    incumbents = list(zoo)
    if not incumbents:
        return list(profiles)
    ways = Counter((other.refinement.axes, other.refinement.shared) for other in incumbents if other.refinement)
    common = ways.most_common(1)[0][0] if ways else None
    return [dataclasses.replace(profile, refinement=_as_common(profile.refinement, common)) for profile in profiles]


def _as_common(own: Refinement | None, common: tuple[str, tuple[float, ...]] | None) -> Refinement | None:
    """A refinement with the axes and the shared part that are common in a zoo; None: the zoo is not refined."""
    if common is None:
        return None if own is None else dataclasses.replace(own, shared=())
    axes, shared = common
    if own is not None and own.axes == axes:
        return dataclasses.replace(own, shared=shared)
    return Refinement(axes, (0.0,) * len(shared), 0, shared)


def _with_test_id(entry: Any, test_id: str | None) -> Any:
    if isinstance(entry, dict) and entry.get("test_id") is None and test_id is not None:
        return {**entry, "test_id": test_id}
    return entry


def _common_test_id(profiles: list[CapabilityProfile]) -> str | None:
    ids = {profile.test_id for profile in profiles if profile.test_id is not None}
    if len(ids) > 1:
        raise ProfileError(
            f"the zoo mixes profiles of {len(ids)} aptitude tests ({', '.join(sorted(ids))}); grade all on one test"
        )
    return next(iter(ids), None)
