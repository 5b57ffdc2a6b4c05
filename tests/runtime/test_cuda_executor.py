"""The CUDA executor without a GPU: sizes of passes, what a batch looks like to the device, and who takes over."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelsat_engine import Engine
from modelsat_engine.errors import ExecutorError, InstructionError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch, available_executors, create_executor
from modelsat_engine.runtime.executors.cuda import CudaExecutor
from modelsat_engine.runtime.executors.cuda_buckets import Bucket, Ladder, split, write_inputs
from modelsat_engine.runtime.executors.cuda_device import device_reason
from tests.runtime.native_bundle import (
    POSITIONS,
    VOCAB,
    Shape,
    random_instructions,
    random_network,
    random_table,
    write_native_bundle,
)

LADDER = Ladder(max_requests=64, max_tokens=8192, max_instruction_tokens=128, views=1)


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
    return Bundle.load(write_native_bundle(tmp_path, random_network(Shape(), 1)))


@pytest.fixture
def table(bundle: Bundle) -> CandidateTable:
    return random_table(bundle, random_network(Shape(), 1), 5, 2)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError("CUDA error: device lost")],
    ids=["out of memory", "device lost"],
)
def test_the_native_executor_takes_over_when_the_device_fails(
    bundle: Bundle, table: CandidateTable, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    device = FailingDevice(error)
    executor = CudaExecutor(bundle, 1, device)
    assert (executor.name, executor.fallback_reason) == ("cuda", None)
    batch = PackedBatch.pack(random_instructions(3, 4))
    with caplog.at_level(logging.WARNING):
        scores = [executor.score(batch, table) for _ in range(2)]
    native = create_executor("native", bundle, 1)
    for given_scores in scores:
        np.testing.assert_array_equal(given_scores, native.score(batch, table))
    assert executor.name == "native"
    assert executor.fallback_reason == f"the GPU failed ({error}); restart to use it again"
    assert "executor 'cuda' gives way to 'native'" in caplog.text
    assert device.calls == 1
    executor.close()


def test_an_engine_goes_on_and_its_statistics_say_what_happened() -> None:
    shipped = Bundle.load()
    executor = CudaExecutor(shipped, 1, FailingDevice(RuntimeError("CUDA error: unspecified launch failure")))
    with Engine(shipped, shipped.zoo, executor, 1, "latency", 100) as engine:
        assert engine.stats()["executor_fallback"] is None
        decision = engine.route("What is the capital of France?")
        stats = engine.stats()
    assert decision.executor == stats["executor"] == "native"
    assert stats["executor_fallback"].startswith("the GPU failed (CUDA error: unspecified launch failure)")
    with Engine.load(executor="native") as native:
        assert native.stats()["executor_fallback"] is None
        assert native.route("What is the capital of France?").probabilities == decision.probabilities


def test_an_overflow_is_an_error_and_no_reason_to_give_up_the_device(bundle: Bundle, table: CandidateTable) -> None:
    executor = CudaExecutor(bundle, 1, FailingDevice(ExecutorError("the network's arithmetic overflowed")))
    with pytest.raises(ExecutorError, match="overflowed"):
        executor.score(PackedBatch.pack(random_instructions(1, 4)), table)
    assert executor.name == "cuda"


def test_bad_instructions_never_reach_the_device(bundle: Bundle, table: CandidateTable) -> None:
    device = FailingDevice(AssertionError("reached the device"))
    executor = CudaExecutor(bundle, 1, device)
    for ids, message in (
        ([3, VOCAB], f"token id {VOCAB} is not in the vocabulary of {VOCAB}"),
        ([-1], "token id -1 is not in the vocabulary"),
        ([], "instruction 1 has no token"),
        ([5] * (POSITIONS + 1), f"instruction 1 has too many tokens; pass 1 to {POSITIONS} tokens"),
    ):
        batch = PackedBatch.pack([np.array([1], np.int32), np.array(ids, np.int32)])
        with pytest.raises(InstructionError, match=message):
            executor.score(batch, table)
    assert device.calls == 0
    empty = table.without(table.names)
    assert executor.score(PackedBatch.pack([np.array([1], np.int32)]), empty).shape == (1, 0)


def test_a_machine_without_a_device_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_reason() == "CUDA_VISIBLE_DEVICES='' hides every GPU"
    reason = available_executors()["cuda"]
    assert reason is not None
    assert reason.startswith("CUDA_VISIBLE_DEVICES='' hides every GPU")
    with pytest.raises(ExecutorError, match="executor 'cuda' cannot be used: CUDA_VISIBLE_DEVICES='' hides every GPU"):
        create_executor("cuda", bundle, 1)


@given(requests=st.integers(1, 64), tokens_each=st.integers(1, 128), candidates=st.integers(1, 5000))
def test_every_batch_has_a_bucket_that_holds_it_and_fits_the_buffers(
    requests: int, tokens_each: int, candidates: int
) -> None:
    room = LADDER.candidates(candidates)
    largest = LADDER.largest(room)
    instructions = [np.full(tokens_each, i, np.int32) for i in range(requests)]
    seen = []
    for place, part in split(PackedBatch.pack(instructions), LADDER.requests_per_pass(room)):
        bucket = LADDER.bucket(len(part), len(part.token_ids), room)
        assert len(part) <= bucket.requests <= largest.requests
        assert len(part.token_ids) <= bucket.tokens <= largest.tokens
        assert candidates <= bucket.candidates == largest.candidates
        assert bucket.requests * bucket.candidates <= max(32768, room)
        assert part.cu_seqlens[0] == 0
        assert part.cu_seqlens[-1] == len(part.token_ids)
        seen += [int(ids[0]) for ids in np.split(part.token_ids, part.cu_seqlens[1:-1])]
        assert len(seen) == place.stop
    assert seen == list(range(requests))


def test_the_usual_buckets_hold_one_instruction_of_any_length_and_fit_the_buffers() -> None:
    usual = list(LADDER.usual(16))
    assert len(set(usual)) == len(usual) <= 40
    assert {bucket.tokens for bucket in usual if bucket.requests == 1} == {32, 64, 128}
    largest = LADDER.largest(16)
    assert all(bucket.requests <= largest.requests and bucket.tokens <= largest.tokens for bucket in usual)
    assert largest in usual


def test_a_batch_is_described_with_positions_and_padding() -> None:
    bucket = Bucket(requests=4, tokens=8, candidates=16)
    inputs = np.full(bucket.inputs, -9, np.int32)
    write_inputs(PackedBatch.pack([np.array([7, 8, 9], np.int32), np.array([5, 6], np.int32)]), bucket, inputs)
    assert inputs[:8].tolist() == [7, 8, 9, 5, 6, 0, 0, 0]
    assert inputs[8:16].tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert inputs[16:].tolist() == [0, 3, 5, 5, 5]
