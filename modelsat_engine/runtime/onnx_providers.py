"""ONNX Runtime's execution providers: which of them really run here, and if not, exactly why.

ONNX Runtime lists every provider that it was built with, and when one cannot start it goes on with the CPU and says so
on standard error only. A router that was asked for a GPU must not do that unnoticed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsat_engine.errors import ExecutorError

# Read by ONNX Runtime when it is imported. Since 1.29 its builds report usage to their maker unless told not to, and
# the thread that does so hangs or crashes a forked child when that exits. Setting it to 0 beforehand keeps it on.
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")
_GPU_BUILD = "onnxruntime-gpu"
# Operators that compute shapes; providers leave them to the CPU on purpose
_OF_SHAPES = frozenset({"Shape", "Concat", "Squeeze", "Unsqueeze", "Range", "Gather", "Slice", "Cast", "Reshape"})


@dataclass(frozen=True)
class Provider:
    """One execution provider.

    Attributes:
        name: as our executors and messages call it.
        title: as ONNX Runtime calls it.
        shared_library: its file beside ONNX Runtime's own; None when it is part of it.
        needs: what that library needs, for messages.
        device: where its inputs and outputs may lie.
    """

    name: str
    title: str
    shared_library: str | None = None
    needs: str = ""
    device: str = "cpu"


CPU = Provider("cpu", "CPUExecutionProvider")
CUDA = Provider(
    "cuda",
    "CUDAExecutionProvider",
    "onnxruntime_providers_cuda",
    "the CUDA and cuDNN libraries it was built for: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "cuda",
)
TENSORRT = Provider(
    "tensorrt",
    "TensorrtExecutionProvider",
    "onnxruntime_providers_tensorrt",
    "CUDA and TensorRT libraries it was built for: pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt",
    "cuda",
)
PROVIDERS = {provider.name: provider for provider in (CPU, CUDA, TENSORRT)}


def runtime() -> Any:
    """The module onnxruntime, imported with its usage reports off.

    Raises:
        ExecutorError: it cannot be imported.
    """
    os.environ.setdefault(*_NO_TELEMETRY)
    try:
        import onnxruntime
    except ImportError as error:
        raise ExecutorError(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from error
    return onnxruntime


def unavailable_reason(provider: Provider = CPU) -> str | None:
    """Why a provider cannot be used here, or None. A GPU's provider is started once, on a graph of one node."""
    try:
        onnxruntime = runtime()
    except ExecutorError as error:
        return str(error)
    if provider.title not in onnxruntime.get_available_providers():
        return _why_not_built_in(provider, onnxruntime.__version__)
    if provider.shared_library is None:
        return None
    missing = [reason for reason in (_why_no_driver(), _why_not_loaded(provider, onnxruntime)) if reason is not None]
    return "; ".join(missing) or _why_not_started(provider, onnxruntime)


def require_in_use(session: Any, provider: Provider) -> None:
    """Raise ExecutorError unless the session runs its products on the provider."""
    if provider.title not in session.get_providers():
        raise ExecutorError(
            f"ONNX Runtime fell back from {provider.title} to {', '.join(session.get_providers())}; "
            "'modelsat doctor' says what is missing"
        )
    assigned = getattr(session, "get_provider_graph_assignment_info", None)  # since 1.24
    if assigned is None or provider is CPU:
        return
    elsewhere = [
        node.op_type
        for part in assigned()
        if part.ep_name == CPU.title
        for node in part.get_nodes()
        if node.op_type not in _OF_SHAPES
    ]
    if elsewhere:
        named = ", ".join(sorted(set(elsewhere)))
        raise ExecutorError(
            f"{provider.title} leaves {len(elsewhere)} operators of the graph to the CPU ({named}); "
            "export the router in another precision, or use executor='onnxruntime'"
        )


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its class."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _why_not_built_in(provider: Provider, version: str) -> str:
    installed = [name for name in ("onnxruntime", _GPU_BUILD) if _is_installed(name)]
    if provider is CPU:
        return "this onnxruntime has no CPU provider; pip install --force-reinstall onnxruntime"
    if len(installed) == 2:
        return (
            f"onnxruntime and {_GPU_BUILD} are both installed and overwrite each other, and the one without "
            f"{provider.title} won: pip uninstall onnxruntime {_GPU_BUILD}, then pip install {_GPU_BUILD}"
        )
    if installed == [_GPU_BUILD]:
        return f"{_GPU_BUILD} {version} was built without {provider.title}"
    return (
        f"onnxruntime {version} is the build for CPUs; pip uninstall onnxruntime, then pip install {_GPU_BUILD} "
        "(never both: they overwrite each other)"
    )


def _why_no_driver() -> str | None:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    if driver.cuInit(0) != 0:
        return f"the NVIDIA driver finds no GPU (cuInit gives {driver.cuInit(0)})"
    return None


def _why_not_loaded(provider: Provider, onnxruntime: Any) -> str | None:
    _preload(onnxruntime)
    start, end = ("", ".dll") if os.name == "nt" else ("lib", ".so")
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = folder / f"{start}{provider.shared_library}{end}"
    try:
        ctypes.CDLL(str(folder / f"{start}onnxruntime_providers_shared{end}"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return f"{library.name} cannot be loaded ({first_line(error)}); it needs {provider.needs}"
    return None


def _why_not_started(provider: Provider, onnxruntime: Any) -> str | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    onnxruntime.set_default_logger_severity(4)  # what it prints, we say
    try:
        session = onnxruntime.InferenceSession(_PROBE, options, providers=[provider.title], enable_fallback=0)
    except Exception as error:  # the library raises a class per status code, without a common base of its own
        return f"{provider.title} cannot be started: {first_line(error)}"
    finally:
        onnxruntime.set_default_logger_severity(2)
    if provider.title not in session.get_providers():
        return f"{provider.title} cannot be started; ONNX Runtime falls back to {', '.join(session.get_providers())}"
    return None


def _preload(onnxruntime: Any) -> None:
    """Load the CUDA libraries that pip installed, if any; what is missing shows when the provider is loaded."""
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# y = Relu(x), one float32, as an ONNX file of opset 20
_PROBE = bytes.fromhex(
    "080a12003a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a001014"
)
