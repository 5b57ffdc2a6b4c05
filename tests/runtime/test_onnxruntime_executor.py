"""ONNX Runtime scores each instruction on its own, whatever shares the batch and however the batch is split."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.runtime import executors
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.executors import PackedBatch, available_executors, create_executor
from modelsat_engine.runtime.executors import onnxruntime as executor_module
from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor, _runs
from modelsat_engine.runtime.instruction import InstructionTokenizer
from tests.runtime.tiny_bundle import tiny_profile, tiny_tokenizer, write_tiny_bundle


def table_of(bundle: Bundle, candidates: int = 3) -> CandidateTable:
    encoder = CapabilityEncoder(bundle, InstructionTokenizer(tiny_tokenizer(), 64))
    return CandidateTable.build(
        [tiny_profile(f"m{i}", i, bundle.aptitude_test, notes="") for i in range(candidates)], encoder
    )


def instructions(seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 80, rng.integers(1, 65)).astype(np.int32) for _ in range(count)]


def test_a_score_is_the_same_alone_in_a_batch_and_in_any_order(bundle_of_any_memory: Bundle) -> None:
    executor = OnnxRuntimeExecutor(bundle_of_any_memory, 1)
    table = table_of(bundle_of_any_memory)
    rows = instructions(seed=1, count=17)
    rows[5] = rows[3]
    alone = np.concatenate([executor.score(PackedBatch.pack([row]), table) for row in rows])
    order = np.random.default_rng(2).permutation(17)
    together = executor.score(PackedBatch.pack(rows), table)
    shuffled = executor.score(PackedBatch.pack([rows[i] for i in order]), table)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(shuffled, alone[order], atol=1e-6)
    np.testing.assert_allclose(together[5], together[3], atol=1e-6)
    assert together.std(axis=0).min() > 0.01, "instructions differ"
    assert together.std(axis=1).max() > 0.01, "candidates differ"


def test_a_candidate_does_not_depend_on_the_others(
    bundle_of_any_memory: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = OnnxRuntimeExecutor(bundle_of_any_memory, 1)
    batch = PackedBatch.pack(instructions(seed=3, count=5))
    whole = table_of(bundle_of_any_memory, 101)
    expected = executor.score(batch, whole)
    for count in (1, 2, 37):
        np.testing.assert_allclose(
            executor.score(batch, table_of(bundle_of_any_memory, count)), expected[:, :count], atol=1e-6
        )
    monkeypatch.setattr(executor_module, "MAX_CANDIDATES_PER_RUN", 10)
    in_chunks = OnnxRuntimeExecutor(bundle_of_any_memory, 1).score(batch, whole)
    np.testing.assert_allclose(in_chunks, expected, atol=1e-6)


def test_no_candidate_gives_no_column(bundle: Bundle) -> None:
    scores = OnnxRuntimeExecutor(bundle, 1).score(PackedBatch.pack(instructions(4, 3)), table_of(bundle, 0))
    assert scores.shape == (3, 0)


def test_threads_change_nothing(bundle: Bundle) -> None:
    batch, table = PackedBatch.pack(instructions(5, 9)), table_of(bundle)
    one, two = (OnnxRuntimeExecutor(bundle, threads).score(batch, table) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_runs_cover_each_instruction_once_with_little_padding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 513, rng.integers(1, 200)).astype(np.int32)
    candidate_rows = int(rng.integers(0, 3000))
    runs = list(_runs(lengths, candidate_rows))
    assert sorted(np.concatenate(runs).tolist()) == list(range(len(lengths)))
    for run in runs:
        longest, real = int(lengths[run].max()), int(lengths[run].sum())
        padding = longest * len(run) - real
        assert padding <= max(executor_module._PADDING_TOKENS, executor_module._PADDING_SHARE * real)
        assert len(run) == 1 or len(run) * (longest + candidate_rows) <= executor_module._MAX_ROWS_PER_RUN


def test_equal_lengths_share_one_run() -> None:
    assert [run.tolist() for run in _runs(np.array([7, 7, 7], np.int32), 10)] == [[0, 1, 2]]


def test_a_snapshot_is_bound_once_and_freed_with_it(bundle: Bundle) -> None:
    executor = OnnxRuntimeExecutor(bundle, 1)
    batch = PackedBatch.pack(instructions(6, 1))
    first, second = table_of(bundle, 3), table_of(bundle, 4)
    for table in (first, second, first):
        executor.score(batch, table)
    assert len(executor._bound) == 2
    address = executor._bound[first][0][1]["inquiry_start"].data_ptr()
    assert address == first.inquiry_start.ctypes.data, "read in place, not copied"
    del first, table
    gc.collect()
    assert len(executor._bound) == 1


def test_every_executor_says_whether_it_can_be_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reasons = available_executors()
    assert reasons["onnxruntime"] is None
    hidden = "CUDA_VISIBLE_DEVICES='' hides every GPU"
    assert (reasons["tensorrt"] or "").startswith(hidden)
    with pytest.raises(ExecutorError, match=f"executor 'tensorrt' cannot be used: {hidden}"):
        create_executor("tensorrt", bundle, 1)
    with pytest.raises(ExecutorError, match=r"'warp' is not known; use auto, native, onnxruntime"):
        create_executor("warp", bundle, 1)
    assert create_executor("auto", bundle, 1).name == "onnxruntime", "the native one does not read this toy's weights"
    broken = executors._Kind(lambda: "it rained", executors._KINDS["onnxruntime"].create)
    monkeypatch.setitem(executors._KINDS, "onnxruntime", broken)
    with pytest.raises(ExecutorError, match="onnxruntime: it rained"):
        create_executor("auto", bundle, 1)


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    (path / "router.onnx").write_bytes((path / "capability.onnx").read_bytes())
    write_manifest(path)
    with pytest.raises(BundleError, match=r"router\.onnx takes the inputs \['correct'"):
        OnnxRuntimeExecutor(Bundle.load(path), 1)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    (path / "router.onnx").write_bytes(b"no graph")
    write_manifest(path)
    with pytest.raises(ExecutorError, match=r"cannot load .*router\.onnx"):
        OnnxRuntimeExecutor(Bundle.load(path), 1)


def test_a_failure_inside_the_runtime_is_one_error(bundle: Bundle) -> None:
    beyond_the_vocabulary = PackedBatch.pack([np.array([1_000_000], np.int32)])
    with pytest.raises(ExecutorError, match="ONNX Runtime failed on a batch"):
        OnnxRuntimeExecutor(bundle, 1).score(beyond_the_vocabulary, table_of(bundle))


def test_the_toy_graph_declares_the_axes_of_the_contract(bundle_of_any_memory: Bundle) -> None:
    graph = onnx.load(bundle_of_any_memory.file("router.onnx")).graph
    symbolic = {
        value.name: [d.dim_param for d in value.type.tensor_type.shape.dim if d.dim_param] for value in graph.input
    }
    assert symbolic["input_ids"] == symbolic["attention_mask"] == ["batch", "tokens"]
    assert all(axes == ["zoo"] for name, axes in symbolic.items() if name not in ("input_ids", "attention_mask"))
