"""What `modelsat score` does between reading and writing: rows in batches, batches in parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelsat_engine.commands.files.parts import PartsFolder
from modelsat_engine.commands.files.results import OutputColumns, ResultFormat, ScoredRows
from modelsat_engine.commands.files.rows import Instruction, InstructionFile, Row
from modelsat_engine.commands.progress import ProgressBar
from modelsat_engine.errors import DataError, InstructionError

if TYPE_CHECKING:
    from modelsat_engine.runtime.engine import Engine
    from modelsat_engine.runtime.policies import Policy


class RowScorer:
    """Scores rows with an engine; a row the engine refuses is answered with its error.

    Args:
        engine: its zoo stays the same meanwhile.
        policy: chooses each row's candidate.
    """

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self._engine = engine
        self._policy = policy
        self._table = engine.candidates.table

    def score(self, rows: Sequence[Row]) -> ScoredRows:
        """P(Yes) of every candidate for every good row, and the policy's choice; one call of the engine."""
        errors = [row.error for row in rows]
        probabilities = np.zeros((len(rows), len(self._table)), np.float32)  # [rows, M]
        good = [i for i, error in enumerate(errors) if error is None]
        if good:
            self._score_into(probabilities, errors, rows, good)
        choices = np.zeros(len(rows), np.int64)
        if rows:
            choices[:] = self._policy.choose(probabilities, self._table)
        return ScoredRows(rows, errors, probabilities, choices)

    def _score_into(
        self,
        probabilities: npt.NDArray[np.float32],
        errors: list[str | None],
        rows: Sequence[Row],
        batch: list[int],
    ) -> None:
        try:
            probabilities[batch] = self._engine.score([_instruction(rows[i]) for i in batch])
        except InstructionError as error:
            if len(batch) == 1:
                errors[batch[0]] = str(error).removeprefix("instruction 0: ")
                return
            # one of them is bad: halve until it stands alone
            middle = len(batch) // 2
            self._score_into(probabilities, errors, rows, batch[:middle])
            self._score_into(probabilities, errors, rows, batch[middle:])


@dataclass
class ScoringJob:
    """One pass over a file of instructions that makes the parts which are not there yet.

    Attributes:
        source: the instructions.
        scorer: scores them.
        parts: keeps what is done.
        target, columns: how a part is written.
        part_rows: rows in a part.
        batch_size: rows in one call of the engine.
        skip_bad_rows: whether a bad row is written with its error, or ends the job.
        rows: rows read so far.
        resumed_rows: those of parts that an earlier run had finished.
        bad_rows: rows of this run that could not be scored.
        started: when, by the monotonic clock, in seconds.
    """

    source: InstructionFile
    scorer: RowScorer
    parts: PartsFolder
    target: ResultFormat
    columns: OutputColumns
    part_rows: int
    batch_size: int
    skip_bad_rows: bool
    rows: int = 0
    resumed_rows: int = 0
    bad_rows: int = 0
    started: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Make every missing part.

        Returns:
            How many parts there are, one at least: a file of no rows has one, for its columns.

        Raises:
            DataError: a bad row that is not to be skipped, or a part that cannot be written.
        """
        count = 0
        with ProgressBar("Scoring") as progress:
            rows = self.source.rows()
            read_before = 0.0
            while (chunk := list(islice(rows, self.part_rows))) or count == 0:
                if self.parts.has(count):
                    self.resumed_rows += len(chunk)
                    self.rows += len(chunk)
                else:
                    self._make_part(count, chunk, read_before, progress)
                read_before = self.source.fraction
                count += 1
        return count

    def _make_part(self, index: int, chunk: Sequence[Row], read_before: float, progress: ProgressBar) -> None:
        scored = []
        read_ahead = self.source.fraction - read_before
        for start in range(0, max(len(chunk), 1), self.batch_size):
            batch = self.scorer.score(chunk[start : start + self.batch_size])
            self._check(batch)
            scored.append(batch)
            self.rows += len(batch.rows)
            rate = (self.rows - self.resumed_rows) / max(time.monotonic() - self.started, 1e-9)
            share = (start + len(batch.rows)) / max(len(chunk), 1)  # of this part
            progress.update(read_before + share * read_ahead, f"{self.rows:,} rows, {rate:,.0f}/s")
        whole = ScoredRows.concatenate(scored)
        self.parts.write(index, lambda file: self.target.write(file, whole, self.columns))

    def _check(self, scored: ScoredRows) -> None:
        """Count bad rows, or stop at the first (DataError that names it)."""
        for row, error in zip(scored.rows, scored.errors, strict=True):
            if error is None:
                continue
            if not self.skip_bad_rows:
                raise DataError(f"{self.source.path}, {row.where}: {error}; mend it, or pass --on-error skip")
            self.bad_rows += 1


def _instruction(row: Row) -> Instruction:
    assert row.instruction is not None
    return row.instruction
