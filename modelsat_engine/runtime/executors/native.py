"""The native executor: the trunk in int8 C++ kernels, over packed instructions, without Python on the way."""

from __future__ import annotations

import os
import platform
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from modelsat_engine.runtime.executors.native_weights import network_sizes, tensor_table, unsupported_reason

if TYPE_CHECKING:
    from modelsat_engine import _core

#: Forces one of the instruction sets: portable, avx2, avx_vnni, avx512_vnni or amx_int8.
ISA_VARIABLE = "MODELSAT_ISA"
_ARCHITECTURES = ("x86_64", "amd64")


def instruction_set() -> str:
    """The instruction set that the native kernels run with here, such as ``avx512_vnni`` or ``portable``.

    The best one of this processor, or the one that ``MODELSAT_ISA`` names.

    Raises:
        ExecutorError: there is no native executor here; the message says why.
    """
    try:
        from modelsat_engine import _core
    except ImportError as error:
        raise ExecutorError(f"the compiled extension cannot be loaded ({error}); reinstall modelsat-engine") from error
    if not hasattr(_core, "NativeExecutor"):
        raise ExecutorError("the compiled extension is older than this package; reinstall modelsat-engine")
    if platform.machine().lower() not in _ARCHITECTURES:
        raise ExecutorError(f"its kernels are for x86-64 processors, this one is {platform.machine()}")
    here = _core.native_isas()
    forced = os.environ.get(ISA_VARIABLE)
    if forced and forced not in here:
        raise ExecutorError(
            f"{ISA_VARIABLE} is {forced!r}, but this processor runs {', '.join(here)}; name one of them"
        )
    if not forced and here[0] == "portable":
        raise ExecutorError(
            f"this processor lacks AVX2 and AVX-512 VNNI; {ISA_VARIABLE}=portable runs kernels without them, slowly"
        )
    return forced or here[0]


def unavailable_reason() -> str | None:
    """Why the native executor cannot be used on this machine, or None."""
    try:
        instruction_set()
    except ExecutorError as error:
        return str(error)
    return None


class NativeExecutor:
    """Scores packed batches; see :class:`modelsat_engine.runtime.executors.Executor`.

    A row is quantised by itself, so a probability does not depend on what else is in the batch, to the last bit.

    Args:
        bundle: a router of the shared layout with an encoder trunk and int8 weights.
        threads: threads inside one call, the caller's own included, >= 1.

    Attributes:
        core: the C++ executor, which the batch scheduler calls without Python.
        isa: the instruction set in use.

    Raises:
        ExecutorError: this machine or this kind of router is not supported; the message says why.
        BundleError: the weights are cut short, of another shape than router.json says, or not finite.
    """

    name = "native"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.isa = instruction_set()
        reason = unsupported_reason(bundle)
        if reason is not None:
            raise ExecutorError(f"executor 'native' cannot run {bundle.label}: {reason}")
        from modelsat_engine import _core

        weights = bundle.file("weights.safetensors")
        try:
            self.core = _core.NativeExecutor(
                str(weights), tensor_table(weights), network_sizes(bundle), threads, isa=self.isa
            )
        except ValueError as error:
            raise BundleError(f"bundle {bundle.path} cannot be run: {error}") from error
        except (RuntimeError, MemoryError) as error:
            raise ExecutorError(f"the native executor cannot load {bundle.label}: {error}") from error
        self._lock = threading.Lock()
        self._tables: WeakKeyDictionary[CandidateTable, _core.CandidateTable] = WeakKeyDictionary()

    def limits(self) -> ExecutorLimits:
        """The bounds that callers keep."""
        return ExecutorLimits(**self.core.limits)

    def core_table(self, table: CandidateTable, version: int) -> _core.CandidateTable:
        """What the C++ executor reads of a snapshot: everything that depends on the candidates alone, computed once.

        Raises:
            ExecutorError: the snapshot belongs to a router of other sizes, or is not finite.
        """
        try:
            return self.core.make_table(table.inquiry_start, table.memory, version)
        except (RuntimeError, ValueError) as error:
            raise ExecutorError(f"the native executor cannot take the candidate table: {error}") from error

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Calibrated P(Yes), averaged over views, float32 ``[B, M]``, without the GIL.

        Raises:
            InstructionError: an instruction has no token or too many, or a token id is not in the vocabulary.
            ExecutorError: the network's arithmetic overflowed.
            ForkedProcess: the executor was made before this process was forked.
        """
        if not len(table):
            return np.empty((len(batch), 0), np.float32)
        return self.core.score(batch.token_ids, batch.cu_seqlens, self._bound(table))

    def close(self) -> None:
        """Free the tables; the weights go with the last one who holds the executor."""
        with self._lock:
            self._tables.clear()

    def _bound(self, table: CandidateTable) -> _core.CandidateTable:
        with self._lock:
            bound = self._tables.get(table)
            if bound is None:
                bound = self._tables[table] = self.core_table(table, table.version)
            return bound
