"""What the native executor refuses when it is made, and what is used instead: every reason is a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.runtime.executors import available_executors, create_executor, executors_for, native
from modelsat_engine.runtime.executors.native import ISA_VARIABLE, NativeExecutor, instruction_set, unavailable_reason
from tests.runtime.native_bundle import Shape, random_network, write_native_bundle
from tests.runtime.tiny_bundle import write_tiny_bundle

here = pytest.mark.skipif(unavailable_reason() is not None, reason=f"no native executor: {unavailable_reason()}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle that the test may spoil."""
    return write_native_bundle(tmp_path / "bundle", random_network(Shape(), 1))


def spoil(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Bundle:
    """The bundle with one tensor replaced, or left out for None, under a manifest that is right about it."""
    tensors = load_file(path / "weights.safetensors")
    changed = change(tensors.pop(name))
    if changed is not None:
        tensors[name] = np.ascontiguousarray(changed)
    save_file(tensors, str(path / "weights.safetensors"))
    write_manifest(path)
    return Bundle.load(path)


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed.reshape(-1)[-1] = value
        return changed

    return change


# ---- weights ---------------------------------------------------------------------------------------------------------


@here
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "trunk.layers.1.up.weight_scale",
        "trunk.layers.0.query.bias",
        "trunk.embeddings.word.weight_scale",
        "trunk.layers.2.output_norm.weight",
        "head.rows.weight",
        "temperature",
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(path: Path, name: str, value: float) -> None:
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        NativeExecutor(spoil(path, name, with_value(value)), 1)


@here
def test_denormal_scales_and_rows_of_zeros_are_weights_like_others(path: Path) -> None:
    from modelsat_engine.runtime.executors import PackedBatch
    from tests.runtime.native_bundle import random_table

    network = random_network(Shape(), 1)
    spoil(path, "trunk.layers.0.key.weight", np.zeros_like)
    bundle = spoil(path, "trunk.layers.1.up.weight_scale", lambda scale: np.full_like(scale, 1e-41))
    scores = NativeExecutor(bundle, 1).score(
        PackedBatch.pack([np.array([5, 6, 7], np.int32)]), random_table(bundle, network, 3, 1)
    )
    assert ((scores > 0) & (scores < 1)).all()


@here
@pytest.mark.parametrize("name", ["trunk.layers.1.down.weight", "trunk.embeddings.norm.bias", "calibration_bias"])
def test_a_missing_tensor_is_named(path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        NativeExecutor(spoil(path, name, lambda _: None), 1)


@here
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("trunk.layers.0.query.weight", lambda weight: weight[:-1]),
        ("trunk.layers.0.query.weight", lambda weight: weight.astype(np.float32)),
        ("trunk.embeddings.word.weight", lambda weight: weight[:, 1:]),
        ("trunk.layers.2.up.bias", lambda bias: bias[1:]),
        ("head.rows.weight", lambda weight: weight[:1]),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_named(
    path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        NativeExecutor(spoil(path, name, change), 1)


@here
@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", 4), ("hidden", 48), ("heads", 5), ("intermediate", 41), ("vocab", 98), ("max_positions", 81)],
)
def test_a_router_json_of_other_sizes_is_refused(path: Path, key: str, value: int) -> None:
    bundle = Bundle.load(path)
    config = {**bundle.config, "trunk": {**bundle.config["trunk"], key: value}}
    with pytest.raises(BundleError, match="cannot be run"):
        NativeExecutor(replace(bundle, config=config), 1)


@here
@pytest.mark.parametrize(("key", "value"), [("inject_at", 3), ("views", 0), ("memory_rows", -1), ("views", "two")])
def test_a_size_out_of_range_is_refused(path: Path, key: str, value: object) -> None:
    bundle = Bundle.load(path)
    with pytest.raises(BundleError, match=r"router\.json"):
        NativeExecutor(replace(bundle, config={**bundle.config, key: value}), 1)


@here
@pytest.mark.parametrize("kept", [0, 5, 8, 100, 5000, -1])
def test_truncated_weights_are_refused(path: Path, kept: int) -> None:
    content = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(content[:kept])
    write_manifest(path)
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        NativeExecutor(Bundle.load(path), 1)


@here
@pytest.mark.parametrize("header", [b"no json", b"[1, 2]", b'{"temperature": 3}', b'{"temperature": {"dtype": "F32"}}'])
def test_a_file_that_is_no_safetensors_file_is_refused(path: Path, header: bytes) -> None:
    (path / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    write_manifest(path)
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        NativeExecutor(Bundle.load(path), 1)


# ---- machines and kinds of routers -----------------------------------------------------------------------------------


def test_another_architecture_falls_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    assert "x86-64" in (unavailable_reason() or "")
    bundle = Bundle.load(path)
    assert create_executor("auto", bundle, 1).name == "onnxruntime"
    with pytest.raises(ExecutorError, match=r"executor 'native' cannot be used: .*aarch64"):
        create_executor("native", bundle, 1)
    with pytest.raises(ExecutorError, match="aarch64"):
        NativeExecutor(bundle, 1)


def test_an_instruction_set_that_is_not_here_is_an_error_that_lists_those_that_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "avx1024")
    with pytest.raises(ExecutorError, match=r"MODELSAT_ISA is 'avx1024', but this processor runs .*portable"):
        NativeExecutor(Bundle.load(path), 1)
    assert available_executors()["native"] is not None


def test_a_processor_without_vector_instructions_falls_back_unless_it_is_told_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from modelsat_engine import _core

    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    monkeypatch.setattr(_core, "native_isas", lambda: ["portable"])
    assert "AVX2" in (unavailable_reason() or "")
    monkeypatch.setenv(ISA_VARIABLE, "portable")
    assert unavailable_reason() is None
    assert instruction_set() == "portable"


def test_a_missing_or_older_extension_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from modelsat_engine import _core

    with monkeypatch.context() as patch:
        patch.delattr(_core, "NativeExecutor", raising=False)
        assert "older than this package" in (unavailable_reason() or "")
    monkeypatch.setitem(sys.modules, "modelsat_engine._core", None)
    monkeypatch.delattr("modelsat_engine._core", raising=False)
    assert "cannot be loaded" in (unavailable_reason() or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": "capability_first"}, "the layout 'shared', not 'capability_first'"),
        ({"trunk": {"kind": "decoder"}}, "encoder trunks, not 'decoder'"),
        ({"quantization": {"weights": "fp16"}}, "int8 weights; router.json states 'fp16'"),
    ],
)
def test_another_kind_of_router_goes_to_onnxruntime(path: Path, change: dict[str, Any], reason: str) -> None:
    bundle = Bundle.load(path)
    other = replace(bundle, config={**bundle.config, **change})
    assert executors_for(other)["onnxruntime"] is None
    assert create_executor("auto", other, 1).name == "onnxruntime"
    with pytest.raises(ExecutorError, match=reason):
        create_executor("native", other, 1)


def test_a_router_without_a_word_on_its_weights_goes_to_onnxruntime(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny"))
    assert "quantization" not in json.loads(bundle.file("router.json").read_text())
    assert create_executor("auto", bundle, 1).name == "onnxruntime"


@here
def test_the_native_executor_comes_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ISA_VARIABLE, raising=False)
    assert next(iter(available_executors())) == "native"
    assert create_executor("auto", Bundle.load(path), 1).name == "native"
