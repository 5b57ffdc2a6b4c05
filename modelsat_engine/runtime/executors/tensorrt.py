"""The TensorRT executor: a bundle's engine, built beforehand, on an NVIDIA GPU. It never builds one."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

import numpy as np

from modelsat_engine.errors import ExecutorError, InstructionError, ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.engine_file import EngineIdentity
from modelsat_engine.export.tensorrt.profiles import MAX_REQUESTS, RouterSizes
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import Executor, ExecutorLimits, PackedBatch, create_executor, executors_for
from modelsat_engine.runtime.executors.tensorrt_device import find_engine, this_device

#: Who scores when the device fails, best first.
_SUCCESSORS = ("native", "onnxruntime")

_log = logging.getLogger(__name__)


class Passes(Protocol):
    """What scores batches on a device, see `tensorrt_passes.TensorRtPasses`."""

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Probabilities float32 ``[B, M]``."""


class TensorRtExecutor:
    """Scores packed batches; see :class:`modelsat_engine.runtime.executors.Executor`.

    When the device fails, the batch at hand and all that follow are scored on the processor instead.

    Args:
        bundle: a router of the shared layout, for which ``modelsat export --to tensorrt`` has built an engine here.
        threads: threads of the executor that takes over when the device fails.
        passes: what to score with; None loads the bundle's engine and prepares every bucket of its zoo.

    Attributes:
        name: "tensorrt", or the name of the executor that has taken over.
        fallback_reason: why another executor has taken over, or None.

    Raises:
        ExecutorError: TensorRT cannot be used here, or no engine fits this bundle, GPU and version; the message names
            what does not fit and the command that builds one.
    """

    def __init__(self, bundle: Bundle, threads: int, passes: Passes | None = None) -> None:
        self.name = "tensorrt"
        self.fallback_reason: str | None = None
        self._bundle, self._threads = bundle, threads
        sizes = RouterSizes.of(bundle.config)
        longest = sizes.max_instruction_tokens
        self._limits = ExecutorLimits(MAX_REQUESTS, MAX_REQUESTS * longest, longest)
        self._vocabulary = int(bundle.config["trunk"]["vocab"])
        self._lock = threading.Lock()
        self._passes: Passes | None = _open(bundle, sizes) if passes is None else passes
        self._successor: Executor | None = None

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
        check_batch(batch, self._limits.max_instruction_tokens, self._vocabulary)
        with self._lock:
            if self._passes is not None:
                try:
                    return self._passes.score(batch, table)
                except ModelSatError:
                    raise
                except Exception as error:  # CUDA's errors, and what the bindings of TensorRT make of its own
                    self._succeed(error)
            successor = self._successor
        if successor is None:
            raise ExecutorError("the executor is closed")
        return successor.score(batch, table)

    def close(self) -> None:
        """Free the engine and what lies on the device."""
        with self._lock:
            self._passes = None
            if self._successor is not None:
                self._successor.close()
                self._successor = None

    def _succeed(self, error: Exception) -> None:
        """Hand over for good: a device that failed once is not trusted again."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self._passes = None
        usable = [name for name, refused in executors_for(self._bundle).items() if refused is None]
        name = next((name for name in _SUCCESSORS if name in usable), None)
        if name is None:
            raise ExecutorError(f"TensorRT failed and no other executor runs here: {reason}") from error
        self._successor = create_executor(name, self._bundle, self._threads)
        self.name, self.fallback_reason = name, f"TensorRT failed ({reason}); restart to use it again"
        _log.warning("executor %r takes over: %s", name, self.fallback_reason)


def check_batch(batch: PackedBatch, longest: int, vocabulary: int) -> None:
    """Every instruction has 1 to `longest` tokens, all of the vocabulary: the device checks nothing.

    Raises:
        InstructionError: one has not; the message names it.
    """
    lengths = batch.lengths
    wrong = np.flatnonzero((lengths < 1) | (lengths > longest))
    if len(wrong):
        raise InstructionError(
            f"instruction {int(wrong[0])} has {int(lengths[wrong[0]])} tokens; pass 1 to {longest} tokens"
        )
    outside = batch.token_ids[(batch.token_ids < 0) | (batch.token_ids >= vocabulary)]
    if len(outside):
        raise InstructionError(
            f"token id {int(outside[0])} is not in the vocabulary of {vocabulary}; tokenise with the bundle's tokenizer"
        )


def _open(bundle: Bundle, sizes: RouterSizes) -> Passes:
    engine = find_engine(bundle, this_device())
    try:
        return load_passes(engine.plan(), engine.identity, sizes, max(1, len(bundle.zoo)))
    except ExecutorError as error:
        raise ExecutorError(f"{engine.path}: {error}") from error


def load_passes(plan: bytes, identity: EngineIdentity, sizes: RouterSizes, candidates: int) -> Passes:
    """Load an engine and prepare the buckets for a zoo of that size.

    Raises:
        ExecutorError: the GPU cannot take the engine, or it is not what its identity says.
    """
    from modelsat_engine.runtime.executors.tensorrt_passes import TensorRtPasses

    try:
        passes = TensorRtPasses(plan, identity, sizes)
        passes.warm(candidates)
    except ModelSatError:
        raise
    except Exception as error:  # CUDA's errors, and what the bindings of TensorRT make of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExecutorError(f"the GPU cannot take the engine: {reason}; use executor='native'") from error
    return passes
