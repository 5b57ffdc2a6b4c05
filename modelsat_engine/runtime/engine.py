"""The engine: loads a router, keeps its zoo, scores and routes instructions from any number of threads and loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile, load_zoo
from modelsat_engine.errors import CandidateError, ExecutorError, OptionError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.call import Call, checked_policy
from modelsat_engine.runtime.call_options import CallOptions, as_list
from modelsat_engine.runtime.candidates import Candidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.decision import RoutingDecision
from modelsat_engine.runtime.dispatch import Answers, Dispatcher
from modelsat_engine.runtime.engine_options import (
    DEFAULT_MAX_QUEUE,
    Mode,
    batch_bounds,
    require_queue_bound,
    require_thread_count,
    usable_cpu_count,
)
from modelsat_engine.runtime.executors import Executor, create_executor
from modelsat_engine.runtime.instruction import Instruction, InstructionTokenizer
from modelsat_engine.runtime.intervals import Intervals, checked_level
from modelsat_engine.runtime.lifetime import Lifetime
from modelsat_engine.runtime.policies import Policy
from modelsat_engine.runtime.statistics import Statistics
from modelsat_engine.runtime.zoo_watcher import ZooFile, ZooWatcher

__all__ = ["Engine", "RoutingDecision"]

# A list is tokenised on the event loop in stretches of about this long, with the loop's other work between them.
_LOOP_STRETCH_US = 1000.0


class Engine:
    """A loaded router. Thread-safe; use :meth:`load` to make one, and close it or use it as a context manager.

    Attributes:
        bundle: the router's files and provenance.
        candidates: the zoo, which may change at any time.
        executor: name of the executor in use.
        threads: threads inside one run of it; one batch runs at a time.
        mode: what batches are made for.
        max_queue: instructions that may wait for the executor.
    """

    def __init__(
        self,
        bundle: Bundle,
        zoo: Iterable[CapabilityProfile],
        executor: Executor,
        threads: int,
        mode: Mode,
        max_queue: int = DEFAULT_MAX_QUEUE,
    ) -> None:
        self.bundle = bundle
        self.threads = threads
        self.mode = mode
        self.max_queue = max_queue
        self._executor = executor
        self._tokenizer = InstructionTokenizer.from_file(
            bundle.file("tokenizer.json"), executor.limits().max_instruction_tokens
        )
        self._statistics = Statistics()
        self._lifetime = Lifetime()
        self._closing = threading.Lock()  # guards _freed
        self._freed = False
        self._dispatcher = Dispatcher(executor, batch_bounds(executor.limits(), mode), max_queue)
        self._encoder = CapabilityEncoder(bundle, self._tokenizer, threads)
        bind = self._dispatcher.bind
        intervals = Intervals(bundle, self._encoder, bind)
        self.candidates = Candidates(zoo, self._encoder, self._lifetime.require_open, bind, intervals.widen)
        self._watcher: ZooWatcher | None = None

    @classmethod
    def load(
        cls,
        path: str | Path | Bundle | None = None,
        *,
        zoo: Iterable[CapabilityProfile] | str | Path | None = None,
        executor: str = "auto",
        threads: int | None = None,
        mode: Mode = "latency",
        max_queue: int = DEFAULT_MAX_QUEUE,
        watch: bool = False,
    ) -> Engine:
        """Load a router.

        Args:
            path: bundle directory, or an opened bundle; None is the router that ships with this package.
            zoo: capability profiles, or the path of a zoo file; None is the bundle's own zoo. May be empty.
            executor: "auto" takes the best one that can be used here; or a name of ``available_executors()``.
            threads: threads inside one run; None is 1 for latency and every usable CPU for throughput.
            mode: "latency" for single requests: batches of at most 4 instructions and 512 tokens (or one of the
                longest instructions, if that is more), so that a request never waits long behind a batch.
                "throughput" for long lists: batches as large as the executor takes.
            max_queue: instructions that may wait for the executor, of all calls together; a longer list than that
                is ``TooLarge``. It bounds memory (2 KB an instruction at most); waiting is bounded by deadlines.
            watch: follow the zoo file: within a second after it changes, its candidates are the engine's, in one step
                and without a pause. A file that is missing, damaged or does not fit leaves the zoo as it was, is
                logged once and shown by :meth:`stats`. ``candidates`` may then be changed through the file alone.

        Raises:
            BundleError: the bundle is incomplete, changed, or of another format version.
            ProfileError, CandidateError: a profile does not fit, or two share a name.
            ExecutorError: the executor is unknown or cannot be used here, or threads or mode is out of range.
            OptionError: max_queue is out of range, or watch without the path of a zoo file.
        """
        if watch and not isinstance(zoo, (str, Path)):
            raise OptionError("watch follows a zoo file; name one: Engine.load(zoo='zoo.json', watch=True)")
        if mode not in get_args(Mode):
            raise ExecutorError(f"mode is {mode!r}; use 'latency' or 'throughput'")
        if threads is None:
            threads = 1 if mode == "latency" else usable_cpu_count()
        require_thread_count(threads)
        require_queue_bound(max_queue)
        bundle = path if isinstance(path, Bundle) else Bundle.load(path)
        if isinstance(zoo, (str, Path)):
            file = ZooFile(zoo)
            zoo = file.load() if watch else load_zoo(zoo)
        zoo = bundle.zoo if zoo is None else zoo
        engine = cls(bundle, zoo, create_executor(executor, bundle, threads), threads, mode, max_queue)
        if watch:
            engine._watcher = ZooWatcher(file, engine.candidates)
            engine._watcher.start()
        return engine

    @property
    def executor(self) -> str:
        """Name of the executor in use."""
        return self._executor.name

    def score(
        self, instructions: Iterable[Instruction], *, deadline_ms: float | None = None, priority: int = 0
    ) -> np.ndarray:
        """Probability of every candidate for every instruction.

        A list is admitted whole or refused whole, and served in turn: who comes later with the same priority waits
        for all of it.

        Args:
            instructions: texts, or conversations in the OpenAI message format; B of them, B >= 0.
            deadline_ms: from now; an answer that is not there by then is not waited for. None waits for as long as it
                takes. Covers the whole list.
            priority: -3 to 3, higher is served earlier; one level is worth 100 ms of waiting.

        Returns:
            float32 ``[B, M]``, C-contiguous, columns in the order of ``engine.candidates.names``.

        Raises:
            InstructionError: one text instead of a list, or an instruction that cannot be read (its index is named).
            OptionError: the deadline or the priority is out of range.
            Overloaded: the queue is full, or too much waits in it for this deadline; said at once.
            TooLarge: the list is longer than the queue.
            DeadlineExceeded: the deadline passed first, or cannot be met any more; said then, also while the executor
                is busy.
            ExecutorError: the executor failed on a batch with one of these instructions.
            ShuttingDown, ForkedProcess: the engine is closed, or was loaded before this process was forked.
        """
        options = CallOptions.of(deadline_ms, priority)
        with self._lifetime.call(), self._counted():
            call = self._begin(as_list(instructions, "score"), options, named=True)
            return self._count(call, self._run(call)).probabilities

    def route(
        self,
        instruction: Instruction,
        *,
        policy: Policy | None = None,
        interval: float | None = None,
        deadline_ms: float | None = None,
        priority: int = 0,
    ) -> RoutingDecision:
        """Choose a candidate for one instruction.

        Args:
            instruction: a text, or a conversation in the OpenAI message format.
            policy: None is :class:`HighestProbability`.
            interval: how sure, such as 0.9, to fill in :attr:`RoutingDecision.intervals`: sixteen more rows a candidate
                are scored in the same pass, and a candidate's are encoded when the first interval is asked for.
            deadline_ms, priority: see :meth:`score`.

        Raises:
            InstructionError: the instruction cannot be read.
            CandidateError: the zoo is empty.
            PolicyError: the policy needs a price that a candidate lacks.
            OptionError, Overloaded, TooLarge, DeadlineExceeded, ExecutorError, ShuttingDown, ForkedProcess: as
                :meth:`score`.
        """
        options = CallOptions.of(deadline_ms, priority)
        with self._lifetime.call(), self._counted():
            policy = checked_policy(policy)
            call = self._begin([instruction], options, named=False, routes=True, interval=checked_level(interval))
            return self._decide(call, self._run(call), policy)[0]

    def route_many(
        self,
        instructions: Iterable[Instruction],
        *,
        policy: Policy | None = None,
        interval: float | None = None,
        deadline_ms: float | None = None,
        priority: int = 0,
    ) -> list[RoutingDecision]:
        """Choose a candidate for each of many instructions; all see the same snapshot of the zoo.

        Raises:
            InstructionError: one text instead of a list, or an instruction that cannot be read (its index is named).
            CandidateError, PolicyError: as :meth:`route`.
            OptionError, Overloaded, TooLarge, DeadlineExceeded, ExecutorError, ShuttingDown, ForkedProcess: as
                :meth:`score`.
        """
        options = CallOptions.of(deadline_ms, priority)
        with self._lifetime.call(), self._counted():
            policy = checked_policy(policy)
            call = self._begin(
                as_list(instructions, "route_many"), options, named=True, routes=True, interval=checked_level(interval)
            )
            return self._decide(call, self._run(call), policy)

    async def ascore(
        self, instructions: Iterable[Instruction], *, deadline_ms: float | None = None, priority: int = 0
    ) -> np.ndarray:
        """:meth:`score` on the running event loop. Cancelling the awaiting task cancels its requests."""
        options = CallOptions.of(deadline_ms, priority)
        self._lifetime.require_open()
        with self._counted():
            call = self._begin(as_list(instructions, "ascore"), options, named=True)
            return self._count(call, await self._arun(call)).probabilities

    async def aroute(
        self,
        instruction: Instruction,
        *,
        policy: Policy | None = None,
        interval: float | None = None,
        deadline_ms: float | None = None,
        priority: int = 0,
    ) -> RoutingDecision:
        """:meth:`route` on the running event loop. Cancelling the awaiting task cancels its request."""
        options = CallOptions.of(deadline_ms, priority)
        self._lifetime.require_open()
        with self._counted():
            policy = checked_policy(policy)
            call = self._begin([instruction], options, named=False, routes=True, interval=checked_level(interval))
            return self._decide(call, await self._arun(call), policy)[0]

    def stats(self) -> dict[str, Any]:
        """What happened since the engine was loaded; readable after it was closed.

        Returns:
            Of calls: requests, instructions, tokens (after cuts), truncated, errors; latency_us (n, mean, p50, p90,
            p99, max, buckets).

            Of the scheduler, in instructions: queued_requests, queued_tokens, prefetched_requests, executing_requests
            now; accepted, accepted_tokens, rejected and answered by reason, cancelled, late (late_in_queue,
            late_in_execution), batches, failed_batches since the start; histograms batch_requests, batch_tokens,
            batch_fill_percent, queue_us, execute_us (count, sum, max, p50, p90, p99, buckets).

            And table_version, candidates, executor, executor_fallback (why another executor has taken over from the
            one that was opened, or None), bundle, mode, threads, max_queue; capabilities (encoded, from_memory,
            from_disk); zoo_file, None or of the file that is watched: path, loads, failures, error (of
            its current content, or None).

        Raises:
            ForkedProcess: the engine was loaded before this process was forked.
        """
        self._lifetime.require_same_process()
        table = self.candidates.table
        return {
            **self._statistics.to_json(),
            **self._dispatcher.stats(),
            "table_version": table.version,
            "candidates": len(table),
            "executor": self.executor,
            "executor_fallback": getattr(self._executor, "fallback_reason", None),
            "bundle": self.bundle.label,
            "mode": self.mode,
            "threads": self.threads,
            "max_queue": self.max_queue,
            "capabilities": self._encoder.stats(),
            "zoo_file": None if self._watcher is None else self._watcher.stats(),
        }

    def warmup(self) -> None:
        """Run a short, some usual and the longest instruction, so that the first request finds everything loaded.

        Raises:
            Overloaded, ExecutorError, ShuttingDown, ForkedProcess: as :meth:`score`.
        """
        with self._lifetime.call():
            for words in (4, 60, self._tokenizer.max_tokens, 60):
                self._run(self._begin(["a " * words], CallOptions.of(None, 0), named=False))

    def close(self) -> None:
        """Let the requests in flight finish, then free everything. Closing twice is fine.

        New calls are refused from now on. Blocking calls in flight are answered in full, and so is everything that
        the scheduler has accepted of calls on event loops. In a forked child it does nothing: the threads stayed in
        the parent.
        """
        if self._lifetime.forked:
            return
        self._lifetime.shut()
        with self._closing:
            if not self._freed:
                if self._watcher is not None:
                    self._watcher.stop()
                self._dispatcher.close()
                self.candidates.release()
                self._executor.close()
                self._freed = True

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._lifetime.closed else f"{len(self.candidates)} candidates"
        return f"Engine({self.bundle.label}, {state}, {self.executor})"

    def _begin(
        self,
        instructions: list[Instruction],
        options: CallOptions,
        *,
        named: bool,
        routes: bool = False,
        interval: float | None = None,
    ) -> Call:
        """A call over the zoo of this moment."""
        bound = self.candidates.bound
        if interval is not None:
            self.candidates.wide(bound)
        call = Call(options, bound, instructions, named, interval)
        if len(bound.table):
            # A refusal should be cheap, so it comes before the work of tokenising.
            self._dispatcher.ask(len(instructions), call.scored.table, options)
        elif routes:
            raise CandidateError("the zoo is empty: add a candidate before routing")
        return call

    def _run(self, call: Call) -> Answers:
        for _ in call.tokenise(self._tokenizer):
            pass
        return self._dispatcher.score(call.token_ids, call.scored, call.options)

    async def _arun(self, call: Call) -> Answers:
        stretch_us = 0.0
        for took_us in call.tokenise(self._tokenizer):
            stretch_us += took_us
            if stretch_us > _LOOP_STRETCH_US and len(call.tokenised) < len(call.instructions):
                stretch_us = 0.0
                await asyncio.sleep(0)
        return await self._dispatcher.ascore(call.token_ids, call.scored, call.options)

    def _decide(self, call: Call, answers: Answers, policy: Policy) -> list[RoutingDecision]:
        decisions = call.decide(answers, policy, self.bundle.label, self.executor)
        self._count(call, answers)
        return decisions

    def _count(self, call: Call, answers: Answers) -> Answers:
        """Count a call that was answered."""
        self._statistics.answered(
            instructions=len(call.tokenised),
            tokens=sum(len(instruction.token_ids) for instruction in call.tokenised),
            truncated=sum(instruction.truncated for instruction in call.tokenised),
            latency_us=call.options.elapsed_us,
        )
        return answers

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the call as failed if it ends in an error."""
        try:
            yield
        except BaseException:
            self._statistics.failed()
            raise
