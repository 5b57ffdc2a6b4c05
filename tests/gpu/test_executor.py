"""The CUDA executor on a GPU: near the fp32 network, the same bits in every batch, and never a wrong number."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from modelsat_engine import Engine, _core
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda import DTYPE_VARIABLE, CudaExecutor
from tests.runtime.native_bundle import (
    POSITIONS,
    Shape,
    random_instructions,
    random_network,
    random_table,
    reference_scores,
    write_native_bundle,
)

SEED = int(np.random.SeedSequence().generate_state(1)[0] % 2**31)
PLAIN = Shape(layers=3, hidden=96, heads=3, intermediate=200, relevance_hidden=32)
MEMORY = Shape(layers=4, inject_at=2, hidden=64, heads=4, memory_rows=7, views=2)


@pytest.fixture(autouse=True)
def _say_seed() -> None:
    print(f"seed {SEED}")


@pytest.fixture(params=[PLAIN, MEMORY], ids=["relevance head", "memory and views"])
def shape(request: pytest.FixtureRequest) -> Shape:
    chosen: Shape = request.param
    return chosen


@pytest.fixture
def bundle(tmp_path: Path, shape: Shape) -> Bundle:
    return Bundle.load(write_native_bundle(tmp_path, random_network(shape, SEED)))


@pytest.fixture
def table(bundle: Bundle, shape: Shape) -> CandidateTable:
    return random_table(bundle, random_network(shape, SEED), 17, SEED + 1)


@pytest.fixture
def executor(bundle: Bundle) -> Iterator[CudaExecutor]:
    opened = CudaExecutor(bundle, 1)
    yield opened
    opened.close()


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 5e-5), ("float16", 0.01), ("bfloat16", 0.08)])
def test_scores_are_near_the_network(
    bundle: Bundle, table: CandidateTable, shape: Shape, dtype: str, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DTYPE_VARIABLE, dtype)
    executor = CudaExecutor(bundle, 1)
    instructions = random_instructions(17, SEED + 2)
    scores = executor.score(PackedBatch.pack(instructions), table)
    assert executor.name == "cuda"
    expected = reference_scores(random_network(shape, SEED), instructions, table, int8=False)
    difference = np.abs(scores - expected).max()
    print(f"{dtype}: largest |dP| {difference:.2e}")
    assert difference <= bound
    executor.close()


def test_a_pair_has_the_same_bits_in_every_batch_and_zoo(executor: CudaExecutor, table: CandidateTable) -> None:
    instructions = random_instructions(37, SEED + 3)
    together = executor.score(PackedBatch.pack(instructions), table)
    for b in (0, 5, 36):
        alone = executor.score(PackedBatch.pack(instructions[b : b + 1]), table)
        np.testing.assert_array_equal(alone[0], together[b])
    assert executor.name == "cuda"
    small = table.without(table.names[:3] + table.names[4:])
    np.testing.assert_array_equal(executor.score(PackedBatch.pack(instructions), small)[:, 0], together[:, 3])


def test_two_snapshots_in_turns_keep_their_own_scores(
    executor: CudaExecutor, table: CandidateTable, bundle: Bundle, shape: Shape
) -> None:
    other = random_table(bundle, random_network(shape, SEED), 16, SEED + 9)
    batch = PackedBatch.pack(random_instructions(5, SEED + 4))
    expected = [executor.score(batch, table), executor.score(batch, other)]
    failures: list[BaseException] = []

    def ask(which: int) -> None:
        try:
            for _ in range(50):
                np.testing.assert_array_equal(executor.score(batch, (table, other)[which]), expected[which])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert executor.name == "cuda"


def test_a_python_thread_that_keeps_the_gil_stops_no_batch(executor: CudaExecutor, table: CandidateTable) -> None:
    handle, batch = executor.core_table(table, 1), PackedBatch.pack(random_instructions(5, SEED + 7))
    expected = executor.score(batch, table)
    with _core.BatchScheduler(executor.core) as scheduler:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # from here on this thread gives the GIL away only where it waits
        try:
            submission = scheduler.submit(batch.token_ids, batch.cu_seqlens, handle)
            until = time.monotonic() + 30
            while not submission.done and time.monotonic() < until:
                pass
            done = submission.done
        finally:
            sys.setswitchinterval(before)
        assert done
        np.testing.assert_array_equal(submission.probabilities, expected)
    assert executor.name == "cuda"


def test_new_sizes_are_captured_and_new_snapshots_loaded_while_batches_run(
    executor: CudaExecutor, table: CandidateTable, bundle: Bundle, shape: Shape
) -> None:
    batch = PackedBatch.pack(random_instructions(9, SEED + 8))
    expected = executor.score(batch, table)
    handle, stop = executor.core_table(table, 1), threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                scores = executor.core.score(batch.token_ids, batch.cu_seqlens, handle)
                np.testing.assert_array_equal(scores, expected)
        except BaseException as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        network = random_network(shape, SEED)
        for count in (40, 41, 130, 300):
            grown = random_table(bundle, network, count, SEED + count)
            scores = executor.score(batch, grown)
            difference = np.abs(scores - reference_scores(network, batch_parts(batch), grown, int8=False)).max()
            assert difference < 0.01
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert executor.name == "cuda"


def batch_parts(batch: PackedBatch) -> list[np.ndarray]:
    """The instructions of a batch."""
    return np.split(batch.token_ids, batch.cu_seqlens[1:-1])


@pytest.mark.parametrize("shape", [PLAIN], indirect=True, ids=["relevance head"])
def test_torch_may_have_another_default_device(bundle: Bundle, table: CandidateTable) -> None:
    torch.set_default_device("cuda")
    try:
        executor = CudaExecutor(bundle, 1)
        assert executor.score(PackedBatch.pack(random_instructions(2, SEED)), table).shape == (2, 17)
        assert executor.name == "cuda"
        executor.close()
    finally:
        torch.set_default_device(None)


def test_two_processes_share_one_gpu() -> None:
    script = (
        "import json; from modelsat_engine import Engine\n"
        "with Engine.load(executor='cuda') as engine:\n"
        "    decisions = [engine.route('Write a haiku about rain.') for _ in range(50)]\n"
        "    print(json.dumps([engine.executor, *(decision.probabilities for decision in decisions)]))"
    )
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [json.loads(process.communicate()[0]) for process in processes]
    assert found[0][0] == "cuda"
    assert all(probabilities == found[0][1] for probabilities in found[0][2:])
    assert found[1] == found[0]


def test_a_device_that_fails_for_good_ends_no_process() -> None:
    script = (
        "import torch; from modelsat_engine import Engine\n"
        "with Engine.load(executor='cuda') as engine:\n"
        "    names = [engine.route('Write a haiku about rain.').executor]\n"
        "    try:\n"
        "        torch.zeros(1, device='cuda')[torch.tensor([5], device='cuda')].cpu()\n"
        "    except RuntimeError as error:\n"
        "        assert 'device-side assert' in str(error), error\n"
        "    names += [engine.route('Write a haiku about rain.').executor for _ in range(2)]\n"
        "print(*names)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    print(done.stderr[-2000:])
    assert (done.returncode, done.stdout.split()) == (0, ["cuda", "native", "native"])


@pytest.mark.parametrize("shape", [PLAIN], indirect=True, ids=["relevance head"])
def test_a_zoo_that_does_not_fit_the_memory_is_scored_elsewhere(
    executor: CudaExecutor, bundle: Bundle, table: CandidateTable, shape: Shape
) -> None:
    batch = PackedBatch.pack(random_instructions(3, SEED + 5))
    executor.score(batch, table)
    large = random_table(bundle, random_network(shape, SEED), 3000, SEED + 6)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        scores = executor.score(batch, large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert executor.name == "native"
    assert executor.fallback_reason is not None
    assert "out of memory" in executor.fallback_reason
    assert scores.shape == (3, 3000)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("shape", [PLAIN], indirect=True, ids=["relevance head"])
def test_lengths_from_one_token_to_the_limit_fill_every_bucket(
    executor: CudaExecutor, table: CandidateTable, shape: Shape
) -> None:
    network = random_network(shape, SEED)
    for count in (1, 2, 3, 9, 33, 64):
        instructions = random_instructions(count, SEED + count, longest=POSITIONS if count % 2 else 5)
        scores = executor.score(PackedBatch.pack(instructions), table)
        assert np.abs(scores - reference_scores(network, instructions, table, int8=False)).max() < 0.01
    assert executor.name == "cuda"


def test_the_shipped_router_routes_on_the_gpu() -> None:
    texts = ["Prove that the square root of 2 is irrational.", "Write a haiku about rain.", "2 + 2 = ?"]
    with Engine.load(executor="cuda") as engine, Engine.load(executor="onnxruntime") as exact:
        difference = np.abs(engine.score(texts) - exact.score(texts))
        decision = engine.route(texts[0])
    print(f"largest |dP| {difference.max():.2e}, mean {difference.mean():.2e}")
    assert decision.executor == "cuda"
    assert difference.mean() <= 0.002
    assert difference.max() <= 0.02
