"""Past outcomes come from npz panels and plain tables, and join by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.aptitude.outcome_table import load_outcomes
from modelsat_engine.errors import DataError


def npz(path: Path, Y: object, models: list[str], questions: list[str]) -> Path:
    np.savez(path, Y=np.array(Y), models=np.array(models), questions=np.array(questions))
    return path


def test_panels_and_tables_give_the_same(tmp_path: Path) -> None:
    panel = load_outcomes([npz(tmp_path / "o.npz", [[1, 0], [-1, 1]], ["a", "b"], ["x", "y"])])
    (tmp_path / "o.csv").write_text("model,item,correct\na,x,1\na,y,no\nb,y,true\n")
    rows = [{"model": "a", "item": "x", "correct": 1}, {"model": "a", "item": "y", "correct": 0}]
    (tmp_path / "o.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in [*rows, {**rows[0], "model": "b", "item": "y"}])
    )
    for name in ("o.csv", "o.jsonl"):
        table = load_outcomes([tmp_path / name])
        assert (table.models, table.items) == (panel.models, panel.items)
        assert table.Y.tolist() == panel.Y.tolist() == [[1, 0], [-1, 1]]
    assert panel.for_items(["y", "none", "x"]).tolist() == [[0, -1, 1], [1, -1, -1]]


def test_several_files_join_by_the_names_of_models_and_items(tmp_path: Path) -> None:
    one = npz(tmp_path / "1.npz", [[1]], ["a"], ["x"])
    two = npz(tmp_path / "2.npz", [[0, 1], [1, 0]], ["b", "a"], ["y", "x"])
    with pytest.raises(DataError, match=r"2\.npz: 'a' answered 'x' both right and wrong"):
        load_outcomes([one, two])
    three = npz(tmp_path / "3.npz", [[0, -1]], ["a"], ["y", "x"])
    assert load_outcomes([one, three]).Y.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("Y", "models", "questions", "words"),
    [
        ([[1, 0]], ["a"], ["x"], "has shape"),
        ([[2]], ["a"], ["x"], "must hold 1"),
        ([[float("nan")]], ["a"], ["x"], "must hold 1"),
        ([[1], [1]], ["a", "a"], ["x"], "a model is named twice"),
        ([[-1]], ["a"], ["x"], "hold no outcome"),
    ],
)
def test_a_bad_panel_is_named(tmp_path: Path, Y: object, models: list[str], questions: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_outcomes([npz(tmp_path / "o.npz", Y, models, questions)])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("o.npz", "text", "no panel of outcomes"),
        ("o.csv", "model,item,correct\na,x,0.5\n", r"row 1 \(line 2\), correct: '0.5' is neither right"),
        ("o.csv", "model,item,correct\na,,1\n", "no item; need the columns"),
        ("o.csv", "item,correct\nx,1\n", "no model; need the columns"),
        ("o.csv", "model,item,correct\na,x,1\na,x,0\n", "both right and wrong"),
        ("o.csv", "model,item,correct\n", "hold no outcome"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        load_outcomes([tmp_path / name])
    with pytest.raises(DataError, match="does not exist"):
        load_outcomes([tmp_path / "none.npz"])
