"""The passes of the TensorRT executor on a played device: right numbers from right places, in every bucket."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.onnx import export_router
from modelsat_engine.export.tensorrt.engine_file import EngineIdentity
from modelsat_engine.export.tensorrt.profiles import RouterSizes, usual_buckets
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.executors import PackedBatch
from tests.export.tensorrt.identities import identity_of
from tests.runtime import played_device
from tests.runtime.native_bundle import (
    POSITIONS,
    Shape,
    random_instructions,
    random_network,
    random_table,
    reference_scores,
    write_native_bundle,
)
from tests.runtime.played_device import Engine, Stream, played_tensorrt

pytest.importorskip("cuda.bindings", reason="the executor needs cuda-bindings")

SEED = int(np.random.SeedSequence().generate_state(1)[0] % 2**31)
_PASSES = "modelsat_engine.runtime.executors.tensorrt_passes"
PLAIN = Shape(relevance_hidden=9)
MEMORY = Shape(layers=4, inject_at=2, memory_rows=7, views=2)


@pytest.fixture(scope="module", params=[PLAIN, MEMORY], ids=["relevance head", "memory and views"])
def network(request: pytest.FixtureRequest) -> ModelSatNetwork:
    print(f"seed {SEED}")
    return random_network(request.param, SEED)


@pytest.fixture(scope="module")
def bundle(network: ModelSatNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = write_native_bundle(tmp_path_factory.mktemp("passes"), network)
    export_router(network, folder)
    write_manifest(folder)
    return Bundle.load(folder)


@pytest.fixture
def identity(bundle: Bundle) -> EngineIdentity:
    """With room for 24 rows of candidates and views only, so that zoos are scored in parts."""
    made = identity_of(bundle)
    few = [
        replace(profile, candidates=replace(profile.candidates, usual=4, largest=24 // bundle.config["views"]))
        for profile in made.profiles
    ]
    return replace(made, profiles=tuple(few))


@pytest.fixture
def engine(bundle: Bundle, identity: EngineIdentity) -> Engine:
    return Engine(identity, RouterSizes.of(bundle.config), bundle.file("router.onnx"))


@pytest.fixture
def load(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes passes whose device and whose TensorRT are played."""

    def loaded(engine: Engine | None, identity: EngineIdentity) -> Any:
        monkeypatch.setitem(sys.modules, "tensorrt", played_tensorrt(engine))
        monkeypatch.delitem(sys.modules, _PASSES, raising=False)
        monkeypatch.setattr(Stream, "refuses_capture", False)
        tensorrt_passes = importlib.import_module(_PASSES)
        for name in ("DeviceBuffer", "PinnedBuffer", "Stream", "CapturedGraph"):
            monkeypatch.setattr(tensorrt_passes, name, getattr(played_device, name))
        monkeypatch.setattr(tensorrt_passes, "CudaError", played_device.PlayedError)
        monkeypatch.setattr(tensorrt_passes, "use_device", lambda index: None)
        return tensorrt_passes.TensorRtPasses(b"plan", identity, RouterSizes.of(bundle.config))

    return loaded


def test_every_size_of_batch_and_zoo_is_scored_as_the_network_scores_it(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle, network: ModelSatNetwork
) -> None:
    passes = load(engine, identity)
    for count, candidates in ((1, 1), (1, 17), (3, 24), (37, 5), (70, 61)):
        table = random_table(bundle, network, candidates, SEED + candidates)
        instructions = random_instructions(count, SEED + count)
        scores = passes.score(PackedBatch.pack(instructions), table)
        assert scores.shape == (count, candidates)
        expected = reference_scores(network, instructions, table, int8=False)
        np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_two_snapshots_in_turns_keep_their_own_scores(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle, network: ModelSatNetwork
) -> None:
    passes = load(engine, identity)
    tables = [random_table(bundle, network, count, SEED + count) for count in (7, 9, 40)]
    batch = PackedBatch.pack(random_instructions(5, SEED))
    first = [passes.score(batch, table) for table in tables]
    for _ in range(2):
        for table, expected in zip(tables, first, strict=True):
            np.testing.assert_array_equal(passes.score(batch, table), expected)


def test_after_warming_no_request_makes_a_context(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle, network: ModelSatNetwork
) -> None:
    passes = load(engine, identity)
    passes.warm(5)
    prepared = engine.contexts
    assert prepared == len(usual_buckets(identity.profiles, 5))
    table = random_table(bundle, network, 5, SEED)
    for count in (1, 2, 3, 33, 64):
        for longest in (1, 16, 17, POSITIONS):
            passes.score(PackedBatch.pack(random_instructions(count, SEED + count, longest)), table)
    assert engine.contexts == prepared
    assert Stream.current.launches > 0


def test_what_cannot_be_captured_is_queued_each_time(
    load: Callable[..., Any],
    engine: Engine,
    identity: EngineIdentity,
    bundle: Bundle,
    network: ModelSatNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = load(engine, identity)
    monkeypatch.setattr(Stream, "refuses_capture", True)
    table = random_table(bundle, network, 5, SEED)
    instructions = random_instructions(3, SEED)
    scores = [passes.score(PackedBatch.pack(instructions), table) for _ in range(2)]
    assert Stream.current.launches == 0
    for one in scores:
        np.testing.assert_allclose(one, reference_scores(network, instructions, table, int8=False), atol=2e-5)


def test_an_overflow_is_an_error_that_says_what_to_build(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle, network: ModelSatNetwork
) -> None:
    passes = load(engine, identity)
    table = random_table(bundle, network, 5, SEED)
    broken = type(table)(table.profiles, type(table.slice(0, 1))(table.inquiry_start * np.float32("inf"), table.memory))
    with pytest.raises(ExecutorError, match=r"overflowed in fp16; build an engine of more range: .*--precision bf16"):
        passes.score(PackedBatch.pack(random_instructions(2, SEED)), broken)


def test_a_plan_that_tensorrt_refuses_is_an_error_in_its_words(
    load: Callable[..., Any], identity: EngineIdentity
) -> None:
    with pytest.raises(ExecutorError) as raised:
        load(None, identity)
    assert str(raised.value) == (
        "TensorRT cannot load the engine: Serialization assertion failed: version tag; build it again: "
        "modelsat export --to tensorrt"
    )


def test_a_plan_that_is_not_what_its_header_says_is_refused(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle
) -> None:
    with pytest.raises(ExecutorError, match=f"has {len(identity.profiles)} profiles, its header names 2"):
        load(engine, replace(identity, profiles=identity.profiles[:2]))
    with pytest.raises(ExecutorError, match=r"profile latency-16 of the engine takes inquiry_start of .*header says"):
        load(engine, identity_of(bundle))
    engine.names.append("something")
    engine.num_io_tensors += 1
    with pytest.raises(ExecutorError, match=r"the engine takes and gives .*'something'"):
        load(engine, identity)


def test_a_table_of_another_router_is_refused(
    load: Callable[..., Any], engine: Engine, identity: EngineIdentity, bundle: Bundle, tmp_path: Path
) -> None:
    other = random_network(Shape(hidden=40, heads=5), SEED)
    foreign = random_table(Bundle.load(write_native_bundle(tmp_path, other)), other, 3, SEED)
    with pytest.raises(ExecutorError, match="the candidate table belongs to a router of other sizes"):
        load(engine, identity).score(PackedBatch.pack(random_instructions(1, SEED)), foreign)
