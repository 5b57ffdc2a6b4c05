"""Scores a batch of rows, bad ones among them: what `modelsat score` does between reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelsat_engine.commands.files.results import ScoredRows
from modelsat_engine.commands.files.rows import Instruction, Row
from modelsat_engine.errors import InstructionError

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


def _instruction(row: Row) -> Instruction:
    assert row.instruction is not None
    return row.instruction
