"""A zoo file is written whole or not at all, and read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude import CapabilityProfile, files, load_zoo, save_zoo
from modelsat_engine.aptitude.zoo import parse_zoo
from modelsat_engine.errors import ProfileError
from tests.aptitude.test_aptitude_test import small_test

TEST = small_test()


def make_zoo(count: int = 3) -> list[CapabilityProfile]:
    answers = sorted(TEST.item_ids)
    return [
        CapabilityProfile.from_answers(
            f"modèle {i}",
            TEST,
            {item: (j + i) % 3 == 0 for j, item in enumerate(answers)},
            usd_per_million_tokens=i / 4,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 3, 257])
def test_a_saved_zoo_loads_equal(tmp_path: Path, count: int) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, make_zoo(count))
    assert load_zoo(path) == make_zoo(count)
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["format_version"] == 1
    assert value["aptitude_test_id"] == (TEST.id if count else None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo.json"]


def test_a_large_file_is_decoded_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, make_zoo(9))
    steps: list[None] = []
    assert parse_zoo(path.read_bytes(), path, lambda: steps.append(None)) == make_zoo(9)
    assert len(steps) >= 9 * 4 + 9, "after every object that is decoded, and after every profile that is checked"


def test_profiles_take_the_files_test(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, make_zoo(2))
    value = json.loads(path.read_text(encoding="utf-8"))
    for candidate in value["candidates"]:
        del candidate["test_id"]
    path.write_text(json.dumps(value))
    assert {profile.test_id for profile in load_zoo(path)} == {TEST.id}


def test_duplicate_names_are_refused_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    zoo = make_zoo(2)
    with pytest.raises(ProfileError, match="two candidates called 'modèle 1'"):
        save_zoo(path, [*zoo, zoo[1]])
    assert not path.exists()
    save_zoo(path, zoo)
    value = json.loads(path.read_text(encoding="utf-8"))
    value["candidates"].append(value["candidates"][0])
    path.write_text(json.dumps(value))
    with pytest.raises(ProfileError, match=r"zoo\.json: .*two candidates called 'modèle 0'"):
        load_zoo(path)


def test_profiles_of_two_tests_do_not_mix(tmp_path: Path) -> None:
    stranger = CapabilityProfile("stranger", {"algebra": 1}, {"algebra": 1}, test_id="sha256:0123456789abcdef")
    with pytest.raises(ProfileError, match="2 aptitude tests"):
        save_zoo(tmp_path / "zoo.json", [*make_zoo(1), stranger])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "not a zoo"),
        ({"format_version": 1}, "not a zoo"),
        ({"format_version": 1, "candidates": {}}, "not a zoo"),
        ({"format_version": 2, "candidates": []}, "format version 2"),
        ({"candidates": []}, "format version None"),
        ({"format_version": 1, "candidates": ["model"]}, "JSON object"),
        ({"format_version": 1, "candidates": [{"name": "m", "correct": {"a": 2}, "total": {"a": 1}}]}, "2 right of 1"),
        (
            {"format_version": 1, "candidates": [{"name": "m", "correct": {"a": float("nan")}, "total": {"a": 1}}]},
            "whole number",
        ),
    ],
)
def test_a_malformed_zoo_is_refused_with_its_name(tmp_path: Path, value: Any, words: str) -> None:
    path = tmp_path / "zoo.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ProfileError, match=words) as caught:
        load_zoo(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "zoo.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="not a JSON file"):
        load_zoo(path)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"gone\.json"):
        load_zoo(tmp_path / "gone.json")
    with pytest.raises(ProfileError, match=r"nowhere.*zoo\.json"):
        save_zoo(tmp_path / "nowhere" / "zoo.json", make_zoo())


def test_a_full_disk_leaves_the_old_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, make_zoo(1))

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(ProfileError, match="No space left"):
        save_zoo(path, make_zoo(3))
    monkeypatch.undo()
    assert load_zoo(path) == make_zoo(1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo.json"]


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    target = tmp_path / "real.json"
    save_zoo(target, make_zoo(1))
    target.chmod(0o640)
    link = tmp_path / "zoo.json"
    link.symlink_to(target)
    save_zoo(link, make_zoo(2))
    assert link.is_symlink()
    assert os.stat(target).st_mode & 0o777 == 0o640
    assert load_zoo(target) == make_zoo(2)


def test_who_reads_while_the_zoo_is_saved_reads_one_whole_zoo(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, make_zoo(1))
    with open(path, encoding="utf-8") as reader:
        save_zoo(path, make_zoo(5))
        assert len(json.load(reader)["candidates"]) == 1
    assert len(load_zoo(path)) == 5
