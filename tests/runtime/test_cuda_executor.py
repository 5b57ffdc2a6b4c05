"""The CUDA executor without a GPU: sizes of passes, graphs launched through a stand-in for the driver, and who takes
over when it fails."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelsat_engine import Engine, _core
from modelsat_engine.errors import ExecutorError, InstructionError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch, available_executors, create_executor, cuda, cuda_device
from modelsat_engine.runtime.executors.cuda import CudaExecutor
from modelsat_engine.runtime.executors.cuda_buckets import Bucket, Ladder, write_inputs
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
from tests.runtime.stand_in_device import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    StandInDevice,
    build_stand_in,
    stand_in_scores,
)

LADDER = Ladder(max_requests=64, max_tokens=8192, max_instruction_tokens=128, views=1)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stand_in(tmp_path_factory.mktemp("stand_in"))


@pytest.fixture
def device(stand_in: Path) -> StandInDevice:
    return StandInDevice(stand_in, POSITIONS)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_native_bundle(tmp_path, random_network(Shape(), 1)))


@pytest.fixture
def table(bundle: Bundle) -> CandidateTable:
    return random_table(bundle, random_network(Shape(), 1), 5, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64])
def test_batches_of_every_size_are_scored_on_the_device(
    bundle: Bundle, table: CandidateTable, device: StandInDevice, count: int
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    for longest in (POSITIONS, 3):
        batch = PackedBatch.pack(random_instructions(count, count + 7, longest))
        np.testing.assert_array_equal(executor.score(batch, table), stand_in_scores(batch, table))
    assert device.loads == 1
    assert executor.name == "cuda"
    executor.close()
    assert device.released == 1
    with pytest.raises(ExecutorError, match="closed"):
        executor.score(batch, table)


def test_snapshots_in_turns_keep_their_own_scores(bundle: Bundle, table: CandidateTable, device: StandInDevice) -> None:
    executor = CudaExecutor(bundle, 1, device)
    network = random_network(Shape(), 1)
    snapshots = [table, *(random_table(bundle, network, count, count) for count in (5, 16, 17, 200))]
    failures: list[BaseException] = []

    def ask(seed: int) -> None:
        try:
            for round_ in range(20):
                chosen = snapshots[(seed + round_) % len(snapshots)]
                batch = PackedBatch.pack(random_instructions(1 + round_ % 5, 100 * seed + round_))
                np.testing.assert_array_equal(executor.score(batch, chosen), stand_in_scores(batch, chosen))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    executor.close()


def test_a_python_thread_that_keeps_the_gil_stops_no_batch(
    bundle: Bundle, table: CandidateTable, device: StandInDevice
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    handle = executor.core_table(table, 1)
    batch = PackedBatch.pack(random_instructions(3, 5))
    limits = executor.limits()
    in_python = _core.CandidateTable(table, len(table))
    with (
        _core.BatchScheduler(executor.core, max_instruction_tokens=limits.max_instruction_tokens) as scheduler,
        _core.BatchScheduler(lambda *_: stand_in_scores(batch, table)) as needs_python,
    ):
        before = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # from here on this thread gives the GIL away only where it waits
        try:
            unaided = needs_python.submit(batch.token_ids, batch.cu_seqlens, in_python)
            submission = scheduler.submit(batch.token_ids, batch.cu_seqlens, handle)
            until = time.monotonic() + 30
            while not submission.done and time.monotonic() < until:
                pass
            done = (submission.done, unaided.done)
        finally:
            sys.setswitchinterval(before)
        assert done == (True, False)
        np.testing.assert_array_equal(submission.probabilities, stand_in_scores(batch, table))
        np.testing.assert_array_equal(unaided.result(), stand_in_scores(batch, table))
    executor.close()


def test_whoever_waits_for_the_device_keeps_no_other_python_thread_waiting(
    bundle: Bundle, table: CandidateTable, device: StandInDevice
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    batch = PackedBatch.pack(random_instructions(2, 6))
    executor.score(batch, table)
    device.pause(True)
    answers: list[np.ndarray] = []
    waiting = threading.Thread(target=lambda: answers.append(executor.score(batch, table)))
    waiting.start()
    until = time.monotonic() + 30
    while device.calls().count("cuGraphLaunch") < 2 and time.monotonic() < until:
        pass
    assert answers == []  # and this thread has come here meanwhile
    device.pause(False)
    waiting.join()
    np.testing.assert_array_equal(answers[0], stand_in_scores(batch, table))
    executor.close()


@pytest.mark.parametrize(
    ("function", "result", "reason"),
    [
        ("cuGraphLaunch", OUT_OF_MEMORY, "cuGraphLaunch: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"),
        (
            "cuEventQuery",
            DEVICE_LOST,
            "cuEventQuery: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)",
        ),
    ],
    ids=["out of memory", "device lost"],
)
def test_the_native_executor_takes_over_when_the_device_fails(
    bundle: Bundle,
    table: CandidateTable,
    device: StandInDevice,
    function: str,
    result: int,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    assert (executor.name, executor.fallback_reason) == ("cuda", None)
    batch = PackedBatch.pack(random_instructions(3, 4))
    device.fail(function, result)
    with caplog.at_level(logging.WARNING):
        scores = [executor.score(batch, table) for _ in range(2)]
    native = create_executor("native", bundle, 1)
    for given_scores in scores:
        np.testing.assert_array_equal(given_scores, native.score(batch, table))
    assert executor.name == "native"
    assert executor.fallback_reason == f"the GPU failed ({reason}); restart to use it again"
    assert "executor 'cuda' gives way to 'native'" in caplog.text
    assert device.calls().count(function) <= 2  # and not once a batch
    assert device.released == 1
    later = random_table(bundle, random_network(Shape(), 1), 3, 9)
    np.testing.assert_array_equal(executor.score(batch, later), native.score(batch, later))
    executor.close()
    assert device.released == 1


def test_a_zoo_that_does_not_fit_the_memory_is_scored_elsewhere(
    bundle: Bundle, table: CandidateTable, device: StandInDevice
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    batch = PackedBatch.pack(random_instructions(3, 4))
    known = executor.core_table(table, 1)
    device.load_error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
    large = random_table(bundle, random_network(Shape(), 1), 300, 2)
    native = create_executor("native", bundle, 1)
    np.testing.assert_array_equal(executor.score(batch, large), native.score(batch, large))
    assert executor.fallback_reason == (
        "the GPU failed (CUDA out of memory. Tried to allocate 2 GiB); restart to use it again"
    )
    scores = executor.core.score(batch.token_ids, batch.cu_seqlens, known)
    np.testing.assert_array_equal(scores, native.score(batch, table))
    executor.close()


def test_a_failure_among_many_threads_is_answered_for_all_of_them(
    bundle: Bundle, table: CandidateTable, device: StandInDevice
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    network, native = random_network(Shape(), 1), create_executor("native", bundle, 1)
    batch = PackedBatch.pack(random_instructions(2, 3))
    answers = (stand_in_scores(batch, table), native.score(batch, table))
    failed, failures = threading.Event(), []

    def ask(seed: int) -> None:
        try:
            for round_ in range(40):
                if round_ == 20 and seed == 0:
                    device.load_error = RuntimeError("CUDA error: device lost")
                    device.fail("cuEventQuery", DEVICE_LOST)
                    failed.set()
                lost = failed.is_set()
                scores = executor.score(batch, table)
                # one executor's answer, never half of each
                assert any(np.array_equal(scores, answer) for answer in answers[lost:])
                executor.core_table(random_table(bundle, network, 1 + seed, round_), round_)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [thread.is_alive() for thread in threads] == [False] * 4
    assert failures == []
    assert executor.name == "native"
    executor.close()


def test_an_engine_goes_on_and_its_statistics_say_what_happened(stand_in: Path) -> None:
    shipped = Bundle.load()
    device = StandInDevice(stand_in, int(shipped.config["tokenizer"]["max_instruction_tokens"]))
    with Engine(shipped, shipped.zoo, CudaExecutor(shipped, 1, device), 1, "latency", 100) as engine:
        assert engine.route("What is the capital of France?").executor == "cuda"
        engine.candidates.remove(shipped.zoo[0].name)
        stats = engine.stats()
        assert (stats["executor"], stats["executor_fallback"]) == ("cuda", None)
        device.fail("cuGraphLaunch", DEVICE_LOST)
        decision = engine.route("What is the capital of France?")
        stats = engine.stats()
        engine.candidates.add(shipped.zoo[0])
        assert len(engine.route("What is the capital of France?").probabilities) == len(shipped.zoo)
    assert decision.executor == stats["executor"] == "native"
    assert stats["executor_fallback"].startswith("the GPU failed (cuGraphLaunch: CUDA_ERROR_ILLEGAL_ADDRESS")
    with Engine.load(executor="native") as native:
        native.candidates.remove(shipped.zoo[0].name)
        assert native.stats()["executor_fallback"] is None
        assert native.route("What is the capital of France?").probabilities == decision.probabilities


def test_without_another_executor_the_error_says_both(
    bundle: Bundle, table: CandidateTable, device: StandInDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = CudaExecutor(bundle, 1, device)
    monkeypatch.setattr("modelsat_engine.runtime.executors.cuda_fallback._FALLBACKS", ("tensorrt",))
    device.fail("cuGraphLaunch", DEVICE_LOST)
    for _ in range(2):
        with pytest.raises(ExecutorError, match="the GPU failed and no other executor runs here: cuGraphLaunch"):
            executor.score(PackedBatch.pack(random_instructions(1, 4)), table)
    executor.close()


def test_an_overflow_is_an_error_and_no_reason_to_give_up_the_device(bundle: Bundle, device: StandInDevice) -> None:
    executor = CudaExecutor(bundle, 1, device)
    network = random_network(Shape(), 1)
    broken, sound = random_table(bundle, network, 3, 2), random_table(bundle, network, 3, 2)
    broken.inquiry_start.flags.writeable = True
    broken.inquiry_start[1] = np.nan
    batch = PackedBatch.pack(random_instructions(1, 4))
    with pytest.raises(ExecutorError, match="arithmetic overflowed in float16; set MODELSAT_CUDA_DTYPE=bfloat16"):
        executor.score(batch, broken)
    assert executor.name == "cuda"
    np.testing.assert_array_equal(executor.score(batch, sound), stand_in_scores(batch, sound))
    executor.close()


def test_bad_instructions_never_reach_the_device(bundle: Bundle, table: CandidateTable, device: StandInDevice) -> None:
    executor = CudaExecutor(bundle, 1, device)
    executor.score(PackedBatch.pack([np.array([1], np.int32)]), table)
    before = device.calls()
    for ids, message in (
        ([3, VOCAB], f"token id {VOCAB} is not in the vocabulary of {VOCAB}"),
        ([-1], "token id -1 at position 1 is negative"),
        ([], "instruction 1 has 0 tokens"),
        ([5] * (POSITIONS + 1), f"instruction 1 has {POSITIONS + 1} tokens, must have 1 to {POSITIONS}"),
    ):
        batch = PackedBatch.pack([np.array([1], np.int32), np.array(ids, np.int32)])
        with pytest.raises(InstructionError, match=message):
            executor.score(batch, table)
    assert device.calls() == before
    empty = table.without(table.names)
    assert executor.score(PackedBatch.pack([np.array([1], np.int32)]), empty).shape == (1, 0)
    executor.close()


def test_a_driver_that_is_too_old_says_so(bundle: Bundle, tmp_path: Path) -> None:
    old = build_stand_in(tmp_path, "-DSTAND_IN_VERSION=11040")
    with pytest.raises(ExecutorError, match=r"cannot be used: the NVIDIA driver is for CUDA 11\.4, .* update it"):
        CudaExecutor(bundle, 1, StandInDevice(old, POSITIONS))


def test_opening_says_what_is_wrong(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "unavailable_reason", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(cuda.DTYPE_VARIABLE, "float8")
    with pytest.raises(ExecutorError, match="MODELSAT_CUDA_DTYPE is 'float8'; use float16, bfloat16, float32"):
        CudaExecutor(bundle, 1)
    monkeypatch.delenv(cuda.DTYPE_VARIABLE)
    with pytest.raises(ExecutorError, match="PyTorch sees no CUDA device, though the driver does: the driver may be"):
        CudaExecutor(bundle, 1)


def test_an_executor_that_nobody_holds_is_freed(bundle: Bundle, table: CandidateTable, device: StandInDevice) -> None:
    executor = CudaExecutor(bundle, 1, device)
    executor.score(PackedBatch.pack(random_instructions(1, 4)), table)
    core, gone = weakref.ref(executor.core), weakref.ref(executor)
    executor.close()
    del executor
    gc.collect()
    assert gone() is None
    assert core() is None
    assert device.calls()[-3:] == ["cuEventDestroy", "cuStreamDestroy", "cuCtxPopCurrent"]


def test_a_machine_without_a_device_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_reason() == "CUDA_VISIBLE_DEVICES='' hides every GPU"
    reason = available_executors()["cuda"]
    assert reason is not None
    assert reason.startswith("CUDA_VISIBLE_DEVICES='' hides every GPU")
    with pytest.raises(ExecutorError, match="executor 'cuda' cannot be used: CUDA_VISIBLE_DEVICES='' hides every GPU"):
        create_executor("cuda", bundle, 1)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("-DSTAND_IN_MAJOR=7", "Stand-in 1000 has compute capability 7.5, the kernels need 8.0 or later"),
        ("-DSTAND_IN_SILENT", "the NVIDIA driver does not answer; look at what nvidia-smi says"),
        ("-DSTAND_IN_MAJOR=9", None),
    ],
    ids=["too old", "silent", "fine"],
)
def test_a_device_that_does_not_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, reason: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda_device, "_LIBRARY", str(build_stand_in(tmp_path, flag, of="libnvidia_ml")))
    assert device_reason() == reason
    assert (cuda_device.driver() is None) == ("SILENT" in flag)
    monkeypatch.setattr(cuda_device, "_LIBRARY", "libnvidia-ml-of-nobody.so")
    assert device_reason() == "no NVIDIA driver here"


@given(requests=st.integers(1, 64), tokens_each=st.integers(1, 128), candidates=st.integers(1, 5000))
def test_every_part_of_a_batch_has_a_bucket_that_holds_it_and_fits_the_buffers(
    requests: int, tokens_each: int, candidates: int
) -> None:
    room = LADDER.candidates(candidates)
    largest = LADDER.largest(room)
    buckets = list(LADDER.buckets(room))
    part = min(requests, largest.requests)
    held = [b for b in buckets if b.requests >= part and b.tokens >= part * tokens_each]
    assert held
    assert held[0].requests < 2 * part
    assert held[0].tokens <= max(32, 2 * part * tokens_each, 16 * part)
    assert candidates <= room
    for bucket in buckets:
        assert bucket.requests <= largest.requests
        assert bucket.tokens <= largest.tokens
        assert bucket.candidates == room
        assert bucket.requests * room <= max(32768, room)


def test_the_buckets_are_few_and_rise() -> None:
    buckets = list(LADDER.buckets(16))
    assert buckets == sorted(set(buckets))
    assert len(buckets) <= 40
    assert {bucket.tokens for bucket in buckets if bucket.requests == 1} == {32, 64, 128}
    assert buckets[-1] == LADDER.largest(16)
    assert [bucket.tokens for bucket in Ladder(2, 64, 5, 1).buckets(16)] == [32, 32]


def test_a_batch_is_described_with_positions_and_padding() -> None:
    bucket = Bucket(requests=4, tokens=8, candidates=16)
    inputs = np.full(bucket.inputs, -9, np.int32)
    batch = PackedBatch.pack([np.array([7, 8, 9], np.int32), np.array([5, 6], np.int32)])
    write_inputs(batch, bucket, inputs)
    assert inputs[:8].tolist() == [7, 8, 9, 5, 6, 0, 0, 0]
    assert inputs[8:16].tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert inputs[16:].tolist() == [0, 3, 5, 5, 5]
    with pytest.raises(ValueError, match="does not fit"):
        write_inputs(batch, Bucket(1, 8, 16), np.empty(18, np.int32))
