"""`modelsat score`: a file of instructions in, a file of probabilities out, and no work lost on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine import __version__
from modelsat_engine.commands.console import one_line, print_json, warn
from modelsat_engine.commands.options import engine_options, json_option
from modelsat_engine.commands.policy_options import make_policy, policy_options
from modelsat_engine.errors import DataError

if TYPE_CHECKING:
    from modelsat_engine.commands.files.parts import PartsFolder
    from modelsat_engine.commands.files.results import OutputColumns, ResultFormat
    from modelsat_engine.commands.files.rows import InstructionFile, Row
    from modelsat_engine.commands.scoring import RowScorer


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
    from modelsat_engine.commands.scoring import RowScorer

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
            job = _Job(
                instructions,
                RowScorer(engine, policy),
                parts,
                target,
                columns,
                batch_size,
                skip_bad_rows=on_error == "skip",
            )
            started = time.monotonic()
            try:
                part_count = job.run(part_rows)
            except KeyboardInterrupt:
                if parts.any_there:
                    warn(f"interrupted; finished work is kept in {parts.folder}, the same command continues")
                raise
            after = source.stat()
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{source} was changed while it was read; run again with --restart")
            parts.merge(part_count, lambda file, paths: target.join(file, paths, columns))
            seconds = time.monotonic() - started
        label, used = engine.bundle.label, engine.executor
    _report(job, output, seconds, label, used, as_json)


@dataclass
class _Job:
    """One pass over the input, part by part.

    Attributes:
        rows: rows read so far.
        resumed_rows: those of parts that an earlier run had finished.
        bad_rows: rows of this run that could not be scored.
    """

    source: InstructionFile
    scorer: RowScorer
    parts: PartsFolder
    target: ResultFormat
    columns: OutputColumns
    batch_size: int
    skip_bad_rows: bool
    rows: int = 0
    resumed_rows: int = 0
    bad_rows: int = 0

    def run(self, part_rows: int) -> int:
        """Make every missing part; returns how many parts there are."""
        from modelsat_engine.commands.progress import ProgressBar

        count = 0
        with ProgressBar("Scoring") as progress:
            rows = self.source.rows()
            while chunk := list(islice(rows, part_rows)):
                if self.parts.has(count):
                    self.resumed_rows += len(chunk)
                    self.rows += len(chunk)
                else:
                    self._make_part(count, chunk, progress)
                count += 1
        if count == 0:  # no row at all: a file of no rows, but with its columns
            self._make_part(0, [], progress)
            count = 1
        return count

    def _make_part(self, index: int, chunk: list[Row], progress: Any) -> None:
        from modelsat_engine.commands.files.results import ScoredRows

        pieces: list[ScoredRows] = []
        for start in range(0, len(chunk), self.batch_size):
            batch = chunk[start : start + self.batch_size]
            scored = self.scorer.score(batch)
            self._check(scored)
            pieces.append(scored)
            self.rows += len(batch)
            progress.update(self.source.fraction, f"{self.rows:,} rows")
        whole = ScoredRows.concatenate(pieces) if pieces else self.scorer.score([])
        self.parts.write(index, lambda file: self.target.write(file, whole, self.columns))

    def _check(self, scored: Any) -> None:
        """Count bad rows, or stop at the first (DataError that names it)."""
        for row, error in zip(scored.rows, scored.errors, strict=True):
            if error is None:
                continue
            if not self.skip_bad_rows:
                raise DataError(f"{self.source.path}, {row.where}: {error}; mend it, or pass --on-error skip")
            self.bad_rows += 1


def _report(job: _Job, output: Path, seconds: float, bundle: str, executor: str, as_json: bool) -> None:
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
    line = f"Scored {fresh:,} rows for {len(job.columns.candidates)} candidates in {seconds:.1f} s"
    if job.bad_rows:
        line += f", {job.bad_rows:,} of them skipped (see the column 'error')"
    if job.resumed_rows:
        line += f"; {job.resumed_rows:,} more were there from an earlier run"
    click.echo(f"{line}: {one_line(str(output))}")
