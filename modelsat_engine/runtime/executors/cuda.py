"""The CUDA executor: weights and candidates on the device, our own kernels, one captured graph per batch."""

from __future__ import annotations

import logging
import os
import threading
from typing import Protocol

import numpy as np

from modelsat_engine.errors import ExecutorError, InstructionError, ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import Executor, ExecutorLimits, PackedBatch, create_executor
from modelsat_engine.runtime.executors.cuda_device import unavailable_reason

#: What to compute in: float16 (default, the smaller rounding errors), bfloat16 (the larger range) or float32.
DTYPE_VARIABLE = "MODELSAT_CUDA_DTYPE"
_DTYPES = ("float16", "bfloat16", "float32")
_MAX_REQUESTS = 64
_MAX_TOKENS = 16384
_FALLBACKS = ("native", "onnxruntime")

_log = logging.getLogger(__name__)


class Passes(Protocol):
    """What scores batches on a device, see `cuda_passes.CudaPasses`."""

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Probabilities float32 ``[B, M]``."""


def unsupported_reason(bundle: Bundle) -> str | None:
    """Why the CUDA executor is not made for a bundle, whatever the machine, or None."""
    config = bundle.config
    if config.get("layout") != "shared":
        return f"it runs the layout 'shared', not {config.get('layout')!r}"
    kind = (config.get("trunk") or {}).get("kind", "encoder")
    return None if kind == "encoder" else f"it runs encoder trunks, not {kind!r}"


class CudaExecutor:
    """Scores packed batches; see :class:`modelsat_engine.runtime.executors.Executor`.

    When the device fails (out of memory, lost, a driver that gives up), the batch at hand and all that follow are
    scored by the native executor, or by ONNX Runtime where that cannot run.

    Args:
        bundle: a router of the shared layout with an encoder trunk.
        threads: threads of the executor that takes over when the device fails.
        passes: what to score with; None opens the first CUDA device and captures a graph for every usual size.

    Attributes:
        name: "cuda", or the name of the executor that has taken over.
        fallback_reason: why another executor has taken over, or None.

    Raises:
        ExecutorError: no device that can be used, or one without enough memory; the message says why.
        BundleError: the weights are damaged, or not finite in the dtype to compute in.
    """

    def __init__(self, bundle: Bundle, threads: int, passes: Passes | None = None) -> None:
        self.name = "cuda"
        self._bundle, self._threads = bundle, threads
        longest = int(bundle.config["tokenizer"]["max_instruction_tokens"])
        self._limits = ExecutorLimits(_MAX_REQUESTS, min(_MAX_TOKENS, _MAX_REQUESTS * longest), longest)
        self._vocabulary = int(bundle.config["trunk"]["vocab"])
        self._lock = threading.Lock()
        self._fallback: Executor | None = None
        self.fallback_reason: str | None = None
        self._passes: Passes | None = passes if passes is not None else _open(bundle, self._limits)

    def limits(self) -> ExecutorLimits:
        """The bounds that callers keep."""
        return self._limits

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Calibrated P(Yes), averaged over views, float32 ``[B, M]``.

        Raises:
            InstructionError: an instruction has no token or too many, or a token id is not in the vocabulary.
            ExecutorError: the arithmetic overflowed, or the device failed and no other executor runs here.
        """
        if not len(table):
            return np.empty((len(batch), 0), np.float32)
        self._check(batch)
        with self._lock:
            if self._passes is not None:
                try:
                    return self._passes.score(batch, table)
                except ModelSatError:
                    raise
                except Exception as error:  # PyTorch, Triton and the driver each raise classes of their own
                    self._fall_back(error)
        if self._fallback is None:
            raise ExecutorError("the executor is closed")
        return self._fallback.score(batch, table)

    def close(self) -> None:
        """Free what lies on the device."""
        with self._lock:
            self._passes = None
            if self._fallback is not None:
                self._fallback.close()

    def _fall_back(self, error: BaseException) -> None:
        """Let another executor take over for good: a device that failed once is not trusted again."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        for name in _FALLBACKS:
            try:
                self._fallback = create_executor(name, self._bundle, self._threads)
            except ModelSatError as refused:
                _log.warning("executor %r cannot take over: %s", name, refused)
                continue
            self.name = name
            self._passes = None  # frees the device's memory where the device still answers
            self.fallback_reason = f"the GPU failed ({reason}); restart to use it again"
            _log.warning("executor 'cuda' gives way to %r: %s", name, self.fallback_reason)
            return
        raise ExecutorError(f"the GPU failed and no other executor runs here: {reason}") from error

    def _check(self, batch: PackedBatch) -> None:
        lengths = batch.lengths
        for wrong, what in (
            (lengths < 1, "no token"),
            (lengths > self._limits.max_instruction_tokens, "too many tokens"),
        ):
            if wrong.any():
                limit = self._limits.max_instruction_tokens
                raise InstructionError(f"instruction {int(wrong.argmax())} has {what}; pass 1 to {limit} tokens")
        outside = (batch.token_ids < 0) | (batch.token_ids >= self._vocabulary)
        if outside.any():
            token = int(batch.token_ids[int(outside.argmax())])
            raise InstructionError(f"token id {token} is not in the vocabulary of {self._vocabulary}; tokenise again")


def _open(bundle: Bundle, limits: ExecutorLimits) -> Passes:
    """Weights on the first device, graphs for the bundle's own zoo."""
    reason = unavailable_reason()
    if reason is not None:
        raise ExecutorError(f"executor 'cuda' cannot be used: {reason}")
    dtype_name = os.environ.get(DTYPE_VARIABLE) or _DTYPES[0]
    if dtype_name not in _DTYPES:
        raise ExecutorError(f"{DTYPE_VARIABLE} is {dtype_name!r}; use {', '.join(_DTYPES)}")
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from modelsat_engine.errors import BundleError
    from modelsat_engine.model.config import NetworkConfig
    from modelsat_engine.runtime.executors.cuda_buckets import Ladder
    from modelsat_engine.runtime.executors.cuda_passes import CudaPasses
    from modelsat_engine.runtime.executors.cuda_weights import read_weights

    if not torch.cuda.is_available():
        raise ExecutorError(
            "PyTorch sees no CUDA device, though the driver does: the driver may be older than this build of PyTorch "
            f"asks for (CUDA {torch.version.cuda}); update one of them, or use executor='native'"
        )
    path = bundle.file("weights.safetensors")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"cannot read {path}: {error}; export the bundle again") from error
    config = NetworkConfig.from_json(dict(bundle.config))
    try:
        weights = read_weights(tensors, config, torch.device("cuda", 0), getattr(torch, dtype_name))
        ladder = Ladder(limits.max_batch_requests, limits.max_batch_tokens, limits.max_instruction_tokens, config.views)
        passes = CudaPasses(weights, ladder)
        passes.warm(max(1, len(bundle.zoo)))
    except ModelSatError:
        raise
    except Exception as error:  # PyTorch, Triton and the driver each raise classes of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExecutorError(f"the GPU cannot take {bundle.label}: {reason}; use executor='native'") from error
    return passes
