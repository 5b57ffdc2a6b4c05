"""Passes of a TensorRT engine: a batch is one copy in, one captured graph, one copy out, on one stream."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import tensorrt

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.tensorrt.engine_file import EngineIdentity
from modelsat_engine.export.tensorrt.logger import quiet_logger
from modelsat_engine.export.tensorrt.profiles import Bucket, RouterSizes, bucket_for, profile_index, usual_buckets
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda_host import (
    CapturedGraph,
    CudaError,
    DeviceBuffer,
    PinnedBuffer,
    Stream,
    use_device,
)
from modelsat_engine.runtime.executors.tensorrt_batches import groups_of, write_padded

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Some columns of a snapshot, on the device.

    Attributes:
        columns: their place. room: candidates that fit, padding included.
        buffers: input name -> its rows; padding is zeros.
    """

    columns: slice
    room: int
    buffers: Mapping[str, DeviceBuffer]


@dataclass(eq=False)
class _Zoo:
    """What passes over one size of zoo share: they read candidates at fixed addresses.

    Attributes:
        resident: whose rows lie there.
    """

    inputs: Mapping[str, DeviceBuffer]
    resident: _Chunk | None = None
    passes: dict[Bucket, _Pass] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One bucket. A context of its own: a graph is tied to the state of the context that it was captured from.

    Attributes:
        graph: None where TensorRT queues something that cannot be captured; it is queued anew each time then.
    """

    context: tensorrt.IExecutionContext
    graph: CapturedGraph | None


class TensorRtPasses:
    """Scores packed batches with one engine on the first visible device; not thread-safe.

    Contexts share one piece of device memory for activations, since they run one after the other.

    Args:
        plan: what TensorRT deserialises.
        identity: what the plan depends on.
        sizes: of the router.

    Raises:
        ExecutorError: TensorRT refuses the plan, or it takes other inputs or shapes than its identity states.
        CudaError: the device has not enough memory, or fails.
    """

    def __init__(self, plan: bytes, identity: EngineIdentity, sizes: RouterSizes) -> None:
        use_device(0)
        self._identity, self._sizes, self._profiles = identity, sizes, identity.profiles
        self._logger = quiet_logger()
        self._runtime = tensorrt.Runtime(self._logger)
        # a plan for other versions brings its own runtime as machine code; that of this version does not
        self._runtime.engine_host_code_allowed = identity.version_compatible
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ExecutorError(
                f"TensorRT cannot load the engine: {self._logger.first_error}; build it again: "
                "modelsat export --to tensorrt"
            )
        self._check()
        self._stream = Stream()
        indices = range(len(self._profiles))
        self._activations = DeviceBuffer(
            max(self._engine.get_device_memory_size_for_profile_v2(index) for index in indices)
        )
        largest = self._profiles[-1]
        requests, tokens, candidates = (getattr(largest, axis).largest for axis in ("requests", "tokens", "candidates"))
        self._host_ids = PinnedBuffer(8 * requests * tokens)
        self._host_mask = PinnedBuffer(8 * requests * tokens)
        self._host_scores = PinnedBuffer(4 * requests * candidates)
        self._ids, self._mask = DeviceBuffer(8 * requests * tokens), DeviceBuffer(8 * requests * tokens)
        self._scores = DeviceBuffer(4 * requests * candidates)
        width = int(self._engine.get_tensor_shape("instruction_embedding")[1])
        self._embedding = DeviceBuffer(4 * requests * width)
        self._zoos: dict[int, _Zoo] = {}
        self._loaded: WeakKeyDictionary[CandidateTable, list[_Chunk]] = WeakKeyDictionary()

    def warm(self, candidates: int) -> None:
        """Make every bucket for a zoo of that size, so that no request has to."""
        for bucket in usual_buckets(self._profiles, candidates):
            self._pass(self._zoo(bucket.candidates), bucket)

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Probabilities float32 ``[B, M]``, M >= 1; the host waits for the device once per pass, at its end.

        Raises:
            ExecutorError: the arithmetic overflowed, or a shape is outside the engine's profiles.
            CudaError: the device failed.
        """
        use_device(0)
        scores = np.empty((len(batch), len(table)), np.float32)
        lengths = batch.lengths
        chunks = self._chunks_of(table)
        for members in groups_of(lengths, self._profiles):
            tokens = int(lengths[members].max())
            for chunk in chunks:
                bucket = bucket_for(self._profiles, len(members), tokens, chunk.room)
                scores[members, chunk.columns] = self._run(batch, members, chunk, bucket)
        if not np.isfinite(scores).all():
            raise ExecutorError(
                f"the network's arithmetic overflowed in {self._identity.precision}; build an engine of more range: "
                "modelsat export --to tensorrt --precision bf16"
            )
        return scores

    # -- one pass -----------------------------------------------------------------------------------------------------

    def _run(self, batch: PackedBatch, members: np.ndarray, chunk: _Chunk, bucket: Bucket) -> np.ndarray:
        """Probabilities float32 of some instructions and columns; a copy."""
        zoo = self._zoo(bucket.candidates)
        made = self._pass(zoo, bucket)
        self._make_resident(zoo, chunk)
        shape = (bucket.requests, bucket.tokens)
        write_padded(
            batch, members, bucket, self._host_ids.view(np.int64, shape), self._host_mask.view(np.int64, shape)
        )
        if made.graph is None:
            self._queue(made.context, bucket)
        else:
            self._stream.launch(made.graph)
        self._stream.synchronize()
        scores = self._host_scores.view(np.float32, (bucket.requests, bucket.candidates))
        count: int = chunk.columns.stop - chunk.columns.start
        found: np.ndarray = scores[: len(members), :count].copy()
        return found

    def _pass(self, zoo: _Zoo, bucket: Bucket) -> _Pass:
        made = zoo.passes.get(bucket)
        if made is None:
            made = zoo.passes[bucket] = self._capture(self._context(zoo, bucket), bucket)
        return made

    def _context(self, zoo: _Zoo, bucket: Bucket) -> tensorrt.IExecutionContext:
        """A context with shapes and addresses of one bucket."""
        context = self._engine.create_execution_context(tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise ExecutorError(f"TensorRT has no room for another context: {self._logger.first_error}")
        context.set_device_memory(self._activations.address, self._activations.size)
        index = profile_index(self._profiles, bucket)
        done = [context.set_optimization_profile_async(index, self._stream.handle)]
        shape = (bucket.requests, bucket.tokens)
        done += [context.set_input_shape(name, shape) for name in ("input_ids", "attention_mask")]
        addresses = {
            "input_ids": self._ids,
            "attention_mask": self._mask,
            "probability": self._scores,
            "instruction_embedding": self._embedding,
            **zoo.inputs,
        }
        done += [context.set_input_shape(name, (bucket.candidates, *self._row(name))) for name in zoo.inputs]
        done += [context.set_tensor_address(name, buffer.address) for name, buffer in addresses.items()]
        if not all(done):
            raise ExecutorError(f"TensorRT refuses the shape {bucket}: {self._logger.first_error}")
        return context

    def _capture(self, context: tensorrt.IExecutionContext, bucket: Bucket) -> _Pass:
        """Run a pass once, which lets TensorRT settle what depends on shapes, then record it."""
        shape = (bucket.requests, bucket.tokens)
        nothing = PackedBatch(np.empty(0, np.int32), np.zeros(1, np.int32))
        write_padded(
            nothing,
            np.empty(0, np.int64),
            bucket,
            self._host_ids.view(np.int64, shape),
            self._host_mask.view(np.int64, shape),
        )
        self._queue(context, bucket)
        self._stream.synchronize()
        self._stream.begin_capture()
        try:
            self._queue(context, bucket)
            graph = self._stream.end_capture()
        except (CudaError, ExecutorError) as error:
            self._stream.abandon_capture()
            _log.info("the pass %s is queued piece by piece: %s", bucket, error)
            return _Pass(context, None)
        return _Pass(context, graph)

    def _queue(self, context: tensorrt.IExecutionContext, bucket: Bucket) -> None:
        size = 8 * bucket.requests * bucket.tokens
        self._stream.copy(self._ids.address, self._host_ids.address, size)
        self._stream.copy(self._mask.address, self._host_mask.address, size)
        if not context.execute_async_v3(self._stream.handle):
            raise ExecutorError(f"TensorRT cannot run a pass: {self._logger.first_error}")
        size = 4 * bucket.requests * bucket.candidates
        self._stream.copy(self._host_scores.address, self._scores.address, size)

    # -- candidates ---------------------------------------------------------------------------------------------------

    def _row(self, name: str) -> tuple[int, ...]:
        """Shape of one candidate of an input."""
        return self._sizes.inquiry_start if name == "inquiry_start" else self._sizes.memory

    def _rows(self, room: int) -> dict[str, DeviceBuffer]:
        """Memory for so many candidates, zeros."""
        names = ("inquiry_start", "memory") if self._sizes.memory else ("inquiry_start",)
        buffers = {name: DeviceBuffer(4 * room * int(np.prod(self._row(name)))) for name in names}
        for buffer in buffers.values():
            self._stream.clear(buffer)
        return buffers

    def _zoo(self, room: int) -> _Zoo:
        zoo = self._zoos.get(room)
        if zoo is None:
            zoo = self._zoos[room] = _Zoo(self._rows(room))
        return zoo

    def _chunks_of(self, table: CandidateTable) -> list[_Chunk]:
        """A snapshot on the device, uploaded once."""
        chunks = self._loaded.get(table)
        if chunks is None:
            most = self._profiles[-1].candidates.largest
            starts = range(0, len(table), most)
            chunks = [self._upload(table, slice(start, min(start + most, len(table)))) for start in starts]
            self._loaded[table] = chunks
        return chunks

    def _upload(self, table: CandidateTable, columns: slice) -> _Chunk:
        part: EncodedCandidates = table.slice(columns.start, columns.stop)
        count = columns.stop - columns.start
        room = bucket_for(self._profiles, 1, 1, count).candidates
        arrays = {"inquiry_start": part.inquiry_start, **({} if part.memory is None else {"memory": part.memory})}
        buffers = self._rows(room)
        if {name: array.shape[1:] for name, array in arrays.items()} != {name: self._row(name) for name in buffers}:
            raise ExecutorError("the candidate table belongs to a router of other sizes; load it with its own bundle")
        for name, array in arrays.items():
            self._stream.upload(buffers[name], np.ascontiguousarray(array))
        return _Chunk(columns, room, buffers)

    def _make_resident(self, zoo: _Zoo, chunk: _Chunk) -> None:
        """Bring candidates to where passes read them; work queued before still sees those before."""
        if zoo.resident is not chunk:
            for name, buffer in chunk.buffers.items():
                self._stream.copy(zoo.inputs[name].address, buffer.address, buffer.size)
            zoo.resident = chunk

    # -- is it what it says it is -------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Inputs, outputs and profiles of the plan, against what its header says."""
        engine, dtypes = self._engine, tensorrt.DataType
        wanted = {
            "input_ids": dtypes.INT64,
            "attention_mask": dtypes.INT64,
            "inquiry_start": dtypes.FLOAT,
            "probability": dtypes.FLOAT,
            "instruction_embedding": dtypes.FLOAT,
            **({"memory": dtypes.FLOAT} if self._sizes.memory else {}),
        }
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if {name: engine.get_tensor_dtype(name) for name in names} != wanted:
            raise ExecutorError(f"the engine takes and gives {sorted(names)}, need {sorted(wanted)}; {_AGAIN}")
        if engine.num_optimization_profiles != len(self._profiles):
            raise ExecutorError(
                f"the engine has {engine.num_optimization_profiles} profiles, its header names {len(self._profiles)}; "
                f"{_AGAIN}"
            )
        for index, profile in enumerate(self._profiles):
            for name, shapes in profile.shapes(self._sizes).items():
                found = tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, index))
                if found != shapes:
                    raise ExecutorError(
                        f"profile {profile.name} of the engine takes {name} of {found}, its header says {shapes}; "
                        f"{_AGAIN}"
                    )


_AGAIN = "build it again: modelsat export --to tensorrt"
