"""The TensorRT executor without a GPU: which engine it takes, what a batch looks like to the device, who takes over."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsat_engine import Engine
from modelsat_engine.errors import ExecutorError, InstructionError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.cache import EngineCache
from modelsat_engine.export.tensorrt.engine_file import Device, EngineFile, EngineIdentity, write_engine
from modelsat_engine.export.tensorrt.profiles import RouterSizes, bucket_for, standard_profiles
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch, create_executor, executors_for
from modelsat_engine.runtime.executors.tensorrt import TensorRtExecutor
from modelsat_engine.runtime.executors.tensorrt_batches import groups_of, write_padded
from modelsat_engine.runtime.executors.tensorrt_device import ENGINE_VARIABLE, find_engine, unsupported_reason
from modelsat_engine.user_files import CACHE_VARIABLE
from tests.export.tensorrt.identities import H100, identity_of
from tests.runtime.native_bundle import (
    POSITIONS,
    VOCAB,
    Shape,
    random_instructions,
    random_network,
    random_table,
    write_native_bundle,
)

PROFILES = standard_profiles(RouterSizes(128, (1, 440), ()))


class FailingDevice:
    """Scores nothing: the device is in trouble from the first batch on."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.calls = 0

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        self.calls += 1
        raise self._error


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_native_bundle(tmp_path / "bundle", random_network(Shape(), 1)))


@pytest.fixture
def table(bundle: Bundle) -> CandidateTable:
    return random_table(bundle, random_network(Shape(), 1), 5, 2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """The user's cache, empty."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    return EngineCache()


def keep(cache: EngineCache, identity: EngineIdentity, age_s: float = 0) -> EngineFile:
    path = cache.path_for(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = write_engine(path, identity, b"plan", {})
    changed = time.time() - age_s
    os.utime(path, (changed, changed))
    return engine


# -- which engine -----------------------------------------------------------------------------------------------------


def test_without_an_engine_it_names_the_command_that_builds_one(bundle: Bundle, cache: EngineCache) -> None:
    said = (
        f"no engine is built for {bundle.label}; build one here: modelsat export --to tensorrt --bundle {bundle.path}"
    )
    assert unsupported_reason(bundle) == said
    with pytest.raises(ExecutorError) as raised:
        find_engine(bundle, H100)
    assert str(raised.value) == said


def test_the_newest_engine_that_fits_is_taken(bundle: Bundle, cache: EngineCache) -> None:
    identity = identity_of(bundle)
    keep(cache, identity, age_s=300)
    newer = keep(cache, replace(identity, precision="bf16"), age_s=200)
    elsewhere = Device("NVIDIA H200", "9.0", H100.tensorrt)
    keep(cache, replace(identity, device=elsewhere), age_s=100)
    keep(cache, replace(identity, bundle_hash="sha256:" + "0" * 64))
    assert find_engine(bundle, H100).path == newer.path
    assert find_engine(bundle, elsewhere).identity.device == elsewhere
    assert unsupported_reason(bundle) is None


def test_engines_of_other_gpus_alone_are_refused_by_name(bundle: Bundle, cache: EngineCache) -> None:
    keep(cache, identity_of(bundle))
    here = Device("NVIDIA A100-SXM4-80GB", "8.0", "11.4.0.106")
    with pytest.raises(ExecutorError, match="the engine was built on NVIDIA H100 80GB HBM3") as raised:
        find_engine(bundle, here)
    assert "this machine has NVIDIA A100-SXM4-80GB (compute capability 8.0)" in str(raised.value)
    assert f"modelsat export --to tensorrt --bundle {bundle.path} --precision fp16" in str(raised.value)


def test_a_named_engine_is_taken_or_refused_and_no_other(
    bundle: Bundle, cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache, identity_of(bundle))
    named = tmp_path / "mine.engine"
    monkeypatch.setenv(ENGINE_VARIABLE, str(named))
    with pytest.raises(ExecutorError, match=r"cannot read the engine .*mine\.engine"):
        find_engine(bundle, H100)
    write_engine(named, identity_of(bundle, precision="int8"), b"plan", {})
    assert find_engine(bundle, H100).path == named
    write_engine(named, identity_of(bundle, bundle_hash="sha256:" + "0" * 64), b"plan", {})
    with pytest.raises(ExecutorError, match=r"mine\.engine: the engine belongs to the router mini@000000000000"):
        find_engine(bundle, H100)
    named.write_bytes(named.read_bytes()[:-2])
    with pytest.raises(ExecutorError, match=r"mine\.engine is cut short"):
        find_engine(bundle, H100)


def test_asked_for_by_name_on_a_machine_without_a_gpu_it_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(ExecutorError, match="executor 'tensorrt' cannot be used: CUDA_VISIBLE_DEVICES='-1' hides"):
        create_executor("tensorrt", bundle, 1)
    assert executors_for(bundle)["native"] is None


# -- what a batch looks like ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 128), min_size=1, max_size=200))
def test_instructions_of_like_length_go_together_each_once(lengths: list[int]) -> None:
    groups = list(groups_of(np.array(lengths), PROFILES))
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for members in groups:
        assert len(members) <= 64
        padded = {bucket_for(PROFILES, 1, lengths[member], 10).tokens for member in members}
        assert len(padded) == 1
    least = sum(
        -(-count // 64) for count in np.unique(np.searchsorted([16, 32, 64, 128], lengths), return_counts=True)[1]
    )
    assert len(groups) == least


def test_padding_is_token_0_without_attention_and_rows_beyond_have_one_token() -> None:
    batch = PackedBatch.pack([np.array(ids, np.int32) for ids in ([7, 8, 9], [5] * 40, [6, 4])])
    bucket = bucket_for(PROFILES, 3, 5, 10)
    assert (bucket.requests, bucket.tokens) == (4, 16)
    ids, mask = np.full((4, 16), -9), np.full((4, 16), -9)
    write_padded(batch, np.array([2, 0]), bucket, ids, mask)
    assert ids[:, :4].tolist() == [[6, 4, 0, 0], [7, 8, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [2, 3, 1, 1]
    assert (mask[:, 0] == 1).all()
    assert not ids[:, 4:].any()


# -- limits, errors, and who takes over -------------------------------------------------------------------------------


def test_bad_instructions_never_reach_the_device(bundle: Bundle, table: CandidateTable) -> None:
    device = FailingDevice(AssertionError("reached the device"))
    executor = TensorRtExecutor(bundle, 1, device)
    limits = executor.limits()
    assert (limits.max_batch_requests, limits.max_instruction_tokens) == (64, POSITIONS)
    for ids, message in (
        ([3, VOCAB], f"token id {VOCAB} is not in the vocabulary of {VOCAB}"),
        ([-1], "token id -1 is not in the vocabulary"),
        ([], f"instruction 1 has 0 tokens; pass 1 to {POSITIONS} tokens"),
        ([5] * (POSITIONS + 1), f"instruction 1 has {POSITIONS + 1} tokens; pass 1 to {POSITIONS} tokens"),
    ):
        batch = PackedBatch.pack([np.array([1], np.int32), np.array(ids, np.int32)])
        with pytest.raises(InstructionError, match=message):
            executor.score(batch, table)
    assert device.calls == 0
    empty = table.without(table.names)
    assert executor.score(PackedBatch.pack([np.array([1], np.int32)]), empty).shape == (1, 0)


def test_the_native_executor_takes_over_when_the_device_fails(
    bundle: Bundle, table: CandidateTable, caplog: pytest.LogCaptureFixture
) -> None:
    device = FailingDevice(RuntimeError("cudaErrorMemoryAllocation: out of memory\nmore"))
    executor = TensorRtExecutor(bundle, 1, device)
    assert (executor.name, executor.fallback_reason) == ("tensorrt", None)
    batch = PackedBatch.pack(random_instructions(3, 4))
    with caplog.at_level(logging.WARNING):
        scores = [executor.score(batch, table) for _ in range(2)]
    native = create_executor("native", bundle, 1)
    for given_scores in scores:
        np.testing.assert_array_equal(given_scores, native.score(batch, table))
    assert executor.name == "native"
    assert executor.fallback_reason == (
        "TensorRT failed (cudaErrorMemoryAllocation: out of memory); restart to use it again"
    )
    assert executor.fallback_reason in caplog.text
    assert device.calls == 1
    executor.close()
    with pytest.raises(ExecutorError, match="the executor is closed"):
        executor.score(batch, table)


def test_an_error_of_our_own_is_no_reason_to_give_up_the_device(bundle: Bundle, table: CandidateTable) -> None:
    executor = TensorRtExecutor(bundle, 1, FailingDevice(ExecutorError("the network's arithmetic overflowed")))
    for _ in range(2):
        with pytest.raises(ExecutorError, match="overflowed"):
            executor.score(PackedBatch.pack(random_instructions(1, 4)), table)
    assert executor.name == "tensorrt"


def test_an_engine_goes_on_and_its_statistics_say_what_happened() -> None:
    shipped = Bundle.load()
    executor = TensorRtExecutor(shipped, 1, FailingDevice(RuntimeError("unspecified launch failure")))
    with Engine(shipped, shipped.zoo, executor, 1, "latency", 100) as engine:
        assert engine.stats()["executor_fallback"] is None
        decision = engine.route("What is the capital of France?")
        stats = engine.stats()
    assert decision.executor == stats["executor"] == "native"
    assert stats["executor_fallback"].startswith("TensorRT failed (unspecified launch failure)")
