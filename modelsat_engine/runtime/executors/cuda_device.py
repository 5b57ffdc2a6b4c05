"""Is there a CUDA device that the kernels run on? Asked of the driver's own libraries, without loading PyTorch."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LEAST_CAPABILITY = (8, 0)
_LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        name: what its maker calls it. capability: compute capability, major and minor.
        memory_bytes, free_bytes: of its memory, all and unused; 0 where the driver does not say.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver of this machine.

    Attributes:
        version: its own, such as ``580.159.04``. cuda_version: what CUDA it is for, such as ``13.0``.
        devices: every GPU that it sees.
    """

    version: str
    cuda_version: str
    devices: tuple[Device, ...]


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def unavailable_reason() -> str | None:
    """Why the CUDA executor cannot be used on this machine, or None. Takes milliseconds and starts nothing on a GPU."""
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    device = device_reason()
    if missing:
        install = f"{' and '.join(missing)} not installed (pip install 'modelsat-engine[gpu]')"
        return install if device is None else f"{device}; {install}"
    if device is not None:
        return device
    version = importlib.metadata.version("torch")
    if version.endswith("+cpu"):
        return f"PyTorch {version} was built without CUDA; install a build with CUDA"
    try:
        from modelsat_engine import _core
    except ImportError as error:
        return f"the compiled extension cannot be loaded ({error}); reinstall modelsat-engine"
    return _core.cuda_driver_reason()


def device_reason() -> str | None:
    """Why no device here can run the kernels, or None."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "none", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    with _management() as library:
        if isinstance(library, str):
            return library
        found = _devices(library)
    if not found:
        return "the NVIDIA driver sees no GPU"
    if all(device.capability < LEAST_CAPABILITY for device in found):
        major, minor = found[0].capability
        return f"{found[0].name} has compute capability {major}.{minor}, the kernels need 8.0 or later"
    return None


def driver() -> Driver | None:
    """What the driver says of itself and its GPUs, or None without one."""
    with _management() as library:
        if isinstance(library, str):
            return None
        version, cuda = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_int()
        library.nvmlSystemGetDriverVersion(version, _NAME_BYTES)
        library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
        cuda_version = f"{cuda.value // 1000}.{cuda.value % 1000 // 10}"
        return Driver(version.value.decode(errors="replace"), cuda_version, _devices(library))


@contextmanager
def _management() -> Iterator[ctypes.CDLL | str]:
    """The driver's management library, ready, or why there is none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        yield "no NVIDIA driver here"
        return
    if library.nvmlInit_v2() != 0:
        yield "the NVIDIA driver does not answer; look at what nvidia-smi says"
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def _devices(library: ctypes.CDLL) -> tuple[Device, ...]:
    """Every GPU that the driver sees."""
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        handle, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        name, memory = ctypes.create_string_buffer(_NAME_BYTES), _Memory()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
            continue
        library.nvmlDeviceGetName(handle, name, _NAME_BYTES)
        library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        if library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0:
            capability = (major.value, minor.value)
            found.append(Device(name.value.decode(errors="replace"), capability, memory.total, memory.free))
    return tuple(found)
