"""`modelsat doctor`: what it finds, and that it never breaks down itself."""

from __future__ import annotations

import json
from email.message import Message
from pathlib import Path
from typing import cast

import pytest

from modelsat_engine.commands.doctor import find_clashes
from tests.cli.conftest import Run


def test_a_working_installation_passes(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stdout
    report = json.loads(result.stdout)
    parts = {"system", "cpu", "versions", "extras", "clashes", "executors", "native", "cuda", "onnxruntime", "tensorrt"}
    assert set(report) == parts | {"bundle", "self_test"}
    assert report["cpu"]["usable"] >= 1
    assert report["cpu"]["architecture"]
    assert report["executors"]["onnxruntime"] is None
    assert report["versions"]["onnxruntime"]
    assert report["bundle"]["candidates"] == 3
    assert report["self_test"]["candidate"].startswith("model-")
    assert {"train", "export", "gpu"} <= set(report["extras"])


def test_people_get_the_same_on_few_lines(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split(" ")[0] for line in lines if not line.startswith(" ")][-3:] == ["bundle", "zoo", "routing"]
    assert "works" in lines[-1]


def test_the_instruction_set_is_named_or_why_there_is_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.runtime.native_bundle import Shape, random_network, write_native_bundle

    monkeypatch.setenv("MODELSAT_ISA", "portable")
    bundle = write_native_bundle(tmp_path / "native", random_network(Shape(), 1))
    report = json.loads(run("doctor", "--bundle", bundle, "--json").stdout)
    assert report["native"] == {"instruction_set": "portable", "falls_back_because": None}
    assert "native: available, instruction set portable" in run("doctor", "--bundle", bundle).stdout
    toy = json.loads(run("doctor", "--json").stdout)
    assert "int8 weights" in toy["native"]["falls_back_because"]
    assert toy["self_test"]["executor"] == "onnxruntime"
    assert "native: not for this bundle" in run("doctor").stdout
    monkeypatch.setenv("MODELSAT_ISA", "mmx")
    report = json.loads(run("doctor", "--bundle", bundle, "--json").stdout)
    assert "MODELSAT_ISA is 'mmx'" in report["executors"]["native"]
    assert report["native"] == {"instruction_set": None, "falls_back_because": report["executors"]["native"]}


def test_the_cuda_executor_is_examined_without_a_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    report = json.loads(run("doctor", "--json").stdout)
    assert report["cuda"]["usable"] is False
    assert report["cuda"]["reason"].startswith("CUDA_VISIBLE_DEVICES='' hides every GPU")
    assert report["cuda"]["gives_way_to"] == "onnxruntime"
    result = run("doctor", "--executor", "cuda")
    assert result.exit_code == 1
    assert "cuda: CUDA_VISIBLE_DEVICES='' hides every GPU" in result.stdout
    assert "does not work: executor 'cuda' cannot be used" in result.stdout.splitlines()[-1]


def test_the_gpu_is_described_and_the_self_test_runs_on_it_when_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.executors import cuda, cuda_device
    from tests.runtime.stand_in_device import DEVICE_LOST, StandInDevice, build_stand_in

    shipped = Bundle.load()
    bundle = shipped.path
    device = StandInDevice(build_stand_in(tmp_path), int(shipped.config["tokenizer"]["max_instruction_tokens"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda_device, "_LIBRARY", str(build_stand_in(tmp_path, of="libnvidia_ml")))
    monkeypatch.setattr(cuda_device, "unavailable_reason", cuda_device.device_reason)  # there is no CUDA in this torch
    monkeypatch.setattr(cuda, "_open", lambda *_: device)
    report = json.loads(run("doctor", "--bundle", bundle, "--executor", "cuda", "--json").stdout)
    assert report["cuda"] == {
        "usable": True,
        "reason": None,
        "driver": "555.44.33",
        "cuda_version": "12.5",
        "devices": [
            {
                "compute_capability": "9.5",
                "name": "Stand-in 1000",
                "memory_bytes": 80 * 2**30,
                "free_bytes": 79 * 2**30,
            }
        ],
        "gives_way_to": "native",
    }
    assert report["self_test"]["ok"], report["self_test"]
    assert (report["self_test"]["executor"], report["self_test"]["executor_fallback"]) == ("cuda", None)
    device.fail("cuGraphLaunch", DEVICE_LOST)
    result = run("doctor", "--bundle", bundle, "--executor", "cuda")
    assert result.exit_code == 0
    assert "cuda: available, by name only; Stand-in 1000 (compute capability 9.5, 79 of 80 GiB free); " in result.stdout
    assert "driver 555.44.33 for CUDA 12.5; gives way to native when the device fails" in result.stdout
    assert "executor native took over: the GPU failed (cuGraphLaunch: " in result.stdout.splitlines()[-1]


def test_each_provider_is_usable_or_says_exactly_why_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelsat_engine.runtime import onnx_providers

    report = json.loads(run("doctor", "--json").stdout)
    found = report["onnxruntime"]["providers"]
    assert set(found) == {"CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"}
    assert found["CPUExecutionProvider"] is None
    assert report["executors"]["onnxruntime-cuda"] == found["CUDAExecutionProvider"]
    shown = run("doctor").stdout
    assert "CPUExecutionProvider: usable" in shown
    if report["onnxruntime"]["builds"] != ["onnxruntime"]:
        pytest.skip("this onnxruntime is not the build for CPUs")
    assert "is the build for CPUs; pip uninstall onnxruntime" in found["CUDAExecutionProvider"]
    assert f"TensorrtExecutionProvider: {found['TensorrtExecutionProvider']}" in shown
    monkeypatch.setattr(onnx_providers, "_is_installed", lambda name: True)
    found = json.loads(run("doctor", "--json").stdout)["onnxruntime"]["providers"]
    assert "both installed and overwrite each other" in found["CUDAExecutionProvider"]


def test_a_broken_bundle_fails_and_names_the_file(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    import shutil

    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    weights = bytearray((broken / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "weights.safetensors").write_bytes(weights)
    result = run("doctor", "--bundle", broken)
    assert result.exit_code == 1
    assert "weights.safetensors" in result.stdout
    assert "does not work" in result.stdout.splitlines()[-1]
    report = json.loads(run("doctor", "--bundle", broken, "--json").stdout)
    assert report["self_test"]["ok"] is False
    assert report["executors"]["onnxruntime"] is None


def test_a_broken_zoo_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text("{")
    result = run("doctor", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "zoo.json" in result.stdout


def test_a_missing_extension_is_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "modelsat_engine._core", None)
    monkeypatch.delattr("modelsat_engine._core", raising=False)
    result = run("doctor", "--json")
    assert "compiled extension" in json.loads(result.stdout)["cpu"]["error"]


class Installed:
    """A distribution that is only a name."""

    def __init__(self, name: str | None) -> None:
        self.metadata = Message()
        if name is not None:
            self.metadata["Name"] = name


@pytest.mark.parametrize(
    ("names", "clashes"),
    [
        (["onnxruntime", "numpy"], 0),
        (["onnxruntime-gpu"], 0),
        (["onnxruntime", "onnxruntime-gpu"], 1),
        (["onnxruntime", "ONNXRuntime_GPU"], 1),
        (["onnxruntime", "onnxruntime"], 0),
        ([None, "numpy"], 0),
    ],
)
def test_distributions_that_overwrite_each_other_are_found(names: list[str | None], clashes: int) -> None:
    from importlib.metadata import Distribution

    found = find_clashes(cast("list[Distribution]", [Installed(name) for name in names]))
    assert len(found) == clashes
    assert all("pip uninstall onnxruntime onnxruntime-gpu" in finding for finding in found)
