"""The aptitude test keeps its identity through files, and refuses to be two things at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.errors import DataError


def small_test() -> AptitudeTest:
    """Three tasks of three items."""
    return AptitudeTest(
        tuple(
            AptitudeTask(name, tuple(f"{name} {k}" for k in range(5)), tuple(f"b/{name}/{i}" for i in range(3)))
            for name in ("algebra", "botany", "chess")
        )
    )


def test_tasks_and_items_are_listed_in_order() -> None:
    test = small_test()
    assert test.task_names == ("algebra", "botany", "chess")
    assert len(test.item_ids) == 9
    assert "b/chess/2" in test.item_ids


def test_the_id_is_a_function_of_the_content() -> None:
    test = small_test()
    assert test.id == small_test().id
    assert test.id.startswith("sha256:")
    assert len(test.id) == len("sha256:") + 16
    assert AptitudeTest(test.tasks[::-1]).id != test.id, "the order of tasks is the order of every array"
    assert AptitudeTest(test.tasks[:2]).id != test.id
    renamed = AptitudeTask("chess", ("openings", "b", "c", "d", "e"), test.tasks[2].item_ids)
    assert AptitudeTest((*test.tasks[:2], renamed)).id != test.id


def test_a_saved_test_loads_equal(tmp_path: Path) -> None:
    path = tmp_path / "aptitude.json"
    small_test().save(path)
    loaded = AptitudeTest.load(path)
    assert loaded == small_test()
    assert loaded.id == small_test().id
    assert [entry.name for entry in tmp_path.iterdir()] == ["aptitude.json"], "no temporary file stays"


def test_content_hashes_are_kept_beside_the_ids_and_change_nothing_else(tmp_path: Path) -> None:
    plain = small_test()
    hashed = AptitudeTest(
        tuple(
            AptitudeTask(t.name, t.keywords, t.item_ids, tuple(f"{t.name}{i}" for i in range(3))) for t in plain.tasks
        )
    )
    assert hashed == plain
    assert hashed.id == plain.id
    hashed.save(tmp_path / "aptitude.json")
    loaded = AptitudeTest.load(tmp_path / "aptitude.json")
    assert loaded.item_hashes["b/chess/2"] == "chess2"
    assert len(loaded.item_hashes) == 9
    assert plain.item_hashes == {}
    assert "item_hashes" not in plain.to_json()["tasks"][0]
    with pytest.raises(DataError, match="3 items, but 2 item_hashes"):
        AptitudeTask("chess", ("openings",), ("a", "b", "c"), ("1", "2"))
    with pytest.raises(DataError, match="lists one of its item_hashes twice"):
        AptitudeTask("chess", ("openings",), ("a", "b"), ("1", "1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"id": "sha256:0000000000000000"}, "edited"),
        ({"tasks": [{"name": "algebra", "keywords": ["a"]}]}, "item_ids"),
        ({"tasks": [{"name": "", "keywords": ["a"], "item_ids": ["i"]}]}, "non-empty name"),
        ({"tasks": [{"name": 7, "keywords": ["a"], "item_ids": ["i"]}]}, "non-empty name"),
        ({"tasks": [{"name": "algebra", "keywords": "groups", "item_ids": ["i"]}]}, "not one string"),
        ({"tasks": [{"name": "algebra", "keywords": ["a"], "item_ids": []}]}, "no item_ids"),
        ({"tasks": [{"name": "algebra", "keywords": ["a"], "item_ids": [3]}]}, "non-empty string"),
        ({"tasks": [{"name": "algebra", "keywords": ["a", "a"], "item_ids": ["i"]}]}, "twice"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": None}, "malformed"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "aptitude.json"
    path.write_text(json.dumps({**small_test().to_json(), **change}))
    with pytest.raises(DataError, match=words) as caught:
        AptitudeTest.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "no json", '{"format_version": 1'])
def test_a_file_that_is_no_test_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "aptitude.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"aptitude\.json"):
        AptitudeTest.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json"):
        AptitudeTest.load(tmp_path / "gone.json")


def test_one_item_measures_one_task() -> None:
    tasks = small_test().tasks
    with pytest.raises(DataError, match="two tasks"):
        AptitudeTest((*tasks, AptitudeTask("drama", ("plays",), ("b/chess/1",))))
    with pytest.raises(DataError, match="'chess' twice"):
        AptitudeTest((*tasks, AptitudeTask("chess", ("plays",), ("b/drama/1",))))
