"""TensorRT on a GPU: engines of both graphs, near the fp32 graph; the executor with them; what is refused.

Needs a GPU and TensorRT: `make tensorrt-check`. An engine takes minutes to build, so one of each kind serves all tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelsat_engine import Engine
from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.engine_file import EngineFile, write_engine
from modelsat_engine.runtime.executors import tensorrt_device
from modelsat_engine.user_files import CACHE_VARIABLE

_REASON = tensorrt_device.unavailable_reason()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=f"no TensorRT to test with: {_REASON}")
TEXTS = ["Prove that the square root of 2 is irrational.", "Write a haiku about rain.", "2 + 2 = ?"]


@pytest.fixture(autouse=True)
def _only_on_a_gpu() -> None:
    """In the place of conftest's: TensorRT needs no PyTorch with CUDA, and `_REASON` has asked already."""


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture(scope="module", params=["off", "on"], ids=["plain graph", "our kernels"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from modelsat_engine.export.tensorrt.run import export_engine

    path = tmp_path_factory.mktemp("built") / "mini.engine"
    record: dict[str, Any] = export_engine(Bundle.load(), "fp16", path, plugins=request.param)
    print(record["measured"])
    return record


@pytest.fixture
def named(built: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine, as a user names it."""
    monkeypatch.setenv(tensorrt_device.ENGINE_VARIABLE, built["engine"])
    return Path(built["engine"])


def test_the_engine_is_near_the_fp32_graph(built: dict[str, Any]) -> None:
    assert built["built"]
    assert built["measured"]["largest_difference"] <= 0.02
    assert built["measured"]["route_agreement"] >= 0.98


def test_the_shipped_router_routes_on_tensorrt(named: Path) -> None:
    with Engine.load(executor="tensorrt") as engine, Engine.load(executor="onnxruntime") as exact:
        difference = np.abs(engine.score(TEXTS) - exact.score(TEXTS))
        decision = engine.route(TEXTS[0])
        assert engine.stats()["executor_fallback"] is None
    print(f"largest |dP| {difference.max():.2e}, mean {difference.mean():.2e}")
    assert decision.executor == "tensorrt"
    assert difference.max() <= 0.02


def test_batches_of_every_size_agree_with_one_at_a_time(named: Path) -> None:
    many = [" ".join([text] * (1 + number % 9)) for number in range(70) for text in TEXTS][:150]
    with Engine.load(executor="tensorrt") as engine:
        together = engine.score(many)
        alone = np.concatenate([engine.score([text]) for text in many[:20]])
        assert engine.stats()["executor"] == "tensorrt"
    print(f"largest |dP| between a batch and alone {np.abs(together[:20] - alone).max():.2e}")
    assert np.abs(together[:20] - alone).max() <= 0.01


def test_a_plan_of_something_else_is_refused_in_tensorrts_words(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EngineFile.open(named)
    broken = tmp_path / "broken.engine"
    write_engine(broken, engine.identity, engine.plan()[: engine.plan_bytes // 2], {})
    monkeypatch.setenv(tensorrt_device.ENGINE_VARIABLE, str(broken))
    with pytest.raises(ExecutorError, match="TensorRT cannot load the engine"):
        Engine.load(executor="tensorrt")


def test_nothing_is_built_when_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tensorrt_device.ENGINE_VARIABLE, raising=False)
    with pytest.raises(ExecutorError, match=r"no engine is built for mini@.*modelsat export --to tensorrt"):
        Engine.load(executor="tensorrt")
