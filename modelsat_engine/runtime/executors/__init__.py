"""Executors: what an executor must do, which ones this installation has, and how to get one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable

#: Names the file that ONNX Runtime runs in place of the bundle's router.onnx: an export of it in another precision.
GRAPH_VARIABLE = "MODELSAT_ONNX_GRAPH"


@dataclass(frozen=True)
class ExecutorLimits:
    """What one call of :meth:`Executor.score` may hold; hard bounds.

    Attributes:
        max_batch_requests: instructions.
        max_batch_tokens: tokens of all instructions together.
        max_instruction_tokens: tokens of one instruction.
    """

    max_batch_requests: int
    max_batch_tokens: int
    max_instruction_tokens: int


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Instructions one after the other, without padding.

    Attributes:
        token_ids: int32 ``[T]``.
        cu_seqlens: int32 ``[B + 1]``: instruction b is ``token_ids[cu_seqlens[b]:cu_seqlens[b + 1]]``.
    """

    token_ids: np.ndarray
    cu_seqlens: np.ndarray

    @classmethod
    def pack(cls, instructions: list[np.ndarray]) -> PackedBatch:
        """Pack int32 ``[S_b]`` token ids, B of them, B >= 1."""
        cu_seqlens = np.zeros(len(instructions) + 1, np.int32)
        np.cumsum([len(ids) for ids in instructions], out=cu_seqlens[1:])
        return cls(np.concatenate(instructions), cu_seqlens)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each instruction, int32 ``[B]``."""
        return np.diff(self.cu_seqlens)

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1


class Executor(Protocol):
    """Runs the trunk and the head. Thread-safe: several calls of ``score`` may be in flight."""

    @property
    def name(self) -> str:
        """Of the executor in use; another one's once that has taken over."""

    def limits(self) -> ExecutorLimits:
        """The bounds that callers keep."""

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Calibrated P(Yes), averaged over views, float32 ``[B, M]``, columns in the table's order.

        Raises:
            ExecutorError: the runtime failed; nothing of the batch was scored.
        """

    def close(self) -> None:
        """Free what the executor holds. No call is in flight, and none follows."""


@dataclass(frozen=True)
class _Kind:
    unavailable_reason: Callable[[], str | None]
    create: Callable[[Bundle, int], Executor]
    unsupported_reason: Callable[[Bundle], str | None] = lambda bundle: None


def _native_reason() -> str | None:
    from modelsat_engine.runtime.executors.native import unavailable_reason

    return unavailable_reason()


def _native_unsupported(bundle: Bundle) -> str | None:
    from modelsat_engine.runtime.executors.native_weights import unsupported_reason

    return unsupported_reason(bundle)


def _create_native(bundle: Bundle, threads: int) -> Executor:
    from modelsat_engine.runtime.executors.native import NativeExecutor

    return NativeExecutor(bundle, threads)


def _onnxruntime(provider: str) -> _Kind:
    """ONNX Runtime through one of its providers, on the bundle's graph or the one that GRAPH_VARIABLE names."""

    def reason() -> str | None:
        from modelsat_engine.runtime.onnx_providers import PROVIDERS, unavailable_reason

        return unavailable_reason(PROVIDERS[provider])

    def create(bundle: Bundle, threads: int) -> Executor:
        from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor
        from modelsat_engine.runtime.onnx_providers import PROVIDERS

        graph = os.environ.get(GRAPH_VARIABLE)
        return OnnxRuntimeExecutor(bundle, threads, PROVIDERS[provider], Path(graph) if graph else None)

    return _Kind(reason, create)


def _cuda_reason() -> str | None:
    from modelsat_engine.runtime.executors.cuda_device import unavailable_reason

    return unavailable_reason()


def _cuda_unsupported(bundle: Bundle) -> str | None:
    from modelsat_engine.runtime.executors.cuda import unsupported_reason

    return unsupported_reason(bundle)


def _create_cuda(bundle: Bundle, threads: int) -> Executor:
    from modelsat_engine.runtime.executors.cuda import CudaExecutor

    return CudaExecutor(bundle, threads)


def _tensorrt_reason() -> str | None:
    from modelsat_engine.runtime.executors.tensorrt_device import unavailable_reason

    return unavailable_reason()


def _tensorrt_unsupported(bundle: Bundle) -> str | None:
    from modelsat_engine.runtime.executors.tensorrt_device import unsupported_reason

    return unsupported_reason(bundle)


def _create_tensorrt(bundle: Bundle, threads: int) -> Executor:
    from modelsat_engine.runtime.executors.tensorrt import TensorRtExecutor

    return TensorRtExecutor(bundle, threads)


# Best first: "auto" takes the first that can be used here and for the bundle. A new executor is one file and one line.
_KINDS: dict[str, _Kind] = {
    "native": _Kind(_native_reason, _create_native, _native_unsupported),
    "onnxruntime": _onnxruntime("cpu"),
    # last until they are measured: by name only
    "cuda": _Kind(_cuda_reason, _create_cuda, _cuda_unsupported),
    "tensorrt": _Kind(_tensorrt_reason, _create_tensorrt, _tensorrt_unsupported),
    "onnxruntime-cuda": _onnxruntime("cuda"),
    "onnxruntime-tensorrt": _onnxruntime("tensorrt"),
}


def available_executors() -> dict[str, str | None]:
    """Every executor name -> why it cannot be used here, or None when it can; best first."""
    return {name: kind.unavailable_reason() for name, kind in _KINDS.items()}


def executors_for(bundle: Bundle) -> dict[str, str | None]:
    """As :func:`available_executors`, for one bundle: an executor that does not run its kind of router says so."""
    return {
        name: _KINDS[name].unsupported_reason(bundle) if reason is None else reason
        for name, reason in available_executors().items()
    }


def create_executor(name: str, bundle: Bundle, threads: int) -> Executor:
    """An executor over a bundle.

    Args:
        name: one of :func:`available_executors`, or "auto" for the best one that can be used here and runs routers
            of this kind.
        threads: threads inside one run, >= 1.

    Raises:
        ExecutorError: an unknown name, or an executor that cannot be used here; the message says why.
    """
    reasons = executors_for(bundle)
    if name == "auto":
        usable = [candidate for candidate, reason in reasons.items() if reason is None]
        if not usable:
            why = "; ".join(f"{candidate}: {reason}" for candidate, reason in reasons.items())
            raise ExecutorError(f"no executor can be used here. {why}")
        name = usable[0]
    if name not in reasons:
        raise ExecutorError(f"executor {name!r} is not known; use auto, {', '.join(reasons)}")
    reason = reasons[name]
    if reason is not None:
        raise ExecutorError(f"executor {name!r} cannot be used: {reason}")
    return _KINDS[name].create(bundle, threads)
