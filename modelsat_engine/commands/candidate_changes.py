"""`modelsat candidates add`, `replace` and `remove`: change a zoo file, whoever else is changing it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import one_line, percent, price, print_json, warn
from modelsat_engine.commands.options import bundle_option, json_option, together, zoo_option
from modelsat_engine.commands.zoo import writable_zoo_path
from modelsat_engine.errors import CandidateError, ProfileError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile

_price_options = together(
    click.option("--price", "usd", type=float, metavar="USD", help="Price per million tokens, in place of the file's."),
    click.option("--no-price", is_flag=True, help="Forget the price in the file."),
)


@click.command("add")
@click.argument("file", metavar="FILE")
@bundle_option
@zoo_option
@_price_options
@click.option("--replace", is_flag=True, help="Take the place of candidates of the same name.")
@click.option("--empty", is_flag=True, help="Start a new zoo without the bundle's candidates.")
@json_option
def add(
    file: str,
    bundle: Path | None,
    zoo: Path | None,
    usd: float | None,
    no_price: bool,
    replace: bool,
    empty: bool,
    as_json: bool,
) -> None:
    """Add the capability profiles in FILE ('-': stdin) to a zoo.

    FILE holds one profile, a list of profiles, or a zoo: {"name": ..., "correct": {task: count}, "total":
    {task: count}, "notes": ..., "usd_per_million_tokens": ...}. They are checked against the aptitude test of
    the bundle. A zoo that does not exist yet starts as a copy of the bundle's. Many profiles in one FILE are added
    in one step.

    \b
    Examples:
      modelsat candidates add my-model.json
      modelsat candidates add my-model.json --replace --price 0.6
      modelsat candidates add all-mine.json --zoo mine.json --empty
    """
    from modelsat_engine.aptitude.zoo import joined
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    path = writable_zoo_path(opened, zoo)
    if empty and path.exists():
        raise CandidateError(f"--empty starts a new zoo, but {path} exists; leave --empty out or name another file")
    added = _profiles_to_write(file, opened.aptitude_test, usd, no_price)

    def change(by_name: dict[str, CapabilityProfile]) -> list[str]:
        clashes = [profile.name for profile in added if profile.name in by_name]
        if clashes and not replace:
            raise CandidateError(f"{clashes[0]!r} is in the zoo already; pass --replace to take its place")
        by_name.update({profile.name: profile for profile in joined(added, by_name.values())})
        return clashes

    _write(path, zoo, [] if empty else opened.zoo, change, added, as_json)


@click.command("replace")
@click.argument("file", metavar="FILE")
@bundle_option
@zoo_option
@_price_options
@json_option
def replace(file: str, bundle: Path | None, zoo: Path | None, usd: float | None, no_price: bool, as_json: bool) -> None:
    """Put the capability profiles in FILE ('-': stdin) in the place of candidates of the same name.

    FILE is as for 'candidates add'; a candidate keeps its place in the zoo, and everyone in FILE must be there.

    \b
    Examples:
      modelsat candidates replace my-model.json
      modelsat candidates show gpt-4o --json | modelsat candidates replace - --price 2.5
    """
    from modelsat_engine.aptitude.zoo import joined
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    path = writable_zoo_path(opened, zoo)
    added = _profiles_to_write(file, opened.aptitude_test, usd, no_price)

    def change(by_name: dict[str, CapabilityProfile]) -> list[str]:
        for profile in joined(added, by_name.values()):
            if profile.name not in by_name:
                raise CandidateError(
                    f"no candidate is called {profile.name!r}, so it cannot be replaced; {choices(by_name.values())}"
                )
            by_name[profile.name] = profile
        return [profile.name for profile in added]

    _write(path, zoo, opened.zoo, change, added, as_json)


@click.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@bundle_option
@zoo_option
@json_option
def remove(names: tuple[str, ...], bundle: Path | None, zoo: Path | None, as_json: bool) -> None:
    """Remove candidates from a zoo.

    \b
    Examples:
      modelsat candidates remove gpt-4o
      modelsat candidates remove model-a model-b --zoo zoo.json --json
    """
    from modelsat_engine.aptitude import edit_zoo
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    path = writable_zoo_path(opened, zoo)
    removed = list(dict.fromkeys(names))
    with edit_zoo(path, None if zoo is not None else opened.zoo) as by_name:
        for name in removed:
            if name not in by_name:
                raise CandidateError(f"no candidate is called {name!r}; {choices(by_name.values())}")
        for name in removed:
            del by_name[name]
        left = len(by_name)
    if not left:
        warn(f"{path} is empty now: nothing can be routed with it until a candidate is added")
    if as_json:
        print_json({"zoo": str(path), "removed": removed, "candidates": left})
        return
    click.echo(f"Removed {', '.join(map(one_line, removed))}; {path} has {left} left.")


def choices(profiles: Iterable[CapabilityProfile], most: int = 10) -> str:
    """The names of a zoo, as the end of an error message."""
    names = sorted(profile.name for profile in profiles)
    if not names:
        return "the zoo is empty"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"the zoo has {', '.join(names[:most])}{more}"


def _write(
    path: Path,
    named: Path | None,
    start: Iterable[CapabilityProfile],
    change: Callable[[dict[str, CapabilityProfile]], list[str]],
    added: list[CapabilityProfile],
    as_json: bool,
) -> None:
    """Make the change under the zoo's lock, and say what was done."""
    from modelsat_engine.aptitude import edit_zoo

    with edit_zoo(path, start) as by_name:
        created = not path.exists()
        replaced = change(by_name)
        size = len(by_name)
    if as_json:
        print_json(
            {
                "zoo": str(path),
                "created": created,
                "added": [profile.name for profile in added],
                "replaced": replaced,
                "candidates": size,
            }
        )
        return
    for profile in added:
        verb = "Replaced" if profile.name in replaced else "Added"
        click.echo(
            f"{verb} {one_line(profile.name)} ({percent(profile.accuracy)} on the aptitude test, "
            f"{price(profile.usd_per_million_tokens)} per million tokens)."
        )
    use = f"use it with --zoo {path}" if named is not None else "every command uses it from now on"
    click.echo(f"{path} now has {size} candidate{'s' * (size != 1)}; {use}")


def _profiles_to_write(file: str, test: AptitudeTest, usd: float | None, no_price: bool) -> list[CapabilityProfile]:
    """The profiles in a file with the prices that the options say, each checked against the test."""
    if usd is not None and no_price:
        raise click.UsageError("--price and --no-price exclude each other")
    profiles = _read_profiles(file)
    if usd is not None and len(profiles) > 1:
        raise click.UsageError(f"--price sets one price, but {file} holds {len(profiles)} profiles")
    if usd is not None or no_price:
        profiles = [dataclasses.replace(profile, usd_per_million_tokens=usd) for profile in profiles]
    return [_checked(profile, test) for profile in profiles]


def _read_profiles(file: str) -> list[CapabilityProfile]:
    """The profiles in a file, or on stdin for "-"; ProfileError names the file and the profile."""
    from modelsat_engine.aptitude import CapabilityProfile

    source = "stdin" if file == "-" else file
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ProfileError(f"cannot read {source}: {error.strerror}") from error
    try:
        value: Any = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ProfileError(f"{source} is not JSON in UTF-8: {error}") from error
    test_id = None
    if isinstance(value, dict) and isinstance(value.get("candidates"), list):
        value, test_id = value["candidates"], value.get("aptitude_test_id")
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise ProfileError(f"{source} holds no profile")
    profiles: dict[str, CapabilityProfile] = {}
    for entry in entries:
        if isinstance(entry, dict) and test_id is not None and entry.get("test_id") is None:
            entry = {**entry, "test_id": test_id}
        try:
            profile = CapabilityProfile.from_json(entry)
        except ProfileError as error:
            raise ProfileError(f"{source}: {error}") from error
        if profile.name in profiles:
            raise ProfileError(f"{source} holds two profiles called {profile.name!r}; give each its own name")
        profiles[profile.name] = profile
    return list(profiles.values())


def _checked(profile: CapabilityProfile, test: AptitudeTest) -> CapabilityProfile:
    """The profile, tied to the test; ProfileError when it belongs to another one."""
    profile.counts(test)
    missing = profile.missing_tasks(test)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        warn(
            f"{profile.name}: no answers for {len(missing)} of {len(test.tasks)} tasks ({shown}); they count as unknown"
        )
    return profile if profile.test_id else dataclasses.replace(profile, test_id=test.id)
