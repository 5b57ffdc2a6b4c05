"""`train`, `evaluate` and `export`: what they hand over, what they print, and what they say without their extras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line

TRAINED = {
    "steps": 1200,
    "best_step": 900,
    "calibration": {"expected_calibration_error_before": 0.0812, "expected_calibration_error_after": 0.0123},
}
EXPORTED = {"bundle": "out", "hash": "sha256:abc", "bytes": 23_400_000, "largest_difference": 2e-6}


class Recorder:
    """A function that remembers its call and answers with a constant."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.positional: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def __call__(self, *positional: Any, **named: Any) -> object:
        self.positional, self.named = positional, named
        return self.answer


def replace(monkeypatch: pytest.MonkeyPatch, module: str, **members: object) -> None:
    stand_in = ModuleType(module)
    vars(stand_in).update(members)
    monkeypatch.setitem(sys.modules, module, stand_in)


def test_train_hands_over_its_paths_and_reports_calibration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Recorder(TRAINED)
    replace(monkeypatch, "modelsat_engine.training.run", train=train)
    arguments = ["train", "--config", "c.toml", "--data", "d", "--base", "b", "-o", "run"]
    result = run(*arguments, "--resume")
    assert result.exit_code == 0, result.stderr
    assert train.positional == (Path("c.toml"), Path("d"), Path("b"), Path("run"))
    assert train.named["resume"] is True
    train.named["progress"]({"stage": "all", "step": 3, "steps": 10, "loss": 0.5, "validation_auc": 0.7})
    assert "1,200 steps, the best after 900" in result.stdout
    assert "0.081 before calibration, 0.012 after" in result.stdout
    assert json.loads(run(*arguments, "--json").stdout) == TRAINED
    assert train.named["resume"] is False


def test_evaluate_hands_over_its_settings_and_writes_the_result(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path
) -> None:
    evaluate, render = Recorder({"scenarios": {"new_models": 1}}), Recorder("a table")
    replace(monkeypatch, "modelsat_engine.evaluation.run", evaluate=evaluate)
    replace(monkeypatch, "modelsat_engine.evaluation.report", render=render)
    result = run("evaluate", "--data", "d", "-o", "quality.json")
    assert result.exit_code == 0, result.stderr
    assert evaluate.positional == (tiny_bundle, Path("d"))
    evaluate.named.pop("progress")(0.5, "routing")
    assert evaluate.named.pop("cache").parts[-2:] == ("modelsat-engine", "embeddings")
    assert evaluate.named == {"seeds": 5, "scenarios": None, "zoo_size": 5, "max_questions": None, "executor": "auto"}
    assert "a table" in result.stdout
    assert json.loads((tmp_path / "quality.json").read_text()) == evaluate.answer

    options = ["--scenario", "new-models", "--scenario", "seen-models", "--seeds", "2", "--zoo-size", "3"]
    result = run(
        "evaluate", "--data", "d", "--json", "--max-questions", "9", "--no-cache", "--executor", "onnxruntime", *options
    )
    assert json.loads(result.stdout) == evaluate.answer
    assert evaluate.named["scenarios"] == ("new-models", "seen-models")
    assert (evaluate.named["cache"], evaluate.named["executor"]) == (None, "onnxruntime")
    assert (evaluate.named["seeds"], evaluate.named["zoo_size"], evaluate.named["max_questions"]) == (2, 3, 9)


def test_evaluate_refuses_an_output_it_could_not_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Recorder({})
    replace(monkeypatch, "modelsat_engine.evaluation.run", evaluate=evaluate)
    result = run("evaluate", "--data", "d", "-o", "missing/quality.json")
    assert result.exit_code == 1
    assert "does not exist" in one_error_line(result.stderr)
    assert evaluate.positional == ()


def test_export_hands_over_and_never_overwrites_unasked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    export = Recorder(EXPORTED)
    replace(monkeypatch, "modelsat_engine.export.run", export=export)
    result = run("export", "run", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert export.positional == (Path("run"), Path("out"), None, None)
    assert "23.4 MB" in result.stdout

    (tmp_path / "out").mkdir()
    result = run("export", "run", "-o", "out")
    assert result.exit_code == 1
    assert "--overwrite" in one_error_line(result.stderr)

    (tmp_path / "quality.json").write_text('{"auc": 0.7}')
    options = ["--overwrite", "--quality", "quality.json", "--max-instruction-tokens", "99", "--json"]
    assert json.loads(run("export", "run", "-o", "out", *options).stdout) == EXPORTED
    assert export.positional == (Path("run"), Path("out"), 99, {"auc": 0.7})


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_export_refuses_a_quality_file_that_is_none(run: Run, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "quality.json").write_text(content)
    result = run("export", "run", "-o", "out", "--quality", "quality.json")
    assert result.exit_code == 1
    assert "quality.json" in one_error_line(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["train", "--config", "c", "--data", "d", "--base", "b", "-o", "o"], "torch", "train"),
        (["export", "run", "-o", "out"], "torch", "export"),
        (["evaluate", "--data", "d"], "sklearn", "evaluate"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], missing: str, extra: str
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from modelsat_engine.cli import cli; cli.main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'modelsat-engine[{extra}]'" in one_error_line(done.stderr)
