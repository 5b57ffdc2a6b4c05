"""What the aptitude commands share: the test in question, profiles by file or by name, and where profiles go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelsat_engine.commands.candidate_changes import choices
from modelsat_engine.commands.options import together
from modelsat_engine.commands.zoo import read_zoo
from modelsat_engine.errors import CandidateError, DataError, ProfileError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile

test_option = click.option(
    "--test",
    "test_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An aptitude.json.  [default: the test of the bundle]",
)
picture_options = together(
    click.option(
        "--confidence",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.95,
        show_default=True,
        metavar="SHARE",
        help="Of every interval.",
    ),
    click.option(
        "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it as well, to a .png, .svg or .pdf."
    ),
    click.option(
        "--style",
        type=click.Choice(["bar", "radar"]),
        default="bar",
        show_default=True,
        help="What the picture looks like.",
    ),
)
output_options = together(
    click.option("-o", "--output", type=click.Path(path_type=Path), help="The profile to write.  [default: NAME.json]"),
    click.option("--overwrite", is_flag=True, help="Replace the output if it exists."),
)


def open_test(bundle: Path | None, test_file: Path | None) -> tuple[AptitudeTest, list[CapabilityProfile]]:
    """(the test, the candidates that come with it): those of a bundle, or a test file without any.

    Raises:
        BundleError, DataError: the bundle or the file cannot be read.
    """
    if test_file is not None:
        from modelsat_engine.aptitude import AptitudeTest

        return AptitudeTest.load(test_file), []
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    return opened.aptitude_test, list(opened.zoo)


def find_profile(name: str, bundle: Path | None, zoo: Path | None) -> CapabilityProfile:
    """A profile: the one in a file, or the candidate of that name in the zoo.

    Raises:
        ProfileError, DataError: the file holds no profile, or several.
        CandidateError: neither a file nor a candidate.
    """
    from modelsat_engine.export.bundle import Bundle

    if Path(name).is_file():
        return _read_profile(Path(name))
    profiles = read_zoo(Bundle.load(bundle), zoo).profiles
    found = next((profile for profile in profiles if profile.name == name), None)
    if found is None:
        raise CandidateError(f"{name!r} is neither a file nor a candidate; {choices(profiles)}")
    return found


def _read_profile(path: Path) -> CapabilityProfile:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.aptitude.records import parse_json, read_bytes

    value = parse_json(read_bytes(path), str(path))
    if isinstance(value, list) or (isinstance(value, dict) and "candidates" in value):
        raise ProfileError(f"{path} holds several profiles; name one of its candidates, with --zoo {path}")
    try:
        return CapabilityProfile.from_json(value)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def output_path(output: Path | None, name: str, overwrite: bool) -> Path:
    """Where a profile is written: as asked for, or NAME.json here, with "/" and the like made harmless.

    Raises:
        DataError: it exists and may not be replaced, or its folder does not exist.
    """
    stem = re.sub(r"[^\w.@+-]+", "_", name).strip("._")
    if output is None and not stem:
        raise DataError(f"no file can be called after {name!r}; name one with -o")
    path = output or Path(f"{stem}.json")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; pass --overwrite to replace it, or name another file with -o")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent} is not a folder; make it first")
    return path
