"""`modelsat candidates`: look at a zoo; what changes it is in candidate_changes.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.candidate_changes import add, choices, remove, replace
from modelsat_engine.commands.console import bar, console, one_line, percent, price, print_json
from modelsat_engine.commands.options import bundle_option, json_option, zoo_option
from modelsat_engine.commands.refine import refine
from modelsat_engine.commands.zoo import read_zoo
from modelsat_engine.errors import CandidateError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile


@click.group("candidates", short_help="List, show, add, replace, refine and remove the candidates of a zoo.")
def command() -> None:
    """List, show, add, replace, refine and remove the candidates of a zoo.

    Without --zoo and MODELSAT_ZOO it is your own zoo: the first change makes it, as a copy of the bundle's, in your
    data directory, and from then on every command uses it. 'candidates list' says where it is. Several commands
    and programs may change a zoo at the same time; engines that watch it follow.

    \b
    Examples:
      modelsat candidates list
      modelsat candidates add my-model.json --price 0.6
      modelsat candidates refine graded.jsonl
      modelsat route "Who wrote Faust?"
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
    from modelsat_engine.export.bundle import Bundle

    found = read_zoo(Bundle.load(bundle), zoo)
    profiles = found.profiles
    profiles.sort(key=lambda profile: (-_share(profile.accuracy), profile.name))
    if as_json:
        print_json([_summary(profile) for profile in profiles])
        return
    if not profiles:
        click.echo(f"The zoo is empty ({found.label}); add a candidate with 'modelsat candidates add'.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("candidate", "aptitude", "", "items", "more answers", "$/M tokens", "notes"):
        right = heading in ("aptitude", "items", "more answers", "$/M tokens")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "notes")
    for profile in profiles:
        table.add_row(
            Text(one_line(profile.name)),
            percent(profile.accuracy),
            Text(bar(profile.accuracy), style="cyan"),
            f"{sum(profile.total.values()):,}",
            "" if profile.refinement is None else f"{profile.refinement.answers:,}",
            price(profile.usd_per_million_tokens),
            Text(one_line(profile.notes), style="dim"),
        )
    out = console()
    out.print(table)
    out.print(Text(f"\n{len(profiles)} candidates, {found.label}", style="dim"), soft_wrap=True)


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
    from modelsat_engine.export.bundle import Bundle

    profiles = read_zoo(Bundle.load(bundle), zoo).profiles
    profile = next((profile for profile in profiles if profile.name == name), None)
    if profile is None:
        raise CandidateError(f"no candidate is called {name!r}; {choices(profiles)}")
    if as_json:
        print_json(profile.to_json())
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text(one_line(profile.name), style="bold"))
    out.print(
        f"{percent(profile.accuracy)} of {sum(profile.total.values()):,} aptitude items right, "
        f"{price(profile.usd_per_million_tokens)} per million tokens",
        markup=False,
    )
    if profile.notes:
        out.print(Text(one_line(profile.notes), style="dim"))
    if profile.refinement is not None:
        shared = ", and by what all candidates of its zoo share" if any(profile.refinement.shared) else ""
        out.print(f"refined by {profile.refinement.answers:,} more graded answers{shared}", markup=False)
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
            percent(share),
            Text(bar(share, 20), style="cyan"),
            f"{profile.correct[task]} of {total}",
        )
    out.print()
    out.print(table)


@command.command("table")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The .npz file to write."
)
@bundle_option
@zoo_option
@json_option
def table(output: Path, bundle: Path | None, zoo: Path | None, as_json: bool) -> None:
    """All candidates as numbers, for programs that run an exported ONNX graph without this package.

    FILE is a NumPy archive without pickle: names, prices, and the graph's inputs 'inquiry_start' and, where it has
    one, 'memory', with a row a candidate. 'modelsat export --to onnx' writes one beside the graph; this writes it anew
    when candidates come and go. An older FILE is replaced.

    \b
    Examples:
      modelsat candidates table -o candidates.npz
      modelsat candidates table --zoo zoo.json -o candidates.npz
    """
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.table_file import write_table

    opened = Bundle.load(bundle)
    profiles = read_zoo(opened, zoo).profiles
    write_table(opened, profiles, output)
    if as_json:
        print_json({"candidates": [profile.name for profile in profiles], "file": str(output), "bundle": opened.label})
        return
    click.echo(f"Wrote {one_line(str(output))}: {len(profiles)} candidates of {opened.label}.")


def _summary(profile: CapabilityProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "accuracy": None if math.isnan(profile.accuracy) else round(profile.accuracy, 4),
        "items": sum(profile.total.values()),
        "refined_by": 0 if profile.refinement is None else profile.refinement.answers,
        "usd_per_million_tokens": profile.usd_per_million_tokens,
        "notes": profile.notes,
    }


def _share(accuracy: float) -> float:
    return -1.0 if math.isnan(accuracy) else accuracy


for _change in (add, replace, remove, refine):
    command.add_command(_change)
