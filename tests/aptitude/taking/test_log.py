"""The log keeps every answer through kills and full disks, and refuses what would mix two runs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude.taking.log import AnswerLog
from modelsat_engine.aptitude.taking.tally import Tally
from modelsat_engine.errors import DataError, EndpointError
from tests.aptitude.taking.made_up import make_test

PINNED = {"--model": "tiny", "protocol": {"seed": 0, "stop": ["é"]}}


def answer(item: str, correct: bool = True, **others: Any) -> dict[str, Any]:
    return {"kind": "answer", "id": item, "rotation": 0, "correct": correct, **others}


def opened(path: Path, pinned: dict[str, Any] | None = None, **others: Any) -> AnswerLog:
    return AnswerLog(path, pinned or PINNED, {"name": "x"}, **others)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with two answers."""
    file = tmp_path / "log.jsonl"
    with opened(file) as log:
        log.append(answer("a/0", text="é\u2028\x85\r\n"))
        log.append(answer("a/1", False))
    return file


def test_answers_are_there_when_the_log_is_opened_again(path: Path) -> None:
    with opened(path) as log:
        assert [record["id"] for record in log.answers()] == ["a/0", "a/1"]
        log.append(answer("a/2"))
    with opened(path) as log:
        assert [record["id"] for record in log.answers()] == ["a/0", "a/1", "a/2"]
    assert sum('"header"' in line for line in path.read_text("utf-8").split("\n")) == 1


def test_a_kill_in_the_middle_of_any_line_loses_that_line_only(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        with opened(path) as log:
            kept = [record["id"] for record in log.answers()]
            log.append(answer("b/0"))
        assert kept == ["a/0", "a/1"][: max(whole[:size].count(b"\n") - 1, 0)]
        with opened(path) as log:
            assert [record["id"] for record in log.answers()] == [*kept, "b/0"]


@pytest.mark.parametrize(
    ("pinned", "named"),
    [
        ({**PINNED, "--model": "other"}, r'--model "tiny", not "other"'),
        ({**PINNED, "protocol": {"seed": 1, "stop": ["é"]}}, "protocol.seed 0, not 1"),
        ({**PINNED, "more": 1}, "more null, not 1"),
    ],
)
def test_other_settings_are_refused_by_name(path: Path, pinned: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        opened(path, pinned).__enter__()
    with opened(path, pinned, restart=True) as log:
        assert not list(log.answers())


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"kind": "answer"}', "\xff", '{"kind": "answer", "id": "x", "rotation": -1}']
)
def test_a_damaged_line_is_named(path: Path, line: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], line.encode("latin-1") + b"\n", lines[2]]))
    with pytest.raises(DataError, match="line 3 is damaged"):
        opened(path).__enter__()


@pytest.mark.parametrize(
    "content", [b"hello", b"hello\n", b'{"a": 1}\n', b'{"kind": "answer", "id": "x", "rotation": 0, "correct": true}\n']
)
def test_another_file_is_not_taken_for_a_log_and_not_touched(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match="is no log"):
        opened(file).__enter__()
    assert file.read_bytes() == content


def test_a_log_of_a_later_version_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(DataError, match="format version 2"):
        opened(path).__enter__()


def test_two_runs_cannot_write_one_log(path: Path) -> None:
    with opened(path), pytest.raises(DataError, match="another run is writing"):
        opened(path).__enter__()


def test_a_run_that_learnt_nothing_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "log.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[:20])

    before = path.read_bytes()
    with opened(path) as log:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(DataError, match="No space left"):
            log.append(answer("a/2"))
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory"):
        opened(tmp_path / "nowhere" / "log.jsonl").__enter__()


def test_every_line_is_json_on_its_own(path: Path) -> None:
    kinds = [json.loads(line)["kind"] for line in path.read_bytes().splitlines()]
    assert kinds == ["header", "answer", "answer"]


def test_a_tally_decides_an_item_by_all_its_rotations() -> None:
    tally = Tally({"chess/0": 3, "chess/1": 3}, usd_per_million_tokens=1.0)
    for rotation in (0, 2):
        tally.add(answer("chess/0") | {"rotation": rotation, "prompt_tokens": 5, "completion_tokens": 1, "parsed": "A"})
    assert (tally.graded, tally.next_rotation("chess/0"), tally.accuracy) == ({}, 1, None)
    with pytest.raises(EndpointError, match="no profile"):
        tally.profile("x", make_test())
    tally.add(answer("chess/0") | {"rotation": 1, "parsed": "B"})
    tally.add(answer("chess/1", False) | {"rotation": 0, "finish_reason": "length"})
    assert (tally.graded, tally.next_rotation("chess/1")) == ({"chess/0": True, "chess/1": False}, None)
    assert (tally.unparsed, tally.cut_off, tally.uncounted, tally.usd, tally.accuracy) == (1, 1, 2, None, 0.5)
    tally.add(answer("chess/0", False) | {"rotation": 1})
    assert tally.graded["chess/0"], "an item that is decided stays so"
