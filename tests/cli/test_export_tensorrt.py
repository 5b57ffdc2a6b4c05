"""`modelsat export --to tensorrt` where no engine can be built: one line that says why, and the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_without_a_gpu_it_says_so_in_one_line(run: Run) -> None:
    result = run("export", "--to", "tensorrt")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: TensorRT cannot be used: CUDA_VISIBLE_DEVICES='' hides every GPU")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "tensorrt", "--verify"], "--to tensorrt takes no --verify"),
        (["--to", "onnx", "--plugins", "on"], "--to onnx takes no --plugins"),
        (["--to", "onnx", "--refittable"], "--to onnx takes no --refittable"),
        (["run/", "--to", "tensorrt"], "--to tensorrt takes no CHECKPOINT"),
        (["--to", "tensorrt", "--plugins", "maybe"], "'maybe' is not one of 'auto', 'on', 'off'"),
    ],
)
def test_options_of_other_targets_are_bad_usage(run: Run, arguments: list[str], said: str) -> None:
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_that_is_no_engine_is_not_replaced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    result = run("export", "--to", "tensorrt", "-o", str(path))
    assert result.exit_code == 1
    assert f"{path} exists and is no engine of this package; pass --overwrite to replace it" in result.stderr
    assert path.read_text() == "mine"
    result = run("export", "--to", "tensorrt", "-o", str(tmp_path))
    assert "is a directory; name a file with -o" in result.stderr


def test_a_graph_that_is_no_export_is_refused_before_anything_else(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "router.onnx"
    path.write_bytes(b"no graph")
    result = run("export", "--to", "tensorrt", "--from-onnx", str(path))
    assert result.exit_code == 1
    assert "is not an ONNX file" in result.stderr
