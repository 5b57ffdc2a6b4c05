"""The whole CUDA executor against the network in PyTorch, without a GPU.

Kernels run in Triton's interpreter, tensors lie on the CPU, and graphs are launched through the stand-in for the
driver: each is the pass that it would have captured. Python's and C++'s part in between is what runs on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda import CudaExecutor
from modelsat_engine.runtime.executors.cuda_buckets import Ladder
from modelsat_engine.runtime.executors.cuda_fallback import CreateLauncher
from modelsat_engine.runtime.executors.cuda_passes import CudaPasses
from modelsat_engine.runtime.executors.cuda_weights import read_weights
from tests.runtime.native_bundle import (
    Shape,
    random_instructions,
    random_network,
    random_table,
    reference_scores,
    write_native_bundle,
)
from tests.runtime.stand_in_device import build_stand_in

SHAPE = Shape(layers=3, inject_at=1, memory_rows=3, views=2, relevance_hidden=9)
LONGEST = 11


class PassesOnTheCpu(CudaPasses):
    """Hands the stand-in the pass itself where a graph of it would be captured."""

    def __init__(self, path: Path, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._path = str(path)
        self._library = ctypes.CDLL(self._path)
        self._library.stand_in_callback.restype = ctypes.c_void_p
        self._library.stand_in_reset()
        self.recorded = 0
        self.fails = False

    def launcher(self, create: CreateLauncher) -> _core.CudaGraphExecutor:
        return create("float32", library=self._path)

    def _record(self, queue: Callable[[], None], pool: Any) -> Any:
        if self.fails:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.recorded += 1
        run = ctypes.CFUNCTYPE(None)(queue)

        class Graph:
            kept = run

            def raw_cuda_graph_exec(self) -> int:
                return handle

        handle = int(self._library.stand_in_callback(run))
        return Graph()


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch only does with a device: streams, and page-locked memory."""

    class Stream:
        def __init__(self, device: torch.device) -> None:
            pass

        def synchronize(self) -> None:
            pass

    @contextlib.contextmanager
    def current(_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)


def test_the_executor_is_the_network(seed: int, tmp_path: Path) -> None:
    network = random_network(SHAPE, seed)
    (tmp_path / "bundle").mkdir()
    bundle = Bundle.load(write_native_bundle(tmp_path / "bundle", network))
    weights = read_weights(network.state_dict(), network.config, torch.device("cpu"), torch.float32)
    passes = PassesOnTheCpu(build_stand_in(tmp_path), weights, Ladder(2, 64, LONGEST, SHAPE.views))
    executor = CudaExecutor(bundle, 1, passes)
    # three instructions in passes of two; zoos of one size in turns, then a larger one
    small, other, large = (random_table(bundle, network, count, seed + count) for count in (3, 5, 17))
    for table in (small, other, small, large):
        instructions = random_instructions(3, seed + len(table), LONGEST)
        scores = executor.score(PackedBatch.pack(instructions), table)
        expected = reference_scores(network, instructions, table, int8=False)
        assert np.abs(scores - expected).max() < 2e-5
    assert executor.fallback_reason is None
    assert passes.recorded == 2 * 2  # rooms for 16 and for 32 candidates, passes of one and of two instructions
    wide = random_table(bundle, random_network(Shape(hidden=40, heads=5), seed), 3, 1)
    with pytest.raises(ExecutorError, match="encode the candidates with this router"):
        executor.score(PackedBatch.pack(random_instructions(1, seed, LONGEST)), wide)
    executor.close()


@pytest.mark.parametrize("answers", [True, False], ids=["device answers", "device lost"])
@pytest.mark.parametrize("when", ["opening", "closing"])
def test_nothing_is_freed_on_a_device_that_answers_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, answers: bool
) -> None:
    pinned: list[weakref.ref[torch.Tensor]] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(weakref.ref(tensor))
        return tensor

    def synchronize(_: torch.device) -> None:
        if lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    lost = False
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    network = random_network(SHAPE, 1)
    weights = read_weights(network.state_dict(), network.config, torch.device("cpu"), torch.float32)
    passes = PassesOnTheCpu(build_stand_in(tmp_path), weights, Ladder(1, 32, LONGEST, SHAPE.views))
    lost = not answers
    passes.fails = when == "opening"
    if passes.fails:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            passes.warm(3)
    else:
        passes.warm(3)
        passes.release()
    del passes
    gc.collect()
    assert len(pinned) == 2
    assert [place() is None for place in pinned] == [answers] * 2


def test_a_pytorch_that_does_not_tell_its_graphs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(SHAPE, 1)
    weights = read_weights(network.state_dict(), network.config, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    with pytest.raises(ExecutorError, match=r"PyTorch .* is too old for executor 'cuda'; install 2\.10 or later"):
        CudaPasses(weights, Ladder(2, 64, LONGEST, SHAPE.views))
