"""Types of the compiled extension; csrc/bindings holds the code."""

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from modelsat_engine.errors import ModelSatError

class CpuFeatures(TypedDict):
    architecture: str
    brand: str
    avx2: bool
    fma: bool
    f16c: bool
    avx_vnni: bool
    avx512f: bool
    avx512bw: bool
    avx512dq: bool
    avx512vl: bool
    avx512_vnni: bool
    amx_int8: bool

def cpu_features() -> CpuFeatures: ...
def usable_cpu_count() -> int: ...

class CandidateTable:
    def __init__(self, payload: object, num_candidates: int, hidden_size: int = 0, version: int = 0) -> None: ...
    @property
    def payload(self) -> Any: ...
    @property
    def num_candidates(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def version(self) -> int: ...

class Executor: ...

class NoOpExecutor(Executor):
    def __init__(
        self, max_batch_requests: int = 64, max_batch_tokens: int = 16384, max_instruction_tokens: int = 512
    ) -> None: ...

def native_isas() -> list[str]: ...

class NativeExecutor(Executor):
    def __init__(
        self,
        weights_path: str,
        tensors: dict[str, tuple[str, tuple[int, ...], int, int]],
        config: dict[str, int | float],
        threads: int = 1,
        *,
        max_batch_requests: int = 64,
        max_batch_tokens: int = 8192,
        isa: str | None = None,
    ) -> None: ...
    def make_table(
        self, inquiry_start: NDArray[np.float32], memory: NDArray[np.float32] | None = None, version: int = 0
    ) -> CandidateTable: ...
    def score(
        self, token_ids: NDArray[np.int32], cu_seqlens: NDArray[np.int32], table: CandidateTable
    ) -> NDArray[np.float32]: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def limits(self) -> dict[str, int]: ...

def cuda_driver_reason(library: str = "libcuda.so.1") -> str | None: ...
def write_pass_inputs(
    token_ids: NDArray[np.int32], cu_seqlens: NDArray[np.int32], requests: int, tokens: int, inputs: NDArray[np.int32]
) -> None: ...

class CudaZoo:
    def __init__(
        self,
        owner: object,
        *,
        candidates: int,
        inputs: int,
        scores: int,
        regions: list[tuple[int, int]],
        passes: list[tuple[int, int, int]],
    ) -> None: ...
    def find(self, requests: int, tokens: int) -> tuple[int, int] | None: ...

class CudaGraphExecutor(Executor):
    def __init__(
        self,
        take_over: Callable[[str], Callable[[NDArray[np.int32], NDArray[np.int32], Any], NDArray[np.float32]]],
        *,
        max_batch_requests: int,
        max_batch_tokens: int,
        max_instruction_tokens: int,
        vocabulary: int,
        dtype: str,
        library: str = "libcuda.so.1",
    ) -> None: ...
    def make_table(
        self,
        table: object,
        num_candidates: int,
        hidden_size: int,
        version: int,
        zoo: CudaZoo,
        sources: list[int],
        owner: object,
    ) -> CandidateTable: ...
    def score(
        self, token_ids: NDArray[np.int32], cu_seqlens: NDArray[np.int32], table: CandidateTable
    ) -> NDArray[np.float32]: ...
    def give_up(self, reason: str) -> None: ...
    @property
    def failed(self) -> bool: ...
    @property
    def cuda_version(self) -> int: ...
    @property
    def limits(self) -> dict[str, int]: ...

class Submission:
    @property
    def done(self) -> bool: ...
    def wait(self, timeout_s: float | None = None) -> bool: ...
    def result(self) -> NDArray[np.float32]: ...
    def cancel(self) -> bool: ...
    @property
    def probabilities(self) -> NDArray[np.float32]: ...
    @property
    def queue_us(self) -> NDArray[np.int64]: ...
    @property
    def execute_us(self) -> NDArray[np.int64]: ...
    @property
    def statuses(self) -> list[str]: ...

class BatchScheduler:
    def __init__(
        self,
        executor: Executor | Callable[[NDArray[np.int32], NDArray[np.int32], Any], NDArray[np.float32]],
        *,
        max_batch_requests: int = 64,
        max_batch_tokens: int = 16384,
        max_instruction_tokens: int = 512,
        max_queue_requests: int = 4096,
        max_queue_tokens: int = 2097152,
        ageing_us: int = 100000,
        deadline_margin: float = 1.5,
    ) -> None: ...
    def score(
        self,
        token_ids: NDArray[np.int32],
        cu_seqlens: NDArray[np.int32] | None,
        table: CandidateTable,
        *,
        deadline_us: int | None = None,
        priority: int = 0,
    ) -> Submission: ...
    def submit(
        self,
        token_ids: NDArray[np.int32],
        cu_seqlens: NDArray[np.int32] | None,
        table: CandidateTable,
        *,
        deadline_us: int | None = None,
        priority: int = 0,
        callback: Callable[[Submission], object] | None = None,
    ) -> Submission: ...
    def ascore(
        self,
        token_ids: NDArray[np.int32],
        cu_seqlens: NDArray[np.int32] | None,
        table: CandidateTable,
        *,
        deadline_us: int | None = None,
        priority: int = 0,
    ) -> asyncio.Future[Submission]: ...
    def ask(
        self, num_requests: int, num_candidates: int, *, deadline_us: int | None = None, priority: int = 0
    ) -> ModelSatError | None: ...
    def stats(self) -> dict[str, Any]: ...
    def drain(self, timeout_s: float | None = None) -> bool: ...
    def close(self) -> None: ...
    def __enter__(self) -> BatchScheduler: ...
    def __exit__(self, *args: object) -> None: ...
    @property
    def limits(self) -> dict[str, int]: ...
