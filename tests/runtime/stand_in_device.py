"""A device that is none: the stand-in for NVIDIA's driver, and passes that it "runs" in host memory.

What it computes belongs to no network, see csrc/tests/stand_in_libcuda.h; what is real is everything between the
scheduler and the driver's functions.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from modelsat_engine import _core
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda_buckets import Ladder
from modelsat_engine.runtime.executors.cuda_fallback import CreateLauncher, LoadedTable

SOURCES = Path(__file__).parents[2] / "csrc" / "tests"
OUT_OF_MEMORY, DEVICE_LOST = 2, 700


def build_stand_in(folder: Path, *flags: str, of: str = "libcuda") -> Path:
    """Compile one of the driver's libraries, with what the compiler that built the extension is on most machines."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    library = folder / f"stand_in_{of}_{len(list(folder.iterdir()))}.so"
    command = [
        compiler,
        "-std=c++17",
        "-O1",
        "-pthread",
        "-shared",
        "-fPIC",
        *flags,
        str(SOURCES / f"stand_in_{of}.cc"),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    return library


class StandInDevice:
    """Implements `cuda_fallback.Passes`.

    Args:
        path: of the stand-in.
        max_instruction_tokens: the longest instruction that passes are made for.
    """

    def __init__(self, path: Path, max_instruction_tokens: int) -> None:
        self._path = str(path)
        self._library = ctypes.CDLL(self._path)
        self._library.stand_in_graph.restype = ctypes.c_void_p
        self._ladder = Ladder(64, 16384, max_instruction_tokens, 1)
        self._zoos: dict[int, tuple[_core.CudaZoo, np.ndarray]] = {}
        self.load_error: Exception | None = None
        self.loads = 0
        self.released = 0
        self._library.stand_in_reset()

    def fail(self, function: str, result: int) -> None:
        """From now on a function of the driver gives that result."""
        self._library.stand_in_fail(function.encode(), result)

    def pause(self, paused: bool) -> None:
        """Whether the device leaves alone what is queued."""
        self._library.stand_in_pause(ctypes.c_bool(paused))

    def calls(self) -> list[str]:
        """The driver's functions that were called, in order."""
        text = ctypes.create_string_buffer(1 << 16)
        self._library.stand_in_calls(text, len(text))
        return text.value.decode().split()

    def launcher(self, create: CreateLauncher) -> _core.CudaGraphExecutor:
        return create("float16", library=self._path)

    def load(self, table: CandidateTable) -> LoadedTable:
        if self.load_error is not None:
            raise self.load_error
        self.loads += 1
        room = self._ladder.candidates(len(table))
        if room not in self._zoos:
            self._zoos[room] = self._capture(room)
        zoo, region = self._zoos[room]
        values = np.zeros_like(region)
        values[: len(table)] = candidate_values(table)
        return LoadedTable(zoo, [values.ctypes.data], values)

    def release(self) -> None:
        self.released += 1

    def _capture(self, room: int) -> tuple[_core.CudaZoo, np.ndarray]:
        largest = self._ladder.largest(room)
        inputs = np.full(largest.inputs, -7, np.int32)
        scores = np.full(largest.requests * room, -7, np.float32)
        region = np.full(room, -7, np.float32)
        passes = []
        for bucket in self._ladder.buckets(room):
            graph = self._library.stand_in_graph(
                *(ctypes.c_void_p(array.ctypes.data) for array in (inputs, scores, region)),
                *(ctypes.c_int32(size) for size in (bucket.requests, bucket.tokens, room)),
            )
            passes.append((bucket.requests, bucket.tokens, graph))
        zoo = _core.CudaZoo(
            (inputs, scores, region),
            candidates=room,
            inputs=inputs.ctypes.data,
            scores=scores.ctypes.data,
            regions=[(region.ctypes.data, region.nbytes)],
            passes=passes,
        )
        return zoo, region


def candidate_values(table: CandidateTable) -> np.ndarray:
    """What the stand-in has instead of inquiry rows: a number between 0 and 1 for each candidate, float32 ``[M]``."""
    start = table.inquiry_start.reshape(len(table), -1).astype(np.float64)
    return (0.5 + 0.5 * np.sin(start.sum(1))).astype(np.float32)


def stand_in_scores(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
    """What the stand-in answers, float32 ``[B, M]``."""
    shares = []
    for ids in np.split(batch.token_ids.astype(np.int64), batch.cu_seqlens[1:-1]):
        total = int(((ids + 1) * np.arange(1, len(ids) + 1)).sum())
        shares.append(np.float32(1 + total % 97) / np.float32(98))
    return candidate_values(table)[None, :] * np.array(shares, np.float32)[:, None]
