"""A device played by the processor, so that the passes of the TensorRT executor run without one.

Device memory is host memory, a stream does its work at once, a captured graph repeats what was queued, and the engine
runs the router's ONNX graph in ONNX Runtime on whatever lies at the addresses that it was given. What is played knows
the rules that a real device has: a pass reads and writes exactly the bytes of its shapes, shapes lie within the
profile, a context has one shape, addresses of a graph are those of its capture.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.export.tensorrt.engine_file import EngineIdentity
from modelsat_engine.export.tensorrt.profiles import RouterSizes
from modelsat_engine.runtime.onnx_session import open_session


class DeviceBuffer:
    """Memory that holds garbage until it is written, as a device's does."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._memory = np.full(max(size, 1), 0xAB, np.uint8)
        self.address = int(self._memory.ctypes.data)


class PinnedBuffer:
    def __init__(self, size: int) -> None:
        self.bytes = np.zeros(max(size, 1), np.uint8)
        self.address = int(self.bytes.ctypes.data)

    def view(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert count <= len(self.bytes), "beyond the pinned memory"
        return self.bytes[:count].view(dtype).reshape(shape)


class CapturedGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work


class PlayedError(RuntimeError):
    """In the place of CUDA's errors."""


class Stream:
    """Runs what is queued at once, or keeps it for a graph."""

    current: Stream
    refuses_capture = False

    def __init__(self) -> None:
        self.handle = 7
        self.launches = 0
        self._recorded: list[Callable[[], None]] | None = None
        Stream.current = self

    def queue(self, work: Callable[[], None]) -> None:
        if self._recorded is None:
            work()
        else:
            self._recorded.append(work)

    def copy(self, target: int, source: int, size: int) -> None:
        self.queue(lambda: ctypes.memmove(target, source, size) and None)

    def upload(self, target: DeviceBuffer, array: np.ndarray) -> None:
        assert array.nbytes <= target.size
        self.copy(target.address, int(array.ctypes.data), array.nbytes)

    def clear(self, target: DeviceBuffer) -> None:
        self.queue(lambda: ctypes.memset(target.address, 0, target.size) and None)

    def synchronize(self) -> None:
        assert self._recorded is None

    def begin_capture(self) -> None:
        self._recorded = []

    def end_capture(self) -> CapturedGraph:
        assert self._recorded is not None
        if Stream.refuses_capture:
            raise PlayedError("cudaErrorStreamCaptureUnsupported")
        work, self._recorded = self._recorded, None
        return CapturedGraph(work)

    def abandon_capture(self) -> None:
        self._recorded = None

    def launch(self, graph: CapturedGraph) -> None:
        self.launches += 1
        for work in graph.work:
            work()


_TYPES = {"input_ids": np.int64, "attention_mask": np.int64}


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._has_memory = False

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= max(self._engine.needs)
        self._has_memory = True

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == 7
        self._profile = profile_index
        return profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        least, _, largest = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = shape
        return all(low <= size <= high for low, size, high in zip(least, shape, largest, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        if set(addresses) != {*self._engine.names} or not self._has_memory:
            return False
        Stream.current.queue(lambda: self._engine.run(shapes, addresses))
        return True


class Engine:
    """The router's graph behind the interface of an engine."""

    def __init__(self, identity: EngineIdentity, sizes: RouterSizes, graph: Path) -> None:
        self._session = open_session(graph, 1)
        self._identity, self._sizes = identity, sizes
        self.names = [value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(identity.profiles)
        self.needs = [1000 + index for index in range(len(identity.profiles))]
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType.INT64 if name in _TYPES else DataType.FLOAT

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return list(self._identity.profiles[profile_index].shapes(self._sizes)[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "instruction_embedding"
        return (-1, self._session.get_outputs()[1].shape[1])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return self.needs[profile_index]

    def create_execution_context(self, strategy: Any) -> Context:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self.contexts += 1
        return Context(self)

    def run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        feeds = {}
        for name, shape in shapes.items():
            dtype = np.dtype(_TYPES.get(name, np.float32))
            raw = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(addresses[name])
            feeds[name] = np.frombuffer(raw, dtype).reshape(shape)
        outputs = self._session.run(["probability", "instruction_embedding"], feeds)
        for name, value in zip(("probability", "instruction_embedding"), outputs, strict=True):
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)


class DataType(Enum):
    FLOAT = 0
    INT64 = 1


class ExecutionContextAllocationStrategy(Enum):
    USER_MANAGED = 0


class ILogger:
    Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


def played_tensorrt(engine: Engine | None) -> types.ModuleType:
    """A module in the place of `tensorrt` whose runtime loads an engine whatever the plan, or refuses any."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            self.engine_host_code_allowed: bool | None = None

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            assert self.engine_host_code_allowed is not None
            if engine is None:
                self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed:\nversion tag")
            return engine

    module = types.ModuleType("tensorrt")
    for thing in (DataType, ExecutionContextAllocationStrategy, ILogger, Runtime):
        setattr(module, thing.__name__, thing)
    return module
