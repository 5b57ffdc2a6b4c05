"""Captures passes as CUDA graphs, one per bucket, and brings zoos to the device; C++ launches what is made here."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda_buckets import Ladder, write_inputs
from modelsat_engine.runtime.executors.cuda_fallback import CreateLauncher, LoadedTable
from modelsat_engine.runtime.executors.cuda_forward import Buffers, Forward
from modelsat_engine.runtime.executors.cuda_weights import DeviceCandidates, Weights

_CAPTURING = threading.Lock()  # PyTorch captures one graph at a time in a process
_NO_INSTRUCTION = PackedBatch(np.empty(0, np.int32), np.zeros(1, np.int32))


class CudaPasses:
    """The passes and snapshots of one router on one device. Thread-safe.

    Everything here works on a stream of its own and is through before it is handed out: what is launched meanwhile
    neither waits for it nor sees half of it.

    Args:
        weights: on the device.
        ladder: the sizes to capture.

    Raises:
        ExecutorError: this PyTorch does not tell its graphs' handles.
        RuntimeError: PyTorch or Triton failed; torch.OutOfMemoryError is one of them.
    """

    def __init__(self, weights: Weights, ladder: Ladder) -> None:
        if not hasattr(torch.cuda.CUDAGraph, "raw_cuda_graph_exec"):
            raise ExecutorError(f"PyTorch {torch.__version__} is too old for executor 'cuda'; install 2.10 or later")
        self._weights, self._ladder = weights, ladder
        self._stream = torch.cuda.Stream(weights.device)
        self._zoos: dict[int, _core.CudaZoo] = {}
        torch.cuda.synchronize(weights.device)  # the weights came on another stream

    def launcher(self, create: CreateLauncher) -> _core.CudaGraphExecutor:
        """What launches the passes, in this device's context.

        Raises:
            RuntimeError: the driver is too old, or refuses.
        """
        with torch.cuda.device(self._weights.device):
            return create(str(self._weights.dtype).removeprefix("torch."))

    def warm(self, candidates: int) -> None:
        """Compile every kernel, and capture the passes for a zoo of that size."""
        with self._at_work():
            self._zoo(self._ladder.candidates(candidates))

    def load(self, table: CandidateTable) -> LoadedTable:
        """Bring a snapshot to the device, M >= 1, and capture what reads it where its size is new.

        Raises:
            ExecutorError: the table belongs to another router, or is not finite.
            RuntimeError: PyTorch or Triton failed.
        """
        room = self._ladder.candidates(len(table))
        with self._at_work():
            zoo = self._zoo(room)
            candidates = DeviceCandidates.empty(self._weights, room * self._weights.config.views)
            candidates.load(self._weights, table)
            self._stream.synchronize()
        return LoadedTable(zoo, [region.data_ptr() for region in candidates.regions], candidates)

    def release(self) -> None:
        """Give up what was captured: the last who holds it frees it, or nobody where the device answers no more."""
        with _CAPTURING:
            self._keep_unless_the_device_answers()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Whoever captures or loads does so alone, on the stream of these passes."""
        with _CAPTURING:
            try:
                with torch.cuda.device(self._weights.device), torch.cuda.stream(self._stream):
                    yield
            except Exception as error:
                self._keep_unless_the_device_answers(error)  # its frames hold what was being made
                raise

    def _keep_unless_the_device_answers(self, *more: object) -> None:
        """PyTorch ends the process when page-locked memory is freed that a device used which has failed since: the
        event that it records then fails, in a destructor. So there nothing is freed, not even when Python ends."""
        try:
            torch.cuda.synchronize(self._weights.device)
        except Exception:  # PyTorch has several classes for it
            for kept in (self, *more):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))

    def _zoo(self, room: int) -> _core.CudaZoo:
        """The passes for zoos of one size, captured when it is first asked for."""
        zoo = self._zoos.get(room)
        if zoo is None:
            zoo = self._zoos[room] = self._capture(room)
        return zoo

    def _capture(self, room: int) -> _core.CudaZoo:
        largest = self._ladder.largest(room)
        candidates = DeviceCandidates.empty(self._weights, room * self._weights.config.views)
        buffers = Buffers(self._weights, largest)
        # of the CPU whatever PyTorch's default device is; read and written by the device while a caller waits
        inputs = torch.zeros(largest.inputs, dtype=torch.int32, device="cpu").pin_memory()
        scores = torch.zeros(largest.requests * largest.candidates, device="cpu").pin_memory()
        pool = torch.cuda.graph_pool_handle()  # one for all: they never run at the same time
        graphs, passes = [], []
        for bucket in self._ladder.buckets(room):
            forward = Forward(self._weights, candidates, buffers, bucket, self._ladder.max_instruction_tokens)

            def queue(forward: Forward = forward) -> None:
                forward.inputs.copy_(inputs[: len(forward.inputs)], non_blocking=True)
                forward.run()
                flat = forward.probability.view(-1)
                scores[: len(flat)].copy_(flat, non_blocking=True)

            # before the first run, which must read numbers
            write_inputs(_NO_INSTRUCTION, bucket, inputs.numpy()[: bucket.inputs])
            graph = self._record(queue, pool)
            graphs.append(graph)
            passes.append((bucket.requests, bucket.tokens, graph.raw_cuda_graph_exec()))
        return _core.CudaZoo(
            (graphs, buffers, candidates, inputs, scores, self._weights),
            candidates=room,
            inputs=inputs.data_ptr(),
            scores=scores.data_ptr(),
            regions=[(region.data_ptr(), region.nbytes) for region in candidates.regions],
            passes=passes,
        )

    def _record(self, queue: Callable[[], None], pool: Any) -> torch.cuda.CUDAGraph:
        """What `queue` queues, as a graph that is ready on the device."""
        queue()  # compiles and loads what a capture may not
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            queue()
        graph.replay()  # the first launch brings the graph to the device; no request shall wait for that
        self._stream.synchronize()
        return graph
