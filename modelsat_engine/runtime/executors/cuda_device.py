"""Is there a CUDA device that the kernels run on? Asked of the driver's own library, without loading PyTorch."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os

LEAST_CAPABILITY = (8, 0)
_LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96


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
    return None


def device_reason() -> str | None:
    """Why no device here can run the kernels, or None."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "none", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return "no NVIDIA driver here"
    if library.nvmlInit_v2() != 0:
        return "the NVIDIA driver does not answer; look at what nvidia-smi says"
    try:
        found = _devices(library)
    finally:
        library.nvmlShutdown()
    if not found:
        return "the NVIDIA driver sees no GPU"
    if all(capability < LEAST_CAPABILITY for _, capability in found):
        name, (major, minor) = found[0]
        return f"{name} has compute capability {major}.{minor}, the kernels need 8.0 or later"
    return None


def _devices(library: ctypes.CDLL) -> list[tuple[str, tuple[int, int]]]:
    """Name and compute capability of every GPU that the driver sees."""
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        handle, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
            continue
        library.nvmlDeviceGetName(handle, name, _NAME_BYTES)
        if library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0:
            found.append((name.value.decode(errors="replace"), (major.value, minor.value)))
    return found
