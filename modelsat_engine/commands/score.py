"""`modelsat score`: a file of instructions in, a file of probabilities out, and no work lost on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelsat_engine import __version__
from modelsat_engine.commands.console import one_line, print_json, warn
from modelsat_engine.commands.options import engine_options, json_option
from modelsat_engine.commands.policy_options import make_policy, policy_options
from modelsat_engine.errors import DataError

if TYPE_CHECKING:
    from modelsat_engine.commands.scoring import ScoringJob


@click.command("score", short_help="Score a whole file of instructions.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A .parquet, .jsonl or .csv file.")
@click.option(
    "--field",
    metavar="NAME",
    help="The column with the instruction.  [default: the first of instruction, prompt, text, messages]",
)
@click.option("--id-field", metavar="NAME", help="A column to copy as 'id'.  [default: id, if there is one]")
@click.option("--keep", multiple=True, metavar="A,B", help="More columns to copy; may be repeated.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="A row that cannot be scored (empty, not UTF-8): stop, or go on and say why in the column 'error'.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--restart", is_flag=True, help="Forget what an interrupted run has saved.")
@click.option("--batch-size", type=click.IntRange(1, 65536), default=256, show_default=True, metavar="N")
@click.option(
    "--part-rows",
    type=click.IntRange(1, 1 << 20),
    default=2048,
    show_default=True,
    metavar="N",
    help="Rows after which work is saved.",
)
@policy_options
@engine_options
@json_option
def command(
    source: Path,
    output: Path,
    field: str | None,
    id_field: str | None,
    keep: tuple[str, ...],
    on_error: str,
    overwrite: bool,
    restart: bool,
    batch_size: int,
    part_rows: int,
    policy_name: str,
    threshold: float | None,
    usd_value: float | None,
    tokens_per_request: float | None,
    bundle: Path | None,
    zoo: Path | None,
    candidates: tuple[str, ...],
    executor: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score every instruction in INPUT for every candidate.

    INPUT is a .txt (one instruction a line), .jsonl, .csv, .tsv or .parquet file. OUTPUT gets, per row of INPUT
    and in its order: 'row' (1 is the first), 'id' if INPUT has one, the columns of --keep, the chosen 'candidate'
    and its 'probability', one column 'probability|NAME' per candidate ('probabilities' in jsonl), and 'error'.
    Instructions are not copied unless --keep names their column.

    Work is saved in OUTPUT.parts/ as it goes on. After an interruption the same command continues there.

    \b
    Examples:
      modelsat score questions.jsonl -o scores.parquet
      modelsat score log.csv --field prompt --id-field request_id --on-error skip -o scores.csv
      modelsat score big.parquet -o scores.parquet --policy cheapest-above --threshold 0.7
    """
    policy = make_policy(policy_name, threshold, usd_value, tokens_per_request)

    from modelsat_engine.aptitude.files import sha256_hex
    from modelsat_engine.commands.engine import open_engine
    from modelsat_engine.commands.files.parts import PartsFolder, check_writable_folder, fingerprint
    from modelsat_engine.commands.files.readers import open_instructions
    from modelsat_engine.commands.files.results import OutputColumns, result_format
    from modelsat_engine.commands.scoring import RowScorer, ScoringJob

    output = output.resolve() if output.is_symlink() else output
    target = result_format(output)
    check_writable_folder(output)
    kept_names = list(dict.fromkeys(name.strip() for value in keep for name in value.split(",") if name.strip()))
    instructions = open_instructions(source, field, id_field, kept_names)
    if output.exists():
        if output.samefile(source):
            raise DataError(f"{output} is the input; choose another output")
        if not overwrite:
            raise DataError(f"{output} exists; pass --overwrite to replace it, or choose another output")

    before = source.stat()
    with open_engine(bundle, zoo, candidates, executor, threads, mode="throughput") as engine:
        columns = OutputColumns.of(instructions, engine.candidates.names)
        pinned = {
            "modelsat version": __version__,
            "input": fingerprint(source),
            "bundle": engine.bundle.hash,
            "zoo": sha256_hex([profile.hash for profile in engine.candidates.profiles]),
            "executor": engine.executor,
            "policy": repr(policy),
            "--field": instructions.field,
            "--id-field": columns.id.name if columns.id else None,
            "--keep": kept_names,
            "--part-rows": part_rows,
        }
        with PartsFolder(output, pinned, restart=restart) as parts:
            scorer = RowScorer(engine, policy)
            job = ScoringJob(instructions, scorer, parts, target, columns, part_rows, batch_size, on_error == "skip")
            try:
                part_count = job.run()
            except KeyboardInterrupt:
                if parts.any_there:
                    warn(f"interrupted; finished work is kept in {parts.folder}, the same command continues")
                raise
            after = source.stat()
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{source} was changed while it was read; run again with --restart")
            parts.merge(part_count, lambda file, paths: target.join(file, paths, columns))
            seconds = time.monotonic() - job.started
        label, used = engine.bundle.label, engine.executor
    _report(job, output, seconds, label, used, as_json)


def _report(job: ScoringJob, output: Path, seconds: float, bundle: str, executor: str, as_json: bool) -> None:
    fresh = job.rows - job.resumed_rows
    if as_json:
        print_json(
            {
                "output": str(output),
                "rows": job.rows,
                "resumed_rows": job.resumed_rows,
                "skipped_rows": job.bad_rows,
                "candidates": len(job.columns.candidates),
                "seconds": round(seconds, 3),
                "rows_per_second": round(fresh / seconds, 1) if seconds else None,
                "bundle": bundle,
                "executor": executor,
            }
        )
        return
    line = (
        f"Scored {_counted(fresh, 'row')} for {_counted(len(job.columns.candidates), 'candidate')} in {seconds:.1f} s"
    )
    if job.bad_rows:
        line += f", {job.bad_rows:,} of them skipped (see the column 'error')"
    if job.resumed_rows:
        line += f"; {job.resumed_rows:,} more were there from an earlier run"
    click.echo(f"{line}: {one_line(str(output))}")


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
