"""The engine file: read without TensorRT, refused by name, and never half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.engine_file import (
    MAGIC,
    Device,
    EngineFile,
    EngineIdentity,
    build_command,
    write_engine,
)
from tests.export.tensorrt.identities import H100, identity_of
from tests.runtime.tiny_bundle import write_tiny_bundle

PLAN = bytes(range(256)) * 41


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path / "bundle"))


@pytest.fixture
def engine(bundle: Bundle, tmp_path: Path) -> EngineFile:
    return write_engine(tmp_path / "a.engine", identity_of(bundle), PLAN, {"largest_difference": 0.0009765625})


def test_what_is_written_comes_back(bundle: Bundle, engine: EngineFile) -> None:
    again = EngineFile.open(engine.path)
    assert again.identity == identity_of(bundle)
    assert again.plan() == PLAN
    assert again.measured == {"largest_difference": 0.0009765625}


def test_every_part_of_the_identity_makes_another_key(bundle: Bundle) -> None:
    identity = identity_of(bundle)
    others = {
        "bundle_hash": "sha256:0",
        "onnx_sha256": "cd" * 32,
        "precision": "bf16",
        "device": Device(H100.gpu, H100.compute_capability, "11.3.0.99"),
        "profiles": identity.profiles[:-1],
        "plugins_sha256": "ef" * 32,
        "version_compatible": True,
        "refittable": True,
    }
    keys = {identity_of(bundle, **{name: value}).key for name, value in others.items()}
    keys |= {identity.key, identity_of(bundle, device=Device("NVIDIA H200", "9.0", H100.tensorrt)).key}
    keys |= {identity_of(bundle, device=Device(H100.gpu, "10.0", H100.tensorrt)).key}
    assert len(keys) == len(others) + 3
    assert identity_of(bundle).key == identity.key


@pytest.mark.parametrize(
    ("here", "named"),
    [
        (Device("NVIDIA A100-SXM4-80GB", "8.0", H100.tensorrt), "this machine has NVIDIA A100-SXM4-80GB"),
        (Device("NVIDIA H200", "9.0", H100.tensorrt), "this machine has NVIDIA H200 (compute capability 9.0)"),
        (Device(H100.gpu, H100.compute_capability, "11.5.0.1"), "with TensorRT 11.5.0.1"),
    ],
)
def test_an_engine_of_another_gpu_or_version_is_refused_by_name(bundle: Bundle, here: Device, named: str) -> None:
    reason = identity_of(bundle).refusal(bundle, here)
    assert reason is not None
    assert named in reason
    assert "built on NVIDIA H100 80GB HBM3 (compute capability 9.0) with TensorRT 11.4.0.106" in reason
    assert reason.endswith(f"build it here: modelsat export --to tensorrt --bundle {bundle.path} --precision fp16")


def test_an_engine_of_another_router_is_refused_by_name(bundle: Bundle) -> None:
    reason = identity_of(bundle, bundle_hash="sha256:" + "12" * 32, bundle_name="other").refusal(bundle, H100)
    assert reason is not None
    assert reason.startswith(f"the engine belongs to the router other@121212121212, not to {bundle.label}; build it")


def test_a_version_compatible_engine_runs_under_later_versions_only(bundle: Bundle) -> None:
    identity = identity_of(bundle, version_compatible=True)
    for version, fits in (("11.4.0.106", True), ("11.5.0.1", True), ("11.10.0.2", True), ("11.3.0.99", False)):
        here = Device(H100.gpu, H100.compute_capability, version)
        assert (identity.refusal(bundle, here) is None) == fits, version
    assert identity.refusal(bundle, Device("NVIDIA H200", "9.0", "11.5.0.1")) is not None


def test_an_engine_that_fits_is_not_refused(bundle: Bundle) -> None:
    assert identity_of(bundle).refusal(bundle, H100) is None
    assert identity_of(bundle).refusal(bundle, None) is None


@pytest.mark.parametrize("kept", [0, 5, len(MAGIC) + 3, len(MAGIC) + 8 + 20, -1])
def test_a_truncated_engine_says_so(engine: EngineFile, kept: int) -> None:
    content = engine.path.read_bytes()
    engine.path.write_bytes(content[:kept])
    with pytest.raises(ExecutorError, match=r"build it again: modelsat export --to tensorrt") as raised:
        EngineFile.open(engine.path)
    assert str(engine.path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_changed_plan_is_found_before_tensorrt_reads_it(engine: EngineFile) -> None:
    content = bytearray(engine.path.read_bytes())
    content[-7] ^= 1
    engine.path.write_bytes(bytes(content))
    opened = EngineFile.open(engine.path)
    with pytest.raises(ExecutorError, match="was changed after it was written"):
        opened.plan()


def test_a_bare_plan_and_other_files_are_no_engines_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "bare.engine"
    path.write_bytes(b"ftrt" + PLAN)
    with pytest.raises(ExecutorError, match="no engine of this package"):
        EngineFile.open(path)
    path.write_bytes(MAGIC + (2**40).to_bytes(8, "little"))
    with pytest.raises(ExecutorError, match="is damaged: its header would take 1099511627776 bytes"):
        EngineFile.open(path)
    path.write_bytes(MAGIC + (2).to_bytes(8, "little") + b"[]")
    with pytest.raises(ExecutorError, match="is cut short or damaged"):
        EngineFile.open(path)
    with pytest.raises(ExecutorError, match=r"cannot read the engine .*: No such file"):
        EngineFile.open(tmp_path / "missing.engine")


def test_a_later_format_says_which(engine: EngineFile) -> None:
    content = engine.path.read_bytes().replace(b'"format_version": 1', b'"format_version": 9', 1)
    engine.path.write_bytes(content)
    with pytest.raises(ExecutorError, match="has format version 9, need 1"):
        EngineFile.open(engine.path)


def test_an_identity_without_profiles_is_damaged(bundle: Bundle) -> None:
    facts = identity_of(bundle).as_json()
    with pytest.raises(ValueError, match="no profile"):
        EngineIdentity.from_json({**facts, "profiles": []})


def test_the_shipped_bundle_needs_no_name_in_the_command() -> None:
    assert build_command(Bundle.load()) == "modelsat export --to tensorrt"
