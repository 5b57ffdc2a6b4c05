"""`modelsat candidates`: look at a zoo and change it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import bar, console, one_line, price, print_json, warn
from modelsat_engine.commands.options import bundle_option, json_option, zoo_option
from modelsat_engine.errors import CandidateError, ProfileError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile


@click.group("candidates", short_help="List, show, add and remove the candidates of a zoo.")
def command() -> None:
    """List, show, add and remove the candidates of a zoo.

    \b
    Examples:
      modelsat candidates list
      modelsat candidates add my-model.json --zoo zoo.json --price 0.6
      modelsat route "Who wrote Faust?" --zoo zoo.json
    """


@command.command("list")
@bundle_option
@zoo_option
@json_option
def list_candidates(bundle: Path | None, zoo: Path | None, as_json: bool) -> None:
    """All candidates, the strongest on the aptitude test first.

    \b
    Examples:
      modelsat candidates list
      modelsat candidates list --zoo zoo.json --json
    """
    profiles = _read_zoo(bundle, zoo)
    profiles.sort(key=lambda profile: (-_share(profile.accuracy), profile.name))
    if as_json:
        print_json([_summary(profile) for profile in profiles])
        return
    if not profiles:
        click.echo("The zoo is empty; add a candidate with 'modelsat candidates add'.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("candidate", "aptitude", "", "items", "$/M tokens", "notes"):
        right = heading in ("aptitude", "items", "$/M tokens")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "notes")
    for profile in profiles:
        table.add_row(
            Text(one_line(profile.name)),
            _percent(profile.accuracy),
            Text(bar(profile.accuracy), style="cyan"),
            f"{sum(profile.total.values()):,}",
            price(profile.usd_per_million_tokens),
            Text(one_line(profile.notes), style="dim"),
        )
    console().print(table)


@command.command("show")
@click.argument("name")
@bundle_option
@zoo_option
@json_option
def show(name: str, bundle: Path | None, zoo: Path | None, as_json: bool) -> None:
    """One candidate: its accuracy on every task, best first.

    With --json it prints the profile as 'candidates add' reads it.

    \b
    Examples:
      modelsat candidates show gpt-4o
      modelsat candidates show gpt-4o --json > gpt-4o.json
    """
    profiles = _read_zoo(bundle, zoo)
    profile = next((profile for profile in profiles if profile.name == name), None)
    if profile is None:
        raise CandidateError(f"no candidate is called {name!r}; {_choices(profiles)}")
    if as_json:
        print_json(profile.to_json())
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text(one_line(profile.name), style="bold"))
    out.print(
        f"{_percent(profile.accuracy)} of {sum(profile.total.values()):,} aptitude items right, "
        f"{price(profile.usd_per_million_tokens)} per million tokens",
        markup=False,
    )
    if profile.notes:
        out.print(Text(one_line(profile.notes), style="dim"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("accuracy", justify="right")
    table.add_column("")
    table.add_column("right", justify="right")
    shares = {task: count and profile.correct[task] / count for task, count in profile.total.items()}
    for task in sorted(shares, key=lambda task: (not profile.total[task], -shares[task], task)):
        total = profile.total[task]
        share = shares[task] if total else math.nan
        table.add_row(
            Text(one_line(task)),
            _percent(share),
            Text(bar(share, 20), style="cyan"),
            f"{profile.correct[task]} of {total}",
        )
    out.print()
    out.print(table)


@command.command("add")
@click.argument("file", metavar="FILE")
@bundle_option
@zoo_option
@click.option("--price", "usd", type=float, metavar="USD", help="Price per million tokens, in place of the file's.")
@click.option("--no-price", is_flag=True, help="Forget the price in the file.")
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
    the bundle. A zoo that does not exist yet starts as a copy of the bundle's.

    \b
    Examples:
      modelsat candidates add my-model.json --zoo zoo.json
      modelsat candidates add my-model.json --zoo zoo.json --replace --price 0.6
      modelsat candidates add all-mine.json --zoo mine.json --empty
    """
    from modelsat_engine.aptitude import save_zoo
    from modelsat_engine.export.bundle import Bundle

    if usd is not None and no_price:
        raise click.UsageError("--price and --no-price exclude each other")
    if zoo is None:
        raise CandidateError(
            f"the bundle's zoo is read-only; start your own from it: modelsat candidates add {file} --zoo zoo.json"
        )
    if empty and zoo.exists():
        raise CandidateError(f"--empty starts a new zoo, but {zoo} exists; leave --empty out or name another file")
    opened = Bundle.load(bundle)
    added = _read_profiles(file)
    if usd is not None and len(added) > 1:
        raise click.UsageError(f"--price sets one price, but {file} holds {len(added)} profiles")
    if usd is not None or no_price:
        added = [dataclasses.replace(profile, usd_per_million_tokens=usd) for profile in added]
    added = [_checked(profile, opened.aptitude_test) for profile in added]

    started = not zoo.exists()
    profiles = list([] if empty else opened.zoo) if started else _read_zoo(bundle, zoo)
    by_name = {profile.name: profile for profile in profiles}
    clashes = [profile.name for profile in added if profile.name in by_name]
    if clashes and not replace:
        raise CandidateError(f"{clashes[0]!r} is in the zoo already; pass --replace to take its place")
    by_name.update({profile.name: profile for profile in added})
    save_zoo(zoo, by_name.values())

    names = [profile.name for profile in added]
    if as_json:
        print_json(
            {"zoo": str(zoo), "created": started, "added": names, "replaced": clashes, "candidates": len(by_name)}
        )
        return
    for profile in added:
        verb = "Replaced" if profile.name in clashes else "Added"
        click.echo(
            f"{verb} {one_line(profile.name)} ({_percent(profile.accuracy)} on the aptitude test, "
            f"{price(profile.usd_per_million_tokens)} per million tokens)."
        )
    click.echo(f"{zoo} now has {len(by_name)} candidate{'s' * (len(by_name) != 1)}; use it with --zoo {zoo}")


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@bundle_option
@zoo_option
@json_option
def remove(names: tuple[str, ...], bundle: Path | None, zoo: Path | None, as_json: bool) -> None:
    """Remove candidates from a zoo.

    \b
    Examples:
      modelsat candidates remove gpt-4o --zoo zoo.json
      modelsat candidates remove model-a model-b --zoo zoo.json --json
    """
    from modelsat_engine.aptitude import save_zoo

    if zoo is None:
        raise CandidateError("the bundle's zoo is read-only; name your own with --zoo FILE")
    profiles = _read_zoo(bundle, zoo)
    known = {profile.name for profile in profiles}
    for name in names:
        if name not in known:
            raise CandidateError(f"no candidate is called {name!r}; {_choices(profiles)}")
    left = [profile for profile in profiles if profile.name not in names]
    save_zoo(zoo, left)
    if not left:
        warn(f"{zoo} is empty now: nothing can be routed with it until a candidate is added")
    removed = list(dict.fromkeys(names))
    if as_json:
        print_json({"zoo": str(zoo), "removed": removed, "candidates": len(left)})
        return
    click.echo(f"Removed {', '.join(map(one_line, removed))}; {zoo} has {len(left)} left.")


def _read_zoo(bundle: Path | None, zoo: Path | None) -> list[CapabilityProfile]:
    if zoo is not None:
        from modelsat_engine.aptitude import load_zoo

        return load_zoo(zoo)
    from modelsat_engine.export.bundle import Bundle

    return list(Bundle.load(bundle).zoo)


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


def _summary(profile: CapabilityProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "accuracy": None if math.isnan(profile.accuracy) else round(profile.accuracy, 4),
        "items": sum(profile.total.values()),
        "usd_per_million_tokens": profile.usd_per_million_tokens,
        "notes": profile.notes,
    }


def _choices(profiles: list[CapabilityProfile], most: int = 10) -> str:
    """The names of a zoo, as the end of an error message."""
    if not profiles:
        return "the zoo is empty"
    names = sorted(profile.name for profile in profiles)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"the zoo has {', '.join(names[:most])}{more}"


def _share(accuracy: float) -> float:
    return -1.0 if math.isnan(accuracy) else accuracy


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"
