"""Who scores when a GPU has failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError, ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import Executor, PackedBatch, create_executor, executors_for

_FALLBACKS = ("native", "onnxruntime")

_log = logging.getLogger(__name__)

#: What the C++ core calls once a batch: token ids, ``cu_seqlens`` and the snapshot give float32 ``[B, M]``.
Scores = Callable[[np.ndarray, np.ndarray, CandidateTable], np.ndarray]


@dataclass(frozen=True, eq=False)
class LoadedTable:
    """A snapshot on the device.

    Attributes:
        zoo: the passes that read it. sources: where it lies, an address for each region of the zoo.
        owner: what keeps it there.
    """

    zoo: _core.CudaZoo
    sources: list[int]
    owner: object


class CreateLauncher(Protocol):
    """Makes the C++ core of an executor in the context that is current."""

    def __call__(self, dtype: str, library: str = ...) -> _core.CudaGraphExecutor:
        """`dtype`: what the passes compute in. `library`: the driver's."""


class Passes(Protocol):
    """What captures passes and loads snapshots, see `cuda_passes.CudaPasses`. Thread-safe."""

    def launcher(self, create: CreateLauncher) -> _core.CudaGraphExecutor:
        """What launches the passes: from `create`, with the device's context current."""

    def load(self, table: CandidateTable) -> LoadedTable:
        """Bring a snapshot to the device, M >= 1, and capture what reads it."""

    def release(self) -> None:
        """No pass is captured or loaded from now on: free the device's memory where the device still answers."""


class Fallback:
    """Holds the device's side of an executor while it works, and another executor from when it has failed.

    The C++ core holds it, so it must not hold the core: the garbage collector cannot see that circle.

    Args:
        bundle, threads: what the other executor is opened with.
        passes: of the device.

    Attributes:
        passes: None once the device has failed, or the executor is closed.
        executor: who has taken over, or None.
        reason: why, or None.
    """

    def __init__(self, bundle: Bundle, threads: int, passes: Passes) -> None:
        self._bundle, self._threads = bundle, threads
        self.passes: Passes | None = passes
        self.executor: Executor | None = None
        self.reason: str | None = None

    def take_over(self, reason: str) -> Scores:
        """Open another executor for good; the core calls it once at a time, with the GIL and its own lock.

        Raises:
            ExecutorError: no other executor runs here.
        """
        self._release()
        for name in _FALLBACKS:
            try:
                executor = create_executor(name, self._bundle, self._threads)
            except ModelSatError as refused:
                _log.warning("executor %r cannot take over: %s", name, refused)
                continue
            self.reason = f"the GPU failed ({reason}); restart to use it again"
            self.executor = executor
            _log.warning("executor 'cuda' gives way to %r: %s", name, self.reason)
            return _scores_of(executor)
        raise ExecutorError(f"the GPU failed and no other executor runs here: {reason}")

    def close(self) -> None:
        """Free the device's memory, and close who has taken over."""
        self._release()
        if self.executor is not None:
            self.executor.close()

    def _release(self) -> None:
        passes, self.passes = self.passes, None
        if passes is not None:
            passes.release()


def successor_for(bundle: Bundle) -> str | None:
    """The executor that would take over for a bundle on this machine, or None."""
    reasons = executors_for(bundle)
    return next((name for name in _FALLBACKS if reasons.get(name, "") is None), None)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _scores_of(executor: Executor) -> Scores:
    def score(token_ids: np.ndarray, cu_seqlens: np.ndarray, table: CandidateTable) -> np.ndarray:
        return executor.score(PackedBatch(token_ids, cu_seqlens), table)

    return score
