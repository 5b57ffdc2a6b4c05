"""`modelsat aptitude show`: what a candidate showed on the aptitude test, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.aptitude.profiles import find_profile, picture_options
from modelsat_engine.commands.console import bar, console, one_line, price, print_json
from modelsat_engine.commands.options import bundle_option, json_option, zoo_option

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.aptitude.comparison import TaskScore


@click.command("show", short_help="One profile as a table, or as a picture.")
@click.argument("profile_name", metavar="PROFILE")
@bundle_option
@zoo_option
@picture_options
@json_option
def command(
    profile_name: str,
    bundle: Path | None,
    zoo: Path | None,
    confidence: float,
    plot: Path | None,
    style: str,
    as_json: bool,
) -> None:
    """Show PROFILE, a file or the name of a candidate: its accuracy on every task, best first.

    The interval is Wilson's: where the accuracy on such questions lies with the confidence asked for. Twenty answers
    leave about 20 points to either side. Tasks without an answer are listed last.

    \b
    Examples:
      modelsat aptitude show my-model.json
      modelsat aptitude show Qwen2.5-7B-Instruct --plot qwen.svg --style radar
      modelsat aptitude show my-model --zoo zoo.json --json
    """
    from modelsat_engine.aptitude.comparison import overall_score, task_scores

    profile = find_profile(profile_name, bundle, zoo)
    scores = sorted(
        task_scores(profile, confidence), key=lambda score: (score.accuracy is None, -(score.accuracy or 0), score.task)
    )
    whole = overall_score(profile, confidence)
    if plot is not None:
        from modelsat_engine.aptitude.picture import check_picture, draw_profile

        check_picture(plot, "modelsat aptitude show --plot")
        draw_profile(profile, plot, style=style, confidence=confidence)
    if as_json:
        print_json(_summary(profile, whole, scores, confidence, plot))
        return
    _print(profile, whole, scores, confidence)
    if plot is not None:
        click.echo(f"Picture written to {plot}")


def _summary(
    profile: CapabilityProfile, whole: TaskScore, scores: list[TaskScore], confidence: float, plot: Path | None
) -> dict[str, Any]:
    return {
        "name": profile.name,
        "notes": profile.notes,
        "usd_per_million_tokens": profile.usd_per_million_tokens,
        "aptitude_test_id": profile.test_id,
        "confidence": confidence,
        "overall": {key: value for key, value in whole.to_json().items() if key != "task"},
        "tasks": [score.to_json() for score in scores],
        "plot": None if plot is None else str(plot),
    }


def _print(profile: CapabilityProfile, whole: TaskScore, scores: list[TaskScore], confidence: float) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text(one_line(profile.name), style="bold"))
    out.print(
        f"{share(whole)} right of {whole.total:,} answers {interval(whole)}, "
        f"{price(profile.usd_per_million_tokens)} per million tokens",
        markup=False,
    )
    out.print(f"notes: {one_line(profile.notes) or 'none'}", style="dim", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, side in (
        ("task", "left"),
        ("accuracy", "right"),
        ("", "left"),
        (f"{confidence:.0%} interval", "right"),
        ("right", "right"),
    ):
        table.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for score in scores:
        table.add_row(
            Text(one_line(score.task)),
            share(score),
            Text(bar(score.accuracy or 0.0, 20), style="cyan"),
            interval(score),
            f"{score.correct} of {score.total}",
        )
    out.print()
    out.print(table)


def share(score: TaskScore) -> str:
    """An accuracy for people; one that is not known is a dash."""
    return "-" if score.accuracy is None else f"{score.accuracy:.1%}"


def interval(score: TaskScore) -> str:
    """An interval for people, in per cent; nothing for a task without an answer."""
    return f"[{100 * score.interval.low:.0f}, {100 * score.interval.high:.0f}]" if score.total else ""
