"""`modelsat aptitude build`: an aptitude test from a question set of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelsat_engine.commands.console import console, one_line, print_json, warn
from modelsat_engine.commands.options import json_option
from modelsat_engine.errors import DataError

if TYPE_CHECKING:
    from modelsat_engine.aptitude.construction import BuiltTest


@click.command("build", short_help="Make a test from a question set.")
@click.argument("questions", metavar="QUESTIONS")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The test, an aptitude.json.")
@click.option(
    "--outcomes",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Who answered what right: a table with the columns model, item, correct, or npz; may be repeated.",
)
@click.option("--tasks", "num_tasks", type=click.IntRange(1), default=50, show_default=True, metavar="N")
@click.option(
    "--shots",
    "items_per_task",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Items a task.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample.")
@click.option(
    "--keywords",
    "keywords_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keywords of tasks, JSON {task: [...]} or a table.  [default: extracted from the questions]",
)
@click.option(
    "--task-column", metavar="NAME", help="The column that tells the task.  [default: task, subject, category]"
)
@click.option("--id-prefix", default="", metavar="TEXT", help="Put before every id, such as mmlu_pro/.")
@click.option(
    "--answer-as",
    type=click.Choice(["auto", "letter", "index", "text"]),
    default="auto",
    show_default=True,
    help="How right answers are written.",
)
@click.option("--split", default="test", show_default=True, help="Of a Hugging Face dataset.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(
    questions: str,
    output: Path,
    outcomes: tuple[Path, ...],
    num_tasks: int,
    items_per_task: int,
    seed: int,
    keywords_file: Path | None,
    task_column: str | None,
    id_prefix: str,
    answer_as: str,
    split: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Build an aptitude test from QUESTIONS and say how good it is.

    QUESTIONS is a jsonl, csv or parquet file with the columns question (options inside, or in a column of their own),
    answer and task, best also id, or a Hugging Face dataset such as TIGER-Lab/MMLU-Pro. With the outcomes of models
    that took them, tasks and items are drawn by how well they tell models apart; without, uniformly.

    The test holds ids and content hashes and no text: it may be published where the questions may not.

    A router is trained for one test and reads profiles of that test only. For a test of your own, train a router
    with 'modelsat train --aptitude'.

    \b
    Examples:
      modelsat aptitude build questions.jsonl --outcomes outcomes.csv -o aptitude.json
      modelsat aptitude build questions.parquet --task-column mmlu_subject --outcomes outcomes.npz -o aptitude.json
      modelsat aptitude build cais/mmlu:all --tasks 57 --shots 10 --seed 3 -o aptitude.json --json
    """
    from modelsat_engine.aptitude.construction import build_test_from_questions
    from modelsat_engine.aptitude.keyword_extraction import load_keywords
    from modelsat_engine.aptitude.outcome_table import load_outcomes
    from modelsat_engine.aptitude.questions import load_questions
    from modelsat_engine.commands.progress import ProgressBar

    if output.exists() and not overwrite:
        raise DataError(f"{output} exists; pass --overwrite to replace it, or name another file")
    if not output.parent.is_dir():
        raise DataError(f"{output.parent} is not a folder; make it first")
    given = load_keywords(keywords_file) if keywords_file else None
    with ProgressBar("building") as progress:
        progress.update(None, "reading the questions")
        asked = load_questions(
            questions,
            columns={"task": task_column} if task_column else None,
            answer_as=answer_as,
            id_prefix=id_prefix,
            split=split,
        )
        progress.update(0.4, f"{len(asked):,} questions, reading the outcomes")
        table = load_outcomes(outcomes) if outcomes else None
        progress.update(0.8, "choosing tasks and items")
        built = build_test_from_questions(
            asked, table, seed=seed, num_tasks=num_tasks, items_per_task=items_per_task, keywords=given
        )
    try:
        built.test.save(output)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror}") from error
    if table is None:
        warn("no outcomes were given: tasks and items are drawn uniformly, and nothing is known of how well they tell")
    if given and (unused := sorted(given.keys() - set(built.test.task_names))):
        shown = ", ".join(unused[:4]) + (" ..." if len(unused) > 4 else "")
        warn(f"keywords that were not used: {len(unused)} ({shown})")
    if as_json:
        print_json(_summary(built, output, seed))
    else:
        _print(built, output)


def _summary(built: BuiltTest, output: Path, seed: int) -> dict[str, object]:
    report = built.report.to_json()
    for entry, task in zip(report["tasks"], built.test.tasks, strict=True):
        entry["keywords"] = list(task.keywords)
        entry["keywords_from"] = built.keywords_from[task.name]
    return {
        "test": str(output),
        "id": built.test.id,
        "seed": seed,
        "sampling": "distinguishability" if built.models else "uniform",
        "questions": built.questions,
        "without_task": built.without_task,
        "repeated": built.repeated,
        "unusable_outcomes": built.untold,
        "report": report,
    }


def _print(built: BuiltTest, output: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    report = built.report
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    for heading in ("items", "right", "p (1 - p)", "discrimination", "error", "reliability", "shift"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("keywords", style="dim")
    for task, row in zip(built.test.tasks, report.tasks, strict=True):
        table.add_row(
            Text(one_line(task.name)),
            str(row.items),
            _figure(row.difficulty, ".1%"),
            _figure(row.distinguishability, ".3f"),
            _figure(row.discrimination, ".2f"),
            f"{100 * row.standard_error:.1f}",
            _figure(row.reliability, ".2f"),
            _figure(None if row.shift is None else 100 * row.shift, "+.1f"),
            Text(one_line(", ".join(task.keywords))),
        )
    out.print(table)
    out.print()
    items = sum(len(task.item_ids) for task in built.test.tasks)
    drawn = f"by the outcomes of {built.models} models" if built.models else "uniformly, without outcomes"
    out.print(f"{len(built.test.tasks)} tasks, {items:,} items of {built.questions:,} questions, drawn {drawn}.")
    worst = "" if built.models else "at most "
    out.print(
        f"Standard error of a model's accuracy: {worst}{100 * report.standard_error:.1f} points over all tasks"
        + (f"; reliability {report.reliability:.3f}" if report.reliability is not None else "")
        + (f"; models differ by {100 * report.spread:.1f} points (sd)" if report.spread is not None else "")
        + ".",
        markup=False,
    )
    if report.shift is not None and report.shift_spread is not None:
        out.print(
            f"Accuracy on the items is {100 * report.shift:+.1f} points off that on the tasks' other questions, "
            f"by {100 * report.shift_spread:.1f} points (sd) more or less from task to task.",
            markup=False,
        )
    left = ((built.without_task, "have no task"), (built.repeated, "repeat another"), (built.untold, "tell nothing"))
    if any(count for count, _ in left):
        reasons = ", ".join(f"{count:,} {what}" for count, what in left if count)
        out.print(f"Questions that could not be used: {reasons}.", markup=False)
    out.print(
        f"Written to {output} ({built.test.id}). A router is trained for one test: profiles of this one need a router "
        f"trained with 'modelsat train --aptitude {output}'.",
        markup=False,
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
