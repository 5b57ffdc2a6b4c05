"""A provider is used or refused, never fallen back from. What a GPU would add is checked where there is one."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime import onnx_providers
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.executors import PackedBatch, available_executors, create_executor
from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.runtime.onnx_providers import CPU, CUDA, PROVIDERS, TENSORRT, require_in_use, unavailable_reason
from modelsat_engine.runtime.onnx_session import open_session
from tests.export.random_bundle import write_random_bundle


def test_the_processor_s_provider_runs_everywhere() -> None:
    assert unavailable_reason() is None
    session = onnxruntime.InferenceSession(onnx_providers._PROBE, providers=[CPU.title])
    assert session.run(None, {"x": np.array([-2.5], np.float32)})[0].tolist() == [0.0]
    require_in_use(session, CPU)


def test_each_provider_is_an_executor_of_its_own(bundle: Bundle) -> None:
    reasons = available_executors()
    for provider in (CUDA, TENSORRT):
        name = f"onnxruntime-{provider.name}"
        assert reasons[name] == unavailable_reason(provider)
        if reasons[name] is not None:
            with pytest.raises(ExecutorError, match=rf"executor '{name}' cannot be used: "):
                create_executor(name, bundle, 1)
            with pytest.raises(ExecutorError, match=r"onnxruntime|driver|provider"):
                OnnxRuntimeExecutor(bundle, 1, provider)


def test_a_session_that_fell_back_is_refused(bundle: Bundle) -> None:
    session = open_session(bundle.file("router.onnx"), 1)
    for provider in (CUDA, TENSORRT):
        with pytest.raises(ExecutorError, match=rf"fell back from {provider.title} to CPUExecutionProvider"):
            require_in_use(session, provider)


def test_a_session_that_leaves_products_to_the_processor_is_refused(bundle: Bundle) -> None:
    """ONNX Runtime's own account of a session on the CPU, read as that of a provider that took nothing."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    real = onnxruntime.InferenceSession(str(bundle.file("router.onnx")), options, providers=[CPU.title])
    if not hasattr(real, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime does not say which provider runs which operator")
    seen = SimpleNamespace(
        get_providers=lambda: [CUDA.title, CPU.title],
        get_provider_graph_assignment_info=real.get_provider_graph_assignment_info,
    )
    with pytest.raises(ExecutorError, match=r"leaves \d+ operators of the graph to the CPU \(.*MatMul"):
        require_in_use(seen, CUDA)


@pytest.mark.parametrize("missing", ["driver", "GPU", "library"])
def test_what_is_missing_is_said(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with GPU providers, on a machine that lacks one thing; the library that fails to load is a real one."""
    driver = SimpleNamespace(cuInit=lambda flags: 100 if missing == "GPU" else 0)
    load = ctypes.CDLL

    def open_library(name: str, mode: int = ctypes.DEFAULT_MODE) -> object:
        if name == "libcuda.so.1":
            return load("libcuda-of-nobody.so.1") if missing == "driver" else driver
        return load("libcublas-of-nobody.so.1") if missing == "library" else driver

    monkeypatch.setattr(onnx_providers.ctypes, "CDLL", open_library)
    titles = [provider.title for provider in PROVIDERS.values()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: titles)
    reason = unavailable_reason(CUDA) or ""
    expected = {
        "driver": "there is no NVIDIA driver",
        "GPU": "the NVIDIA driver finds no GPU (cuInit gives 100)",
        "library": "libonnxruntime_providers_cuda.so cannot be loaded (libcublas-of-nobody.so.1: cannot open shared",
    }
    assert expected[missing] in reason
    if missing == "library":
        assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in reason


@pytest.mark.parametrize("memory_rows", [0, 1])
def test_a_router_of_the_uncut_layout_runs_in_small_pieces(
    tmp_path: Path, memory_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.export.precision import export_onnx
    from modelsat_engine.runtime.executors import onnxruntime as executor_module

    bundle = write_random_bundle(tmp_path / "bundle", layout="capability_first", memory_rows=memory_rows)
    export_onnx(bundle, tmp_path / "router.onnx")
    tokenizer = InstructionTokenizer.from_file(bundle.file("tokenizer.json"), 64)
    table = CandidateTable.build(bundle.zoo, CapabilityEncoder(bundle, tokenizer))
    rng = np.random.default_rng(1)
    batch = PackedBatch.pack([rng.integers(4, 80, length).astype(np.int32) for length in (7, 1, 33)])
    whole = OnnxRuntimeExecutor(bundle, 1, graph=tmp_path / "router.onnx").score(batch, table)
    monkeypatch.setattr(executor_module, "MAX_PAIRS_PER_RUN", 2)
    pieces = OnnxRuntimeExecutor(bundle, 1, graph=tmp_path / "router.onnx").score(batch, table)
    assert whole.shape == (3, 3)
    assert whole.std() > 0.01
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
