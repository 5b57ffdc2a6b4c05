"""`modelsat candidates refine`: what a candidate's graded answers to your own traffic say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import one_line, percent, print_json, warn
from modelsat_engine.commands.options import bundle_option, executor_option, json_option, zoo_option
from modelsat_engine.commands.progress import ProgressBar
from modelsat_engine.commands.zoo import writable_zoo_path
from modelsat_engine.errors import CandidateError, DataError

if TYPE_CHECKING:
    from modelsat_engine.runtime.instruction import Instruction
    from modelsat_engine.runtime.refinement import Refined


@click.command("refine")
@click.argument("name")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--field",
    metavar="NAME",
    help="The column with the instruction.  [default: the first of instruction, prompt, text, messages]",
)
@click.option(
    "--correct-field",
    default="correct",
    show_default=True,
    metavar="NAME",
    help="The column that says whether the answer was right: 1 or 0, true or false, yes or no.",
)
@click.option("--afresh", is_flag=True, help="Forget what earlier answers have refined.")
@click.option("--anyway", is_flag=True, help="Write it even if it predicts held-out answers no better.")
@click.option("--dry-run", is_flag=True, help="Say what it would give, and leave the zoo as it is.")
@bundle_option
@zoo_option
@executor_option
@json_option
def refine(
    name: str,
    file: Path,
    field: str | None,
    correct_field: str,
    afresh: bool,
    anyway: bool,
    dry_run: bool,
    bundle: Path | None,
    zoo: Path | None,
    executor: str,
    as_json: bool,
) -> None:
    """Refine candidate NAME by the graded answers in FILE: what you know of it beside its aptitude test.

    FILE is a .jsonl, .csv, .tsv or .parquet file with a row for each instruction that the candidate has answered, and
    whether the answer was right; some hundreds from the traffic you route are a good start. Nothing is trained and
    routing takes no longer. Every answer is also predicted by a refinement that has not seen it; if that is no better
    than without, the zoo stays as it is.

    What earlier answers have refined is kept and built upon, so give each answer once. Refine all candidates that you
    route between, by the same traffic, or they are not judged alike.

    \b
    Examples:
      modelsat candidates refine gemma-2-27b-it graded.jsonl
      modelsat candidates refine gemma-2-27b-it log.csv --field prompt --correct-field accepted --dry-run
      modelsat candidates refine my-model graded.parquet --zoo zoo.json --afresh --json
    """
    from modelsat_engine.aptitude import edit_zoo
    from modelsat_engine.commands.candidate_changes import choices
    from modelsat_engine.commands.zoo import read_zoo
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.refinement import refine, require_axes

    opened = Bundle.load(bundle)
    require_axes(opened)
    path = writable_zoo_path(opened, zoo)
    profiles = read_zoo(opened, zoo).profiles
    profile = next((profile for profile in profiles if profile.name == name), None)
    if profile is None:
        raise CandidateError(f"no candidate is called {name!r}; {choices(profiles)}")
    instructions, right = _graded(file, field, correct_field)
    with ProgressBar("Scoring") as bar:
        result = refine(
            profile, instructions, right, bundle=opened, executor=executor, afresh=afresh, progress=bar.update
        )
    written = not dry_run and (result.helps or anyway)
    if written:
        with edit_zoo(path, None if zoo is not None else opened.zoo) as by_name:
            if by_name.get(name) != profile:
                raise CandidateError(f"{name!r} was changed or removed in {path} meanwhile; refine it again")
            by_name[name] = result.profile
    if as_json:
        print_json(_report(result, path, written))
        return
    click.echo(
        f"{one_line(name)}: {result.answers:,} graded answers, {percent(result.accuracy)} right; predicted "
        f"{percent(result.predicted_before)} before, {percent(result.predicted_after)} refined.\n"
        f"Log loss of answers held out: {result.log_loss_before:.4f} before, {result.log_loss_after:.4f} refined."
    )
    if written:
        click.echo(f"Written to {path}.")
    elif not dry_run:
        warn(f"no better on answers it has not seen, so {path} stays as it is; more answers, or --anyway")


def _graded(file: Path, field: str | None, correct_field: str) -> tuple[list[Instruction], list[bool]]:
    from modelsat_engine.aptitude.importers.results import as_outcome
    from modelsat_engine.commands.files.readers import open_instructions

    instructions: list[Instruction] = []
    right: list[bool] = []
    for row in open_instructions(file, field, keep=[correct_field]).rows():
        where = f"{file}, {row.where}"
        if row.instruction is None:
            raise DataError(f"{where}: {row.error}")
        instructions.append(row.instruction)
        right.append(as_outcome(row.kept[0], f"{where}, {correct_field}"))
    return instructions, right


def _report(result: Refined, path: Path, written: bool) -> dict[str, Any]:
    return {
        "candidate": result.profile.name,
        "answers": result.answers,
        "accuracy": round(result.accuracy, 4),
        "predicted": {"before": round(result.predicted_before, 4), "refined": round(result.predicted_after, 4)},
        "log_loss": {"before": round(result.log_loss_before, 4), "refined": round(result.log_loss_after, 4)},
        "helps": result.helps,
        "written": written,
        "zoo": str(path),
    }
