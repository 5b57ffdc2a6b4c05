"""Opens ONNX Runtime sessions the one way this package wants them: explicit threads, no spinning, flat memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from modelsat_engine.errors import ExecutorError

_FATAL_SEVERITY = 4  # errors arrive as exceptions; nothing is printed
# Read by ONNX Runtime when it is imported. Since 1.29 its builds report usage to their maker unless told not to, and
# the thread that does so hangs or crashes a forked child when that exits. Setting it to 0 beforehand keeps it on.
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")


def unavailable_reason() -> str | None:
    """Why ONNX Runtime cannot be used here, or None."""
    os.environ.setdefault(*_NO_TELEMETRY)
    try:
        import onnxruntime
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}); pip install onnxruntime"
    if "CPUExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CPU provider; pip install --force-reinstall onnxruntime"
    return None


def open_session(path: Path, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU over the graph at ``path``.

    Loaded from the path, not from bytes: the graph's weights lie beside it.

    Args:
        threads: threads inside one operator, the caller's own included, >= 1.

    Raises:
        ExecutorError: ONNX Runtime is missing or refuses the graph.
    """
    return _session(str(path), str(path), threads)


def session_of_model(model: Any, threads: int) -> Any:
    """As :func:`open_session`, over an ``onnx.ModelProto`` that holds its weights."""
    return _session(model.SerializeToString(), "the graph", threads)


def _session(source: str | bytes, name: str, threads: int) -> Any:
    reason = unavailable_reason()
    if reason is not None:
        raise ExecutorError(reason)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL_SEVERITY
    # Waiting threads sleep: a router shares its machine with the gateway.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Both keep memory for the largest or for every input shape seen, and instruction lengths make many: resident memory
    # grew by 98 MB over 400 batches with both, by 11 MB with neither, at the same processor time.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a class per status code, without a common base of its own
        raise ExecutorError(f"ONNX Runtime cannot load {name}: {_first_line(error)}") from error
    _return_free_memory()
    return session


def _return_free_memory() -> None:
    """Give the copies of the weights that loading made back to the system: 90 MB of 200 for the mini router.

    Only the GNU C library keeps them, and only it has this function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
