"""`modelsat export --to onnx` and `candidates table`: what they write, replace and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelsat_engine.export.bundle import Bundle
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line
from tests.export.random_bundle import write_random_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("export") / "bundle", memory_rows=1)


def test_the_default_file_is_named_after_router_and_precision(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    result = run("export", "--to", "onnx", "--bundle", bundle.path)
    assert result.exit_code == 0, result.stderr
    assert "Wrote tiny-fp32.onnx: fp32" in result.stdout
    with np.load(tmp_path / "tiny-fp32.candidates.npz") as table:
        assert table["names"].tolist() == ["model-0", "model-1", "model-2"]
        assert table["memory"].shape == (3, 1, 2, 2, 1, 24)
    assert json.loads((tmp_path / "tiny-fp32.tokenizer.json").read_text())["truncation"]["max_length"] == 64


def test_verify_prints_every_shape_and_fails_beyond_the_bounds(
    run: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.export import verify

    arguments = ["export", "--to", "onnx", "--precision", "fp16", "--bundle", bundle.path, "--verify"]
    monkeypatch.setitem(verify.BOUNDS, "fp16", {"max_abs_dp": 0.01, "mean_abs_dp": 0.01, "route_agreement": 0.5})
    result = run(*arguments)
    assert result.exit_code == 0, result.stdout
    assert len([line for line in result.stdout.splitlines() if line.endswith("%")]) == len(verify.FILE_SHAPES) + 1
    assert ": within the bounds of fp16" in result.stdout
    monkeypatch.setitem(verify.BOUNDS, "fp16", {"max_abs_dp": 1e-9, "mean_abs_dp": 0.01, "route_agreement": 0.5})
    result = run(*arguments)
    assert result.exit_code == 1
    assert "NOT within the bounds of fp16" in result.stdout
    assert json.loads(run(*arguments, "--json").stdout)["verify"]["holds"] is False


def test_only_an_earlier_export_of_the_same_router_is_replaced_unasked(
    run: Run, bundle: Bundle, tmp_path: Path
) -> None:
    arguments = ["export", "--to", "onnx", "--bundle", bundle.path, "-o", "router.onnx"]
    (tmp_path / "router.onnx").write_bytes(b"somebody's")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "pass --overwrite" in one_error_line(result.stderr)
    assert [path.name for path in tmp_path.glob("router*")] == ["router.onnx"]
    assert run(*arguments, "--overwrite").exit_code == 0
    assert run(*arguments, "--precision", "bf16").exit_code == 0
    onnx.checker.check_model(tmp_path / "router.onnx", full_check=True)
    (tmp_path / "folder").mkdir()
    result = run("export", "--to", "onnx", "--bundle", bundle.path, "-o", "folder")
    assert "is a directory" in one_error_line(result.stderr)


def test_calibration_reads_what_score_reads(run: Run, bundle: Bundle, tmp_path: Path) -> None:
    arguments = ["export", "--to", "onnx", "--precision", "int8", "--bundle", bundle.path, "--calibration"]
    (tmp_path / "texts.jsonl").write_text('{"prompt": "prove that two is two"}\n{"prompt": "what is a root"}\n')
    assert run(*arguments, "texts.jsonl").exit_code == 0
    (tmp_path / "texts.txt").write_text("\n")
    assert "holds no instruction" in one_error_line(run(*arguments, "texts.txt").stderr)
    assert "does not exist" in one_error_line(run(*arguments, "nowhere.txt").stderr)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "onnx", "checkpoint"], "takes no CHECKPOINT; make a bundle of it first"),
        (["--to", "onnx", "--quality", "q.json"], "--to onnx takes no --quality"),
        (["checkpoint", "-o", "out", "--precision", "int8"], "--to bundle takes no --precision"),
        (["checkpoint", "-o", "out", "--verify"], "--to bundle takes no --verify"),
        (["checkpoint"], "modelsat export CHECKPOINT -o DIR"),
        (["--to", "tea"], "'tea' is not one of"),
    ],
)
def test_an_option_of_another_target_is_bad_usage(run: Run, arguments: list[str], says: str) -> None:
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_bundle_whose_weights_are_no_network_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("export", "--to", "onnx")
    assert result.exit_code == 1
    assert "not those of the network in router.json" in one_error_line(result.stderr)
    assert not list(tmp_path.glob("*.onnx"))


def test_candidates_table_follows_the_zoo(run: Run, tmp_path: Path) -> None:
    assert run("candidates", "remove", "model-1").exit_code == 0
    result = run("candidates", "table", "-o", "table.npz", "--json")
    assert json.loads(result.stdout)["candidates"] == ["model-0", "model-2"]
    with np.load(tmp_path / "table.npz", allow_pickle=False) as table:
        assert table["names"].tolist() == ["model-0", "model-2"]
        assert table["usd_per_million_tokens"].tolist() == [0.25, 0.75]
    result = run("candidates", "table", "-o", "missing/table.npz")
    assert "No such file or directory" in one_error_line(result.stderr)
