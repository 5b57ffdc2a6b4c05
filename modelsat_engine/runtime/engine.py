"""The engine: loads a router, keeps its zoo, scores and routes instructions from any number of threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile, load_zoo
from modelsat_engine.errors import CandidateError, ExecutorError, InstructionError, PolicyError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.candidates import Candidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.decision import RoutingDecision
from modelsat_engine.runtime.executors import Executor, PackedBatch, create_executor
from modelsat_engine.runtime.instruction import Instruction, InstructionTokenizer, TokenisedInstruction
from modelsat_engine.runtime.policies import HighestProbability, Policy
from modelsat_engine.runtime.statistics import Statistics

__all__ = ["Engine", "RoutingDecision"]

Mode = Literal["latency", "throughput"]
_T = TypeVar("_T")
_DEFAULT_POLICY = HighestProbability()


@dataclass
class _Timing:
    """Where the time of one call went, in us."""

    started: float
    queue_us: float = 0.0
    execute_us: float = 0.0

    @property
    def total_us(self) -> float:
        return (time.perf_counter() - self.started) * 1e6


class Engine:
    """A loaded router. Thread-safe; use :meth:`load` to make one, and close it or use it as a context manager.

    Attributes:
        bundle: the router's files and provenance.
        candidates: the zoo, which may change at any time.
        executor: name of the executor in use.
        threads: threads inside one run of it.
    """

    def __init__(
        self, bundle: Bundle, zoo: Iterable[CapabilityProfile], executor: Executor, threads: int, mode: Mode
    ) -> None:
        self.bundle = bundle
        self.threads = threads
        self.mode = mode
        self._executor = executor
        self._tokenizer = InstructionTokenizer.from_file(
            bundle.file("tokenizer.json"), executor.limits().max_instruction_tokens
        )
        self._statistics = Statistics()
        self._state = threading.Condition()  # guards _closed, _in_flight, _pool
        self._closed = False
        self._in_flight = 0
        self._pool: ThreadPoolExecutor | None = None
        # More runs at once than processors would only slow each other down; the rest wait, which is the queue time.
        self._concurrency = max(1, _usable_cpu_count() // threads)
        self._turn = threading.BoundedSemaphore(self._concurrency)
        self.candidates = Candidates(zoo, CapabilityEncoder(bundle, self._tokenizer, threads), self._require_open)

    @classmethod
    def load(
        cls,
        path: str | Path | Bundle | None = None,
        *,
        zoo: Iterable[CapabilityProfile] | str | Path | None = None,
        executor: str = "auto",
        threads: int | None = None,
        mode: Mode = "latency",
    ) -> Engine:
        """Load a router.

        Args:
            path: bundle directory, or an opened bundle; None is the router that ships with this package.
            zoo: capability profiles, or the path of a zoo file; None is the bundle's own zoo. May be empty.
            executor: "auto" takes the best one that can be used here; or a name of ``available_executors()``.
            threads: threads inside one run; None is 1 for latency and every usable CPU for throughput.
            mode: "latency" for single requests, "throughput" for long lists.

        Raises:
            BundleError: the bundle is incomplete, changed, or of another format version.
            ProfileError, CandidateError: a profile does not fit, or two share a name.
            ExecutorError: the executor is unknown or cannot be used here, or threads or mode is out of range.
        """
        if mode not in get_args(Mode):
            raise ExecutorError(f"mode is {mode!r}; use 'latency' or 'throughput'")
        if threads is None:
            threads = 1 if mode == "latency" else _usable_cpu_count()
        _require_thread_count(threads)
        bundle = path if isinstance(path, Bundle) else Bundle.load(path)
        if zoo is None:
            zoo = bundle.zoo
        elif isinstance(zoo, (str, Path)):
            zoo = load_zoo(zoo)
        return cls(bundle, zoo, create_executor(executor, bundle, threads), threads, mode)

    @property
    def executor(self) -> str:
        """Name of the executor in use."""
        return self._executor.name

    def score(self, instructions: Iterable[Instruction]) -> np.ndarray:
        """Probability of every candidate for every instruction.

        Args:
            instructions: texts, or conversations in the OpenAI message format; B of them, B >= 0.

        Returns:
            float32 ``[B, M]``, C-contiguous, columns in the order of ``engine.candidates.names``.

        Raises:
            InstructionError: one text instead of a list, or an instruction that cannot be read (its index is named).
            ExecutorError: the engine is closed, or the executor failed.
        """
        with _InFlight(self):
            return self._score(instructions)

    def route(self, instruction: Instruction, *, policy: Policy | None = None) -> RoutingDecision:
        """Choose a candidate for one instruction.

        Args:
            instruction: a text, or a conversation in the OpenAI message format.
            policy: None is :class:`HighestProbability`.

        Raises:
            InstructionError: the instruction cannot be read.
            CandidateError: the zoo is empty.
            PolicyError: the policy needs a price that a candidate lacks.
            ExecutorError: the engine is closed, or the executor failed.
        """
        with _InFlight(self):
            return self._route([instruction], policy, named=False)[0]

    def route_many(self, instructions: Iterable[Instruction], *, policy: Policy | None = None) -> list[RoutingDecision]:
        """Choose a candidate for each of many instructions; all see the same snapshot of the zoo.

        Raises:
            InstructionError: one text instead of a list, or an instruction that cannot be read (its index is named).
            CandidateError, PolicyError, ExecutorError: as :meth:`route`.
        """
        with _InFlight(self):
            return self._route(instructions, policy, named=True)

    async def ascore(self, instructions: Iterable[Instruction]) -> np.ndarray:
        """:meth:`score` without blocking the event loop."""
        return await self._in_thread(lambda: self._score(instructions))

    async def aroute(self, instruction: Instruction, *, policy: Policy | None = None) -> RoutingDecision:
        """:meth:`route` without blocking the event loop."""
        return await self._in_thread(lambda: self._route([instruction], policy, named=False)[0])

    def stats(self) -> dict[str, Any]:
        """What happened since the engine was loaded.

        Returns:
            requests (calls), instructions, tokens (after cuts), truncated, errors; latency_us of calls (n, mean, p50,
            p90, p99, max, buckets); table_version, candidates, executor, bundle, mode, threads.
        """
        table = self.candidates.table
        return {
            **self._statistics.to_json(),
            "table_version": table.version,
            "candidates": len(table),
            "executor": self.executor,
            "bundle": self.bundle.label,
            "mode": self.mode,
            "threads": self.threads,
        }

    def warmup(self) -> None:
        """Run a short, a usual and the longest instruction once, so that the first request finds everything loaded.

        Raises:
            ExecutorError: the engine is closed, or the executor failed.
        """
        with _InFlight(self):
            for words in (4, 60, self._tokenizer.max_tokens):
                tokenised = self._tokenizer.tokenise("a " * words)
                self._run([tokenised], self.candidates.table, _Timing(time.perf_counter()))

    def close(self) -> None:
        """Let the requests in flight finish, then free everything. Closing twice is fine."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: self._in_flight == 0)
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
        self._executor.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.candidates)} candidates"
        return f"Engine({self.bundle.label}, {state}, {self.executor})"

    def _score(self, instructions: Iterable[Instruction]) -> np.ndarray:
        timing = _Timing(time.perf_counter())
        try:
            tokenised, _ = self._tokenise(_as_list(instructions, "score"), named=True)
            scores = self._run(tokenised, self.candidates.table, timing)
        except BaseException:
            self._statistics.failed()
            raise
        self._count(tokenised, timing)
        return scores

    def _route(
        self, instructions: Iterable[Instruction], policy: Policy | None, *, named: bool
    ) -> list[RoutingDecision]:
        timing = _Timing(time.perf_counter())
        policy = _DEFAULT_POLICY if policy is None else policy
        try:
            if not callable(getattr(policy, "choose", None)) or isinstance(policy, type):
                raise PolicyError(f"policy is {policy!r}; use a policy such as CheapestAbove(threshold=0.7)")
            table = self.candidates.table
            if not len(table):
                raise CandidateError("the zoo is empty: add a candidate before routing")
            tokenised, tokenise_us = self._tokenise(_as_list(instructions, "route_many"), named=named)
            scores = self._run(tokenised, table, timing)  # [B, M]
            columns = np.asarray(policy.choose(scores, table))  # [B]
            if columns.shape != (len(tokenised),) or ((columns < 0) | (columns >= len(table))).any():
                raise PolicyError(f"{policy} must choose one of {len(table)} columns for each instruction")
        except BaseException:
            self._statistics.failed()
            raise
        total_us = self._count(tokenised, timing)
        return [
            RoutingDecision(
                candidate=table.names[column],
                probability=row[column],
                probabilities=dict(zip(table.names, row, strict=True)),
                policy=repr(policy),
                timing_us={
                    "tokenise": round(own_us, 1),
                    "queue": round(timing.queue_us, 1),
                    "execute": round(timing.execute_us, 1),
                    "total": round(total_us, 1),
                },
                truncated=instruction.truncated,
                instruction_tokens=instruction.total_tokens,
                ignored_parts=instruction.ignored_parts,
                bundle=self.bundle.label,
                executor=self.executor,
            )
            for instruction, own_us, column, row in zip(
                tokenised, tokenise_us, columns.tolist(), scores.tolist(), strict=True
            )
        ]

    def _tokenise(
        self, instructions: Sequence[Instruction], *, named: bool
    ) -> tuple[list[TokenisedInstruction], list[float]]:
        """Tokenise each; also how long each took, in us."""
        tokenised: list[TokenisedInstruction] = []
        took_us: list[float] = []
        for index, instruction in enumerate(instructions):
            started = time.perf_counter()
            try:
                tokenised.append(self._tokenizer.tokenise(instruction))
            except InstructionError as error:
                raise InstructionError(f"instruction {index}: {error}") if named else error from None
            took_us.append((time.perf_counter() - started) * 1e6)
        return tokenised, took_us

    def _run(self, instructions: Sequence[TokenisedInstruction], table: CandidateTable, timing: _Timing) -> np.ndarray:
        """Score instructions in batches that keep the executor's limits -> float32 ``[B, M]``."""
        scores = np.empty((len(instructions), len(table)), np.float32)  # [B, M]
        limits = self._executor.limits()
        start = 0
        while start < len(instructions):
            stop, tokens = start, 0
            while stop < len(instructions) and stop - start < limits.max_batch_requests:
                tokens += len(instructions[stop].token_ids)
                if tokens > limits.max_batch_tokens and stop > start:
                    break
                stop += 1
            batch = PackedBatch.pack([instruction.token_ids for instruction in instructions[start:stop]])
            queued = time.perf_counter()
            with self._turn:
                began = time.perf_counter()
                scores[start:stop] = self._execute(batch, table)
            timing.queue_us += (began - queued) * 1e6
            timing.execute_us += (time.perf_counter() - began) * 1e6
            start = stop
        return scores

    def _execute(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """The one place that calls the executor: score a batch and check what came back."""
        scores = self._executor.score(batch, table)
        if scores.shape != (len(batch), len(table)):
            raise ExecutorError(
                f"executor {self.executor} gave an array {scores.shape} for {len(batch)} instructions and "
                f"{len(table)} candidates; report this as a bug of the executor"
            )
        wrong = ~((scores >= 0) & (scores <= 1))  # true for NaN too
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ExecutorError(
                f"executor {self.executor} gave the probability {scores[row, column]} for {table.names[column]!r}: the "
                "bundle or its runtime is broken; run 'modelsat doctor'"
            )
        return scores

    def _count(self, instructions: Sequence[TokenisedInstruction], timing: _Timing) -> float:
        total_us = timing.total_us
        self._statistics.answered(
            instructions=len(instructions),
            tokens=sum(len(instruction.token_ids) for instruction in instructions),
            truncated=sum(instruction.truncated for instruction in instructions),
            latency_us=total_us,
        )
        return total_us

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        """Run ``call`` in the pool. A cancelled caller frees its place; work already begun runs to its end."""
        self._enter()
        try:
            with self._state:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(2 * self._concurrency, thread_name_prefix="modelsat")
                future: Future[_T] = self._pool.submit(call)
        except BaseException:
            self._leave()
            raise
        future.add_done_callback(lambda _: self._leave())
        return await asyncio.wrap_future(future)

    def _enter(self) -> None:
        with self._state:
            self._require_open()
            self._in_flight += 1

    def _leave(self) -> None:
        with self._state:
            self._in_flight -= 1
            self._state.notify_all()

    def _require_open(self) -> None:
        if self._closed:
            raise ExecutorError("the engine is closed; load another one with Engine.load()")


class _InFlight:
    """One call that ``close`` waits for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine._enter()

    def __exit__(self, *_: object) -> None:
        self._engine._leave()


def _as_list(instructions: Iterable[Instruction], method: str) -> list[Instruction]:
    """The instructions of a call that takes many; one alone is refused, since a str is also a list of letters."""
    if isinstance(instructions, str):
        raise InstructionError(f"{method} takes a list of instructions; for one, write engine.{method}([text])")
    if isinstance(instructions, (bytes, bytearray, Mapping)) or not isinstance(instructions, Iterable):
        raise InstructionError(f"{method} takes a list of instructions, not {type(instructions).__name__}")
    listed = list(instructions)
    if listed and isinstance(listed[0], Mapping):
        raise InstructionError(
            f"{method} takes a list of conversations; for one list of chat messages, write engine.{method}([messages])"
        )
    return listed


def _require_thread_count(threads: object) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ExecutorError(f"threads is {threads!r}; use a whole number of 1 or more, or None")


def _usable_cpu_count() -> int:
    """CPUs this process may use at once, by affinity and cgroup quota."""
    from modelsat_engine import _core

    return _core.usable_cpu_count()
