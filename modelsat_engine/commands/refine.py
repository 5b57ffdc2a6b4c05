"""`modelsat candidates refine`: what graded answers to your own traffic say of it and of the candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import console, one_line, percent, print_json, warn
from modelsat_engine.commands.options import bundle_option, executor_option, json_option, zoo_option
from modelsat_engine.commands.progress import ProgressBar
from modelsat_engine.commands.zoo import writable_zoo_path
from modelsat_engine.errors import CandidateError, DataError, InstructionError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.instruction import Instruction
    from modelsat_engine.runtime.refinement import HeldOut, Refined

_NAMED_IN_WARNING = 3


@click.command("refine")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--candidate", metavar="NAME", help="Who gave the answers, where FILE has no column that says it.")
@click.option(
    "--field",
    metavar="NAME",
    help="The column with the instruction.  [default: the first of instruction, prompt, text, messages]",
)
@click.option(
    "--candidate-field",
    default="candidate",
    show_default=True,
    metavar="NAME",
    help="The column that names the candidate which answered.",
)
@click.option(
    "--correct-field",
    default="correct",
    show_default=True,
    metavar="NAME",
    help="The column that says whether the answer was right: 1 or 0, true or false, yes or no.",
)
@click.option("--anyway", is_flag=True, help="Write it even if there is no sign that it helps.")
@click.option("--dry-run", is_flag=True, help="Say what it would give, and leave the zoo as it is.")
@bundle_option
@zoo_option
@executor_option
@json_option
def refine(
    file: Path,
    candidate: str | None,
    field: str | None,
    candidate_field: str,
    correct_field: str,
    anyway: bool,
    dry_run: bool,
    bundle: Path | None,
    zoo: Path | None,
    executor: str,
    as_json: bool,
) -> None:
    """Refine all candidates by the graded answers in FILE: what you know beside their aptitude tests.

    FILE is a .jsonl, .csv, .tsv or .parquet file with a row for each answer: the instruction, who answered, and
    whether the answer was right; rows without that are left out. A hundred from the traffic you route make the
    probabilities right for it, with thousands the choice gets better too. Nothing is trained and routing takes no
    longer. Every answer is also predicted by a refinement that has not seen it; if that is not clearly better than
    without any, the zoo stays as it is.

    What the answers say of your traffic holds for all candidates, also for those without one and those added later.
    A refinement replaces the one before, so give all answers that you have, old ones too.

    \b
    Examples:
      modelsat candidates refine graded.jsonl
      modelsat candidates refine log.csv --candidate-field model --correct-field accepted --dry-run
      modelsat candidates refine answers.parquet --candidate gemma-2-27b-it --zoo zoo.json --json
    """
    from modelsat_engine.aptitude import edit_zoo
    from modelsat_engine.commands.zoo import read_zoo
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.refinement import refine, require_axes

    opened = Bundle.load(bundle)
    require_axes(opened)
    path = writable_zoo_path(opened, zoo)
    profiles = list(read_zoo(opened, zoo).profiles)
    graded = _read(file, opened, profiles, candidate, field, candidate_field, correct_field)
    with ProgressBar("Scoring") as bar:
        result = refine(
            profiles,
            graded.instructions,
            graded.candidates,
            graded.right,
            bundle=opened,
            executor=executor,
            progress=bar.update,
        )
    reason = _against(result, profiles)
    written = not dry_run and (reason is None or anyway)
    if written:
        with edit_zoo(path, None if zoo is not None else opened.zoo) as by_name:
            for before, after in zip(profiles, result.profiles, strict=True):
                if by_name.get(before.name) != before:
                    raise CandidateError(f"{before.name!r} was changed or removed in {path} meanwhile; refine again")
                by_name[before.name] = after
    if as_json:
        print_json(_report(result, graded, path, written))
        return
    _print(result)
    if written:
        click.echo(f"Written to {path}.")
    elif dry_run:
        click.echo(
            "Without --dry-run it would " + ("be written" if reason is None else f"not be written: {reason}") + "."
        )
    else:
        warn(f"{reason}, so {path} stays as it is; --anyway writes it")


def _against(result: Refined, profiles: Sequence[CapabilityProfile]) -> str | None:
    """Why the zoo should stay as it is, or None."""
    if not result.helps:
        return "no sign that it helps with answers it has not seen"
    before = sum(profile.refinement.answers for profile in profiles if profile.refinement is not None)
    if before > result.total.answers:
        return (
            f"the zoo is refined by {before:,} answers already and these are {result.total.answers:,}: give all of them"
        )
    return None


@dataclass
class _Graded:
    instructions: list[Instruction] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    strangers: Counter[str] = field(default_factory=Counter)
    ungraded: int = 0


def _read(
    file: Path,
    bundle: Bundle,
    profiles: list[CapabilityProfile],
    candidate: str | None,
    instruction_field: str | None,
    candidate_field: str,
    correct_field: str,
) -> _Graded:
    """The graded answers of the zoo's candidates; those of others and those without a grade are counted."""
    from modelsat_engine.aptitude.importers.results import as_outcome
    from modelsat_engine.commands.candidate_changes import choices
    from modelsat_engine.commands.files.readers import EMPTY, open_instructions
    from modelsat_engine.runtime.instruction import InstructionTokenizer

    if file.suffix.lower() == ".txt":
        raise DataError(f"{file}: a text file cannot say what was right; use .jsonl, .csv, .tsv or .parquet")
    names = {profile.name for profile in profiles}
    if candidate is not None and candidate not in names:
        raise CandidateError(f"no candidate is called {candidate!r}; {choices(profiles)}")
    source = open_instructions(file, instruction_field, keep=[correct_field])
    if candidate is None or candidate_field in source.names:
        source = open_instructions(file, instruction_field, keep=[correct_field, candidate_field])
    tokenizer = InstructionTokenizer.from_file(
        bundle.file("tokenizer.json"), int(bundle.config["tokenizer"]["max_instruction_tokens"])
    )
    graded = _Graded()
    for row in source.rows():
        where = f"{file}, {row.where}"
        outcome, *named = (value.as_py() if hasattr(value, "as_py") else value for value in row.kept)
        if outcome in (None, "") and (row.instruction is not None or row.error == EMPTY):
            graded.ungraded += 1
            continue
        if row.instruction is None:
            raise DataError(f"{where}: {row.error}")
        name = _name(named[0] if named else None, candidate, candidate_field, where)
        if name not in names:
            graded.strangers[name] += 1
            continue
        graded.right.append(as_outcome(outcome, f"{where}, {correct_field}"))
        try:
            tokenizer.tokenise(row.instruction)  # better found here, with its place, than while it is scored
        except InstructionError as error:
            raise DataError(f"{where}: {error}") from error
        graded.instructions.append(row.instruction)
        graded.candidates.append(name)
    _warn_of_gaps(graded)
    if not graded.right and (graded.strangers or graded.ungraded):
        raise CandidateError(f"{file} has no graded answer of a candidate; {choices(profiles)}")
    return graded


def _name(value: Any, candidate: str | None, candidate_field: str, where: str) -> str:
    """Who answered."""
    if candidate is not None:
        if value not in (None, "", candidate):
            raise DataError(
                f"{where}: {candidate_field!r} names {value!r}, but --candidate says that all answers are "
                f"{candidate!r}'s; leave --candidate out, or name another column with --candidate-field"
            )
        return candidate
    if not isinstance(value, str) or not value:
        raise DataError(
            f"{where}: {candidate_field!r} names no candidate; give its column with --candidate-field, "
            "or say with --candidate who gave all answers"
        )
    return value


def _warn_of_gaps(graded: _Graded) -> None:
    if graded.ungraded:
        warn(f"rows that do not say whether the answer was right are left out: {graded.ungraded:,}")
    for name, count in graded.strangers.most_common(_NAMED_IN_WARNING):
        warn(f"{one_line(name)} is not in the zoo; its answers are left out: {count:,}")
    others = len(graded.strangers) - _NAMED_IN_WARNING
    if others > 0:
        warn(f"{others:,} more names are not in the zoo, their answers are left out")


def _print(result: Refined) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("candidate", "answers", "right", "predicted", "refined"):
        table.add_column(heading, justify="left" if heading == "candidate" else "right", no_wrap=True)
    for name, held_out in result.by_candidate.items():
        table.add_row(Text(one_line(name)), *_columns(held_out))
    if len(result.by_candidate) > 1:
        table.add_row(Text("all", style="bold"), *_columns(result.total))
    console().print(table)
    click.echo(
        f"\nLog loss of answers held out: {result.total.log_loss_before:.4f} before, "
        f"{result.total.log_loss_after:.4f} refined (standard error of the difference "
        f"{result.total.standard_error:.4f})."
    )
    silent = len(result.profiles) - len(result.by_candidate)
    if silent:
        click.echo(f"Candidates without an answer: {silent}; they are refined by what all share.")


def _columns(held_out: HeldOut) -> tuple[str, ...]:
    shares = (held_out.accuracy, held_out.predicted_before, held_out.predicted_after)
    return (f"{held_out.answers:,}", *map(percent, shares))


def _report(result: Refined, graded: _Graded, path: Path, written: bool) -> dict[str, Any]:
    return {
        **_figures(result.total),
        "candidates": {name: _figures(held_out) for name, held_out in result.by_candidate.items()},
        "left_out": {"not_in_zoo": dict(graded.strangers), "ungraded": graded.ungraded},
        "helps": result.helps,
        "written": written,
        "zoo": str(path),
    }


def _figures(held_out: HeldOut) -> dict[str, Any]:
    return {
        "answers": held_out.answers,
        "accuracy": round(held_out.accuracy, 4),
        "predicted": {"before": round(held_out.predicted_before, 4), "refined": round(held_out.predicted_after, 4)},
        "log_loss": {"before": round(held_out.log_loss_before, 4), "refined": round(held_out.log_loss_after, 4)},
        "standard_error": round(held_out.standard_error, 4),
    }
