"""Opens ONNX Runtime sessions the one way this package wants them: explicit threads, no spinning, flat memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsat_engine.errors import ExecutorError
from modelsat_engine.runtime.onnx_providers import (
    CPU,
    Provider,
    first_line,
    require_in_use,
    runtime,
    unavailable_reason,
)

_FATAL_SEVERITY = 4  # errors arrive as exceptions; nothing is printed


def open_session(
    path: Path, threads: int, provider: Provider = CPU, provider_options: Mapping[str, str] | None = None
) -> Any:
    """An ``onnxruntime.InferenceSession`` over the graph at ``path``.

    Loaded from the path, not from bytes: the graph's weights may lie beside it.

    Args:
        threads: threads inside one operator, the caller's own included, >= 1.
        provider: what runs the graph; it runs it or the session is not opened.
        provider_options: as ONNX Runtime documents them for the provider.

    Raises:
        ExecutorError: ONNX Runtime is missing, refuses the graph, or would run it on another provider.
    """
    return _session(str(path), str(path), threads, provider, provider_options or {})


def session_of_model(model: Any, threads: int) -> Any:
    """As :func:`open_session` on the CPU, over an ``onnx.ModelProto`` that holds its weights."""
    return _session(model.SerializeToString(), "the graph", threads, CPU, {})


def _session(
    source: str | bytes, name: str, threads: int, provider: Provider, provider_options: Mapping[str, str]
) -> Any:
    reason = unavailable_reason(provider)
    if reason is not None:
        raise ExecutorError(reason)
    onnxruntime = runtime()
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
    if provider is not CPU:  # for require_in_use
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=[(provider.title, dict(provider_options))], enable_fallback=0
        )
    except Exception as error:  # the library raises a class per status code, without a common base of its own
        raise ExecutorError(f"ONNX Runtime cannot load {name}: {first_line(error)}") from error
    require_in_use(session, provider)
    _return_free_memory()
    return session


def _return_free_memory() -> None:
    """Give the copies of the weights that loading made back to the system: 90 MB of 200 for the mini router.

    Only the GNU C library keeps them, and only it has this function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
