"""Hands tokenised instructions to the batch scheduler and collects their answers, blocking or on an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError, ModelSatError, ShuttingDown, TooLarge
from modelsat_engine.runtime.call_options import CallOptions
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import Executor, ExecutorLimits, PackedBatch
from modelsat_engine.runtime.lifetime import CLOSED_MESSAGE

#: What one level of priority is worth in waiting time.
AGEING_US = 100_000
_SIGNAL_CHECK_S = 0.1

_BatchCall = Callable[[np.ndarray, np.ndarray, CandidateTable], np.ndarray]


@dataclass(frozen=True, eq=False)
class Answers:
    """What came back for B instructions.

    Attributes:
        probabilities: float32 ``[B, M]``, C-contiguous.
        queue_us: int64 ``[B]``: from admission to the start of the instruction's batch.
        execute_us: int64 ``[B]``: execution of its batch.
    """

    probabilities: np.ndarray
    queue_us: np.ndarray
    execute_us: np.ndarray


@dataclass(eq=False)
class BoundTable:
    """A snapshot of the zoo with what the scheduler reads of it; a call holds both until it is answered.

    Attributes:
        table: the snapshot.
        handle: the scheduler's, made once a snapshot; None once the engine is closed.
        wide: the same candidates with their draws, once somebody has asked for intervals.
    """

    table: CandidateTable
    handle: _core.CandidateTable | None
    wide: BoundTable | None = None


class Dispatcher:
    """Owns the scheduler of one engine. Thread-safe.

    An executor written in C++ has the attribute ``core``, a ``_core.Executor``, and the method
    ``core_table(table, version)``, which makes the ``_core.CandidateTable`` it reads; the scheduler calls it without
    Python. Any other executor is called with the GIL, once per batch.

    Args:
        executor: called from the scheduler's thread, one batch at a time.
        bounds: of a batch; no wider than the executor's limits.
        max_queue: instructions that may wait for the executor.
    """

    def __init__(self, executor: Executor, bounds: ExecutorLimits, max_queue: int) -> None:
        core: _core.Executor | None = getattr(executor, "core", None)
        self._core_table = _plain_table if core is None else executor.core_table  # type: ignore[attr-defined]
        self._executor_name = executor.name
        self._max_queue = max_queue
        self._scheduler = _core.BatchScheduler(
            _batch_call(executor) if core is None else core,
            max_batch_requests=bounds.max_batch_requests,
            max_batch_tokens=bounds.max_batch_tokens,
            max_instruction_tokens=bounds.max_instruction_tokens,
            max_queue_requests=max_queue,
            max_queue_tokens=max_queue * bounds.max_instruction_tokens,  # requests are the bound that counts
            ageing_us=AGEING_US,
        )

    def ask(self, instructions: int, table: CandidateTable, options: CallOptions) -> None:
        """Find out before tokenising whether so many instructions of usual length would be refused now.

        Raises:
            Overloaded, TooLarge, DeadlineExceeded, ShuttingDown, ForkedProcess: as :meth:`score`.
        """
        refusal = self._scheduler.ask(
            instructions, len(table), deadline_us=options.remaining_us, priority=options.priority
        )
        if refusal is not None:
            raise self._named(refusal, instructions)

    def bind(self, table: CandidateTable) -> BoundTable:
        """Make the scheduler's handle of a snapshot; one for all its requests, since only those share a batch.

        It computes what the executor needs of the candidates, so it is made before a request asks for the snapshot.

        Raises:
            ExecutorError: the executor cannot take the table.
        """
        return BoundTable(table, self._core_table(table, table.version))

    def score(self, token_ids: list[np.ndarray], bound: BoundTable, options: CallOptions) -> Answers:
        """Score instructions and wait without the GIL; all of them are admitted, or none.

        Args:
            token_ids: int32 ``[S_b]`` each, B of them, B >= 0.
            bound: the snapshot that scores them, whatever becomes of the zoo meanwhile.

        Raises:
            Overloaded: the queue has no room, or too much waits for the deadline to be met; nothing was scored.
            TooLarge: more instructions than the queue holds.
            DeadlineExceeded, ShuttingDown, ForkedProcess: see there.
            ExecutorError: the executor failed on a batch that held one of these instructions.
        """
        if not token_ids or not len(bound.table):
            return _nothing(len(token_ids), len(bound.table))
        with self._named_errors(len(token_ids)):
            submission = self._scheduler.score(*_request(token_ids, bound), **_in_time(options))
            return self._answers(submission, bound.table)

    async def ascore(self, token_ids: list[np.ndarray], bound: BoundTable, options: CallOptions) -> Answers:
        """:meth:`score` on the running event loop. Cancelling the awaiting task cancels what is not yet answered."""
        if not token_ids or not len(bound.table):
            return _nothing(len(token_ids), len(bound.table))
        with self._named_errors(len(token_ids)):
            future = self._scheduler.ascore(*_request(token_ids, bound), **_in_time(options))
            return self._answers(await future, bound.table)

    def stats(self) -> dict[str, Any]:
        """The scheduler's counters and histograms."""
        return self._scheduler.stats()

    def close(self) -> None:
        """Refuse what comes, answer what was accepted, end the scheduler's threads."""
        while not self._scheduler.drain(_SIGNAL_CHECK_S):
            pass  # between two waits Python notices Ctrl-C
        self._scheduler.close()

    def _answers(self, submission: _core.Submission, table: CandidateTable) -> Answers:
        probabilities = submission.probabilities  # [B, M], a view
        wrong = ~((probabilities >= 0) & (probabilities <= 1))  # true for NaN too
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ExecutorError(
                f"executor {self._executor_name} gave the probability {probabilities[row, column]} for "
                f"{table.names[column]!r}: the bundle or its runtime is broken; run 'modelsat doctor'"
            )
        return Answers(probabilities, submission.queue_us, submission.execute_us)

    @contextmanager
    def _named_errors(self, instructions: int) -> Iterator[None]:
        try:
            yield
        except ModelSatError as error:
            named = self._named(error, instructions)
            if named is error:
                raise
            raise named from error.__cause__

    def _named(self, error: ModelSatError, instructions: int) -> ModelSatError:
        """Say what the executor said, and name the scheduler's bounds and end as the engine's user knows them."""
        if isinstance(error, TooLarge):
            return TooLarge(
                f"a list of {instructions:,} instructions does not fit into the queue, which holds "
                f"{self._max_queue:,}; load the engine with max_queue={instructions} or more, or send the list in parts"
            )
        if isinstance(error, ShuttingDown):
            return ShuttingDown(CLOSED_MESSAGE)
        if isinstance(error, ExecutorError) and isinstance(error.__cause__, ExecutorError):
            return ExecutorError(str(error.__cause__))
        return error


def _request(token_ids: list[np.ndarray], bound: BoundTable) -> tuple[np.ndarray, np.ndarray, _core.CandidateTable]:
    if bound.handle is None:
        raise ShuttingDown(CLOSED_MESSAGE)
    batch = PackedBatch.pack(token_ids)
    return batch.token_ids, batch.cu_seqlens, bound.handle


def _in_time(options: CallOptions) -> dict[str, Any]:
    return {"deadline_us": options.remaining_us, "priority": options.priority}


def _nothing(instructions: int, candidates: int) -> Answers:
    times = np.zeros((2, instructions), np.int64)
    return Answers(np.empty((instructions, candidates), np.float32), times[0], times[1])


def _plain_table(table: CandidateTable, version: int) -> _core.CandidateTable:
    return _core.CandidateTable(table, len(table), table.inquiry_start.shape[-1], version)


def _batch_call(executor: Executor) -> _BatchCall:
    """What the scheduler calls. Knows neither engine nor dispatcher: the garbage collector cannot see who holds it."""

    def score(token_ids: np.ndarray, cu_seqlens: np.ndarray, table: CandidateTable) -> np.ndarray:
        return executor.score(PackedBatch(token_ids, cu_seqlens), table)

    return score
