"""The few CUDA host functions that an executor without PyTorch needs, through NVIDIA's `cuda-bindings`, checked.

Everything works on the device that is current in the calling thread.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart


class CudaError(RuntimeError):
    """CUDA refused or failed; the message is CUDA's own."""


def device_properties(index: int) -> tuple[str, tuple[int, int]]:
    """Name and compute capability of a visible device.

    Raises:
        CudaError: there is none, or the driver fails.
    """
    found = _checked(cudart.cudaGetDeviceProperties(index))
    return found.name.split(b"\0")[0].decode(errors="replace"), (int(found.major), int(found.minor))


def use_device(index: int) -> None:
    """Make a device the current one of this thread.

    Raises:
        CudaError: there is none, or the driver fails.
    """
    _checked(cudart.cudaSetDevice(index))


class DeviceBuffer:
    """Memory of the device, freed with the object, aligned to 256 bytes.

    Attributes:
        address: of its first byte. size: in bytes.

    Raises:
        CudaError: the device has not enough memory.
    """

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self.address = int(_checked(cudart.cudaMalloc(self.size)))

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFree(self.address)


class PinnedBuffer:
    """Memory of the host that the device reads and writes in place of a copy, freed with the object.

    Attributes:
        address: of its first byte. bytes: the memory, uint8 ``[size]``; no view of it may outlive the object.

    Raises:
        CudaError: the host has not enough memory that can be pinned.
    """

    def __init__(self, size: int) -> None:
        self.address = int(_checked(cudart.cudaHostAlloc(max(size, 1), cudart.cudaHostAllocDefault)))
        self.bytes: np.ndarray = np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(self.address))
        self.bytes[:] = 0

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFreeHost(self.address)

    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
        """The first elements as an array."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[:count].view(dtype).reshape(shape)


class Stream:
    """Work in order, none of which waits for other streams.

    Attributes:
        handle: cudaStream_t as an integer.

    Raises:
        CudaError: the driver fails.
    """

    def __init__(self) -> None:
        self._stream = _checked(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        self.handle = int(self._stream)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            cudart.cudaStreamDestroy(self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of so many bytes between any two addresses."""
        _checked(cudart.cudaMemcpyAsync(target, source, size, cudart.cudaMemcpyKind.cudaMemcpyDefault, self._stream))

    def upload(self, target: DeviceBuffer, array: np.ndarray) -> None:
        """Copy a contiguous array to the device, and wait until that is done."""
        self.copy(target.address, int(array.ctypes.data), array.nbytes)
        self.synchronize()

    def clear(self, target: DeviceBuffer) -> None:
        """Queue zeros."""
        _checked(cudart.cudaMemsetAsync(target.address, 0, target.size, self._stream))

    def synchronize(self) -> None:
        """Wait until all queued work is done; what failed in it is raised here."""
        _checked(cudart.cudaStreamSynchronize(self._stream))

    def begin_capture(self) -> None:
        """Record what is queued from now on instead of running it; other threads may go on using CUDA."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(cudart.cudaStreamBeginCapture(self._stream, mode))

    def end_capture(self) -> CapturedGraph:
        """What was recorded.

        Raises:
            CudaError: something queued cannot be recorded; the stream is usable again.
        """
        return CapturedGraph(_checked(cudart.cudaStreamEndCapture(self._stream)))

    def abandon_capture(self) -> None:
        """Leave the recording state whatever it holds."""
        _, *graph = cudart.cudaStreamEndCapture(self._stream)
        if graph and graph[0] is not None and int(graph[0]):
            cudart.cudaGraphDestroy(graph[0])
        cudart.cudaGetLastError()

    def launch(self, graph: CapturedGraph) -> None:
        """Queue all that a graph recorded."""
        _checked(cudart.cudaGraphLaunch(graph.executable, self._stream))


class CapturedGraph:
    """Recorded work, ready to be launched again and again.

    Args:
        graph: cudaGraph_t; taken over.
    """

    def __init__(self, graph: Any) -> None:
        try:
            self.executable = _checked(cudart.cudaGraphInstantiate(graph, 0))
        finally:
            cudart.cudaGraphDestroy(graph)

    def __del__(self) -> None:
        if hasattr(self, "executable"):
            cudart.cudaGraphExecDestroy(self.executable)


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a call whose first result is its status."""
    status, *values = result
    if int(status) != 0:
        _, text = cudart.cudaGetErrorString(status)
        raise CudaError(f"{status.name}: {text.decode(errors='replace')}")
    return values[0] if values else None
