"""The zoo file: the candidates of a router, one JSON file of capability profiles."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.files import write_json
from modelsat_engine.aptitude.profile import CapabilityProfile, load_names
from modelsat_engine.errors import ProfileError

FORMAT_VERSION = 1


def load_zoo(path: str | Path) -> list[CapabilityProfile]:
    """Read a ``zoo.json``.

    Profiles without a test id of their own take the file's ``aptitude_test_id``.

    Raises:
        ProfileError: the file is missing, is not JSON, is of another format version, holds a malformed profile,
            two profiles of one name, or a profile of another test than the file says. The message names the file.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"cannot read the zoo {path}: {error.strerror}") from error
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
        profiles = [CapabilityProfile.from_json(_with_test_id(entry, test_id)) for entry in value["candidates"]]
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
