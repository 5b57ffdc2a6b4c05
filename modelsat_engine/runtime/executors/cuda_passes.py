"""Passes captured as CUDA graphs, one per bucket: a batch is one copy in, one graph, one copy out, on one stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.errors import ExecutorError
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda_buckets import Bucket, Ladder, split, write_inputs
from modelsat_engine.runtime.executors.cuda_forward import Buffers, Forward
from modelsat_engine.runtime.executors.cuda_weights import DeviceCandidates, Weights


@dataclass
class _Zoo:
    """All that belongs to one size of zoo: graphs read candidates and buffers at fixed addresses.

    Attributes:
        candidates: what graphs read; `resident` is the snapshot that lies there.
    """

    candidates: DeviceCandidates
    buffers: Buffers
    resident: ref[CandidateTable] | None = None
    graphs: dict[Bucket, torch.cuda.CUDAGraph] = field(default_factory=dict)


class CudaPasses:
    """Scores packed batches on one device; not thread-safe.

    Args:
        weights: on the device.
        ladder: the sizes to capture.

    Raises:
        RuntimeError: PyTorch or Triton failed; torch.OutOfMemoryError is one of them.
    """

    def __init__(self, weights: Weights, ladder: Ladder) -> None:
        self._weights, self._ladder = weights, ladder
        self._stream = torch.cuda.Stream(weights.device)
        self._zoos: dict[int, _Zoo] = {}
        self._loaded: WeakKeyDictionary[CandidateTable, DeviceCandidates] = WeakKeyDictionary()
        # Read and written by the device while the host waits, so one of each is enough
        self._host_inputs = torch.empty(0, dtype=torch.int32)
        self._host_scores = torch.empty(0)
        torch.cuda.synchronize(weights.device)  # the weights came on another stream

    def warm(self, candidates: int) -> None:
        """Compile every kernel and capture the usual buckets for a zoo of that size."""
        room = self._ladder.candidates(candidates)
        with torch.cuda.device(self._weights.device), torch.cuda.stream(self._stream):
            zoo = self._zoo(room)
            for bucket in self._ladder.usual(room):
                self._graph(zoo, bucket)

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Probabilities float32 ``[B, M]``, M >= 1; the host waits for the device once per pass, at its end.

        Raises:
            ExecutorError: the arithmetic overflowed, or the table belongs to another router.
            RuntimeError: PyTorch or Triton failed.
        """
        scores = np.empty((len(batch), len(table)), np.float32)
        room = self._ladder.candidates(len(table))
        with torch.cuda.device(self._weights.device), torch.cuda.stream(self._stream):
            zoo = self._zoo(room)
            self._make_resident(zoo, table, room)
            for place, part in split(batch, self._ladder.requests_per_pass(room)):
                scores[place] = self._pass(zoo, part, room)[: len(part), : len(table)]
        if not np.isfinite(scores).all():
            raise ExecutorError(
                f"the network's arithmetic overflowed in {str(self._weights.dtype).removeprefix('torch.')}; set "
                "MODELSAT_CUDA_DTYPE=bfloat16, or use executor='native'"
            )
        return scores

    def _pass(self, zoo: _Zoo, part: PackedBatch, room: int) -> np.ndarray:
        bucket = self._ladder.bucket(len(part), len(part.token_ids), room)
        graph = self._graph(zoo, bucket)
        write_inputs(part, bucket, self._host_inputs.numpy()[: bucket.inputs])
        graph.replay()
        self._stream.synchronize()
        count = bucket.requests * bucket.candidates
        return self._host_scores.numpy()[:count].reshape(bucket.requests, bucket.candidates)

    def _zoo(self, room: int) -> _Zoo:
        zoo = self._zoos.get(room)
        if zoo is None:
            largest = self._ladder.largest(room)
            rows = room * self._weights.config.views
            zoo = _Zoo(DeviceCandidates.empty(self._weights, rows), Buffers(self._weights, largest))
            self._make_room(largest)
            self._zoos[room] = zoo
        return zoo

    def _make_room(self, largest: Bucket) -> None:
        """Pinned memory for the largest pass; graphs hold its address, so those of smaller zoos are captured again."""
        scores = largest.requests * largest.candidates
        if largest.inputs <= len(self._host_inputs) and scores <= len(self._host_scores):
            return
        self._stream.synchronize()
        self._host_inputs = torch.zeros(max(largest.inputs, len(self._host_inputs)), dtype=torch.int32).pin_memory()
        self._host_scores = torch.zeros(max(scores, len(self._host_scores))).pin_memory()
        for other in self._zoos.values():
            other.graphs.clear()

    def _make_resident(self, zoo: _Zoo, table: CandidateTable, room: int) -> None:
        """Bring a snapshot to where the graphs read it; work queued before still sees the one before."""
        if zoo.resident is not None and zoo.resident() is table:
            return
        loaded = self._loaded.get(table)
        if loaded is None:
            loaded = DeviceCandidates.empty(self._weights, room * self._weights.config.views)
            loaded.load(self._weights, table)
            self._loaded[table] = loaded
        zoo.candidates.copy_from(loaded)
        zoo.resident = ref(table)

    def _graph(self, zoo: _Zoo, bucket: Bucket) -> torch.cuda.CUDAGraph:
        graph = zoo.graphs.get(bucket)
        if graph is None:
            forward = Forward(self._weights, zoo.candidates, zoo.buffers, bucket, self._ladder.max_instruction_tokens)
            # before the first run, which must read numbers
            write_inputs(_NO_INSTRUCTION, bucket, self._host_inputs.numpy()[: bucket.inputs])
            self._queue(forward)  # compiles and loads what a capture may not
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._queue(forward)
            zoo.graphs[bucket] = graph
        return graph

    def _queue(self, forward: Forward) -> None:
        forward.inputs.copy_(self._host_inputs[: len(forward.inputs)], non_blocking=True)
        forward.run()
        flat: Tensor = forward.probability.view(-1)
        self._host_scores[: len(flat)].copy_(flat, non_blocking=True)


_NO_INSTRUCTION = PackedBatch(np.empty(0, np.int32), np.zeros(1, np.int32))
