"""`modelsat aptitude compare`: where one candidate is better than another, and where that may be luck."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelsat_engine.commands.aptitude.profiles import find_profile, open_test, picture_options, test_option
from modelsat_engine.commands.aptitude.show import share
from modelsat_engine.commands.console import console, one_line, print_json
from modelsat_engine.commands.options import bundle_option, json_option, zoo_option

if TYPE_CHECKING:
    from modelsat_engine.aptitude.comparison import Comparison, Difference


@click.command("compare", short_help="Two profiles, task by task, with intervals.")
@click.argument("a")
@click.argument("b")
@bundle_option
@zoo_option
@test_option
@picture_options
@json_option
def command(
    a: str,
    b: str,
    bundle: Path | None,
    zoo: Path | None,
    test_file: Path | None,
    confidence: float,
    plot: Path | None,
    style: str,
    as_json: bool,
) -> None:
    """Compare the profiles A and B, each a file or the name of a candidate.

    Differences are A less B, in points. Where both answered the same items, they are compared item by item
    (Newcombe's interval for paired shares, McNemar's mid-p test), else by their counts (Newcombe's hybrid interval,
    Fisher's mid-p test; over all tasks the Mantel-Haenszel difference). Over fifty tasks two or three differ by luck
    at 95 %: a task is marked only when it stands with all tasks taken together (Holm).

    \b
    Examples:
      modelsat aptitude compare my-model.json Qwen2.5-7B-Instruct
      modelsat aptitude compare old.json new.json --confidence 0.9 --plot difference.png
      modelsat aptitude compare Qwen2-72B-Instruct gemma-2-27b-it --json
    """
    from modelsat_engine.aptitude.comparison import compare

    first, second = find_profile(a, bundle, zoo), find_profile(b, bundle, zoo)
    test, _ = open_test(bundle, test_file)
    comparison = compare(first, second, test, confidence)
    if plot is not None:
        from modelsat_engine.aptitude.picture import check_picture, draw_comparison

        check_picture(plot, "modelsat aptitude compare --plot")
        draw_comparison(comparison, plot, style=style)
    if as_json:
        print_json({**comparison.to_json(), "plot": None if plot is None else str(plot)})
        return
    _print(comparison)
    if plot is not None:
        click.echo(f"Picture written to {plot}")


def _print(comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    for letter, profile in (("A", comparison.a), ("B", comparison.b)):
        out.print(
            f"{letter}  {one_line(profile.name)}: {profile.accuracy:.1%} of {sum(profile.total.values()):,} answers; "
            f"notes: {one_line(profile.notes) or 'none'}",
            markup=False,
        )
    overall = comparison.overall
    out.print(
        f"A less B over {len(comparison.tasks)} tasks in common: {_points(overall)}, p = {overall.p_value:.2g}",
        style="bold",
        markup=False,
    )
    methods = dict.fromkeys([overall.method, *(task.method for task in comparison.tasks)])
    out.print("; ".join(methods), style="dim", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for heading in ("A", "B", "A less B, points", f"{comparison.confidence:.0%} interval", "p", "p of all", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    scores_a = {score.task: score for score in comparison.scores_a}
    scores_b = {score.task: score for score in comparison.scores_b}
    certain = {task.task for task in comparison.certain}
    for task in sorted(comparison.tasks, key=lambda task: (-task.difference, task.task)):
        table.add_row(
            Text(one_line(task.task)),
            share(scores_a[task.task]),
            share(scores_b[task.task]),
            f"{100 * task.difference:+.1f}",
            f"[{100 * task.interval.low:+.0f}, {100 * task.interval.high:+.0f}]",
            f"{task.p_value:.2g}",
            f"{task.p_adjusted:.2g}",
            "*" if task.task in certain else "",
        )
    out.print()
    out.print(table)
    count, alone = len(comparison.certain), sum(t.p_value < 1 - comparison.confidence for t in comparison.tasks)
    out.print(
        f"\n* {count} of {len(comparison.tasks)} tasks differ with all tasks taken together. Looked at alone, {alone} "
        f"would; up to {len(comparison.tasks) * (1 - comparison.confidence):.1f} of them are to be expected by luck.",
        markup=False,
    )
    left_out = [s.task for s in comparison.scores_a if s.task not in {task.task for task in comparison.tasks}]
    if left_out:
        out.print(f"{len(left_out)} tasks that one of them has no answer for are left out.", markup=False)


def _points(difference: Difference) -> str:
    low, high = difference.interval
    return f"{100 * difference.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
