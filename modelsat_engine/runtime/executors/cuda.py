"""The CUDA executor: weights and candidates on the device, our own kernels, captured graphs launched from C++."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict

import numpy as np

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError, ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from modelsat_engine.runtime.executors.cuda_device import unavailable_reason
from modelsat_engine.runtime.executors.cuda_fallback import Fallback, Passes, first_line

#: What to compute in: float16 (default, the smaller rounding errors), bfloat16 (the larger range) or float32.
DTYPE_VARIABLE = "MODELSAT_CUDA_DTYPE"
_DTYPES = ("float16", "bfloat16", "float32")
_MAX_REQUESTS = 64
_MAX_TOKENS = 16384
_RECENT_TABLES = 4
_DRIVER = "libcuda.so.1"


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
        passes: what to score with; None opens the first CUDA device.

    Attributes:
        core: the C++ executor, which the batch scheduler calls without Python.

    Raises:
        ExecutorError: no device that can be used, or one without enough memory; the message says why.
        BundleError: the weights are damaged, or not finite in the dtype to compute in.
    """

    def __init__(self, bundle: Bundle, threads: int, passes: Passes | None = None) -> None:
        longest = int(bundle.config["tokenizer"]["max_instruction_tokens"])
        self._limits = ExecutorLimits(_MAX_REQUESTS, min(_MAX_TOKENS, _MAX_REQUESTS * longest), longest)
        passes = passes if passes is not None else _open(bundle, self._limits)
        self._fallback = Fallback(bundle, threads, passes)
        take_over, bounds = self._fallback.take_over, asdict(self._limits)
        vocabulary = int(bundle.config["trunk"]["vocab"])

        def create(dtype: str, library: str = _DRIVER) -> _core.CudaGraphExecutor:
            return _core.CudaGraphExecutor(take_over, **bounds, vocabulary=vocabulary, dtype=dtype, library=library)

        try:
            self.core = passes.launcher(create)
        except RuntimeError as error:
            raise ExecutorError(f"executor 'cuda' cannot be used: {error}") from error
        self._lock = threading.Lock()
        self._recent: list[tuple[CandidateTable, _core.CandidateTable]] = []
        self._closed = False

    @property
    def name(self) -> str:
        """ "cuda", or the name of the executor that has taken over."""
        taken = self._fallback.executor
        return "cuda" if taken is None else taken.name

    @property
    def fallback_reason(self) -> str | None:
        """Why another executor has taken over, or None."""
        return self._fallback.reason

    def limits(self) -> ExecutorLimits:
        """The bounds that callers keep."""
        return self._limits

    def core_table(self, table: CandidateTable, version: int) -> _core.CandidateTable:
        """What the C++ executor reads of a snapshot: it is brought to the device, past the traffic.

        A device that cannot take it gives way to another executor, for this snapshot and all others.

        Raises:
            ExecutorError: the snapshot belongs to a router of other sizes or is not finite, or the device failed and
                no other executor runs here.
        """
        width, passes = table.inquiry_start.shape[-1], self._fallback.passes
        if passes is not None and len(table):
            try:
                loaded = passes.load(table)
            except ModelSatError:
                raise
            except Exception as error:  # PyTorch, Triton and the driver each raise classes of their own
                self.core.give_up(first_line(error))
            else:
                return self.core.make_table(table, len(table), width, version, loaded.zoo, loaded.sources, loaded.owner)
        return _core.CandidateTable(table, len(table), width, version)

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Calibrated P(Yes), averaged over views, float32 ``[B, M]``, without the GIL.

        Raises:
            InstructionError: an instruction has no token or too many, or a token id is not in the vocabulary.
            ExecutorError: the arithmetic overflowed, or the device failed and no other executor runs here.
            ForkedProcess: the executor was made before this process was forked.
        """
        if self._closed:
            raise ExecutorError("the executor is closed")
        if not len(table):
            return np.empty((len(batch), 0), np.float32)
        return self.core.score(batch.token_ids, batch.cu_seqlens, self._bound(table))

    def close(self) -> None:
        """Free what lies on the device."""
        self._closed = True
        with self._lock:
            self._recent.clear()
        self._fallback.close()

    def _bound(self, table: CandidateTable) -> _core.CandidateTable:
        """The handle of a snapshot; the last few are kept, as each holds its snapshot and memory on the device."""
        with self._lock:
            for known, bound in self._recent:
                if known is table:
                    return bound
            bound = self.core_table(table, table.version)
            self._recent = [*self._recent[1 - _RECENT_TABLES :], (table, bound)]
            return bound


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
        raise ExecutorError(
            f"the GPU cannot take {bundle.label}: {first_line(error)}; use executor='native'"
        ) from error
    return passes
