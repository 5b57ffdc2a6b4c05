"""An engine whose executor waits at a gate, so that tests decide when a batch ends instead of waiting for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.engine import Engine
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch

TIMEOUT_S = 60.0  # only reached by a failure


class GateExecutor:
    """Answers an instruction of S tokens with S / 100 once it is open; tells when a batch has come in."""

    name = "gate"

    def __init__(self, *, is_open: bool = True, max_batch_requests: int = 4) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self._limits = ExecutorLimits(max_batch_requests, max_batch_tokens=100, max_instruction_tokens=64)
        if is_open:
            self.opened.set()

    def limits(self) -> ExecutorLimits:
        return self._limits

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        self.batches.append(batch.lengths.tolist())
        self.entered.release()
        assert self.opened.wait(TIMEOUT_S)
        return np.repeat(batch.lengths[:, None].astype(np.float32) / 100, len(table), axis=1)

    def close(self) -> None:
        pass


class Gated:
    """An engine whose executor is held at a gate, and threads that call it."""

    def __init__(self, bundle: Bundle, *, max_queue: int = 4096, max_batch_requests: int = 4) -> None:
        self.executor = GateExecutor(is_open=False, max_batch_requests=max_batch_requests)
        self.engine = Engine(bundle, bundle.zoo, self.executor, 1, "latency", max_queue)
        self._threads = ThreadPoolExecutor(32)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        return self._threads.submit(function, *args, **options)

    def occupy(self) -> Future[Any]:
        """A request that is at the executor when this returns."""
        busy = self.call(self.engine.route, words(1))
        assert self.executor.entered.acquire(timeout=TIMEOUT_S)
        return busy

    def enqueue(self, length: int, **options: Any) -> Future[Any]:
        """A request of ``length`` words that waits in the queue when this returns."""
        before = self.engine.stats()["accepted"]
        waiting = self.call(self.engine.route, words(length), **options)
        self.until(lambda: self.engine.stats()["accepted"] > before)
        return waiting

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end
            os.sched_yield()

    def end(self) -> None:
        self.executor.opened.set()
        self._threads.shutdown()
        self.engine.close()


def words(count: int) -> str:
    """A text of ``count`` words, which are ``count + 2`` tokens."""
    return "a " * count
