"""`modelsat score`: what it writes, what it refuses, and what a second run takes over."""

from __future__ import annotations

import csv
import datetime
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelsat_engine.commands.files.parts import PartsFolder
from modelsat_engine.commands.files.rows import Row
from modelsat_engine.errors import DataError
from modelsat_engine.runtime.engine import Engine
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line

NAMES = ("model-0", "model-1", "model-2")
TEXTS = [f"what is the root of {i} and {'x' * (i % 7)}?" for i in range(23)]


def text_file(path: Path, texts: list[str] = TEXTS) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    """The output of any format as rows with `probabilities` by name."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        with path.open(newline="") as file:
            rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        values = {name: row.pop(f"probability|{name}") for name in NAMES}
        row["row"] = int(row["row"])
        row["probability"] = None if row["probability"] is None else float(row["probability"])
        row["probabilities"] = None if values["model-0"] is None else {n: float(v) for n, v in values.items()}
    return rows


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.csv"])
@pytest.mark.parametrize("options", [[], ["--batch-size", "4", "--part-rows", "5"], ["--part-rows", "23"]])
def test_every_format_holds_the_engines_probabilities_in_order(
    run: Run, tmp_path: Path, tiny_bundle: Path, out: str, options: list[str]
) -> None:
    text_file(tmp_path / "in.txt")
    result = run("score", "in.txt", "-o", out, *options, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["rows"] == len(TEXTS)
    assert (summary["resumed_rows"], summary["skipped_rows"], summary["candidates"]) == (0, 0, 3)
    with Engine.load(tiny_bundle) as engine:
        expected = engine.score(TEXTS)
    rows = records(tmp_path / out)
    assert [row["row"] for row in rows] == list(range(1, len(TEXTS) + 1))
    scored = np.array([[row["probabilities"][name] for name in NAMES] for row in rows])
    np.testing.assert_allclose(scored, expected, atol=2e-6)
    assert [row["candidate"] for row in rows] == [NAMES[i] for i in expected.argmax(1)]
    np.testing.assert_allclose([row["probability"] for row in rows], expected.max(1), atol=2e-6)
    assert all(row["error"] is None for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", out]


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.csv"])
def test_no_rows_in_no_rows_out_but_the_columns(run: Run, tmp_path: Path, out: str) -> None:
    (tmp_path / "in.txt").write_text("")
    assert run("score", "in.txt", "-o", out).exit_code == 0
    assert records(tmp_path / out) == []
    if out.endswith("parquet"):
        assert "probability|model-2" in pq.read_schema(tmp_path / out).names


def test_a_bad_row_stops_or_is_skipped_with_its_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"prompt": "good"}\n{"prompt": ""}\n{"prompt": [{"role": "alien", "content": "x"}]}\n{"prompt": "\\u0000"}\n'
        '{"prompt": "also good"}\n'
    )
    result = run("score", "in.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 1
    assert "in.jsonl, line 2: the instruction is empty; mend it, or pass --on-error skip" in one_error_line(
        result.stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]

    result = run("score", "in.jsonl", "-o", "out.jsonl", "--on-error", "skip")
    assert result.exit_code == 0
    assert "3 of them skipped" in result.stdout
    rows = records(tmp_path / "out.jsonl")
    assert [row["candidate"] is None for row in rows] == [False, True, True, True, False]
    assert [row["error"] is None for row in rows] == [row["candidate"] is not None for row in rows]
    assert "alien" in rows[2]["error"]
    assert "instruction 0" not in rows[2]["error"]


def test_ids_and_kept_columns_are_copied_and_nothing_else(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"id": 7, "prompt": "one", "tag": {"a": [1]}, "secret": "s"}\n{"prompt": "two", "tag": "plain 🦉"}\n'
    )
    for out in ("out.jsonl", "out.csv", "out.parquet"):
        assert run("score", "in.jsonl", "-o", out, "--keep", "tag").exit_code == 0
    rows = records(tmp_path / "out.jsonl")
    assert [(row["id"], row["tag"]) for row in rows] == [(7, {"a": [1]}), (None, "plain 🦉")]
    for out in ("out.csv", "out.parquet"):
        rows = records(tmp_path / out)
        assert [(row["id"], row["tag"]) for row in rows] == [("7", '{"a": [1]}'), (None, "plain 🦉")]
        assert "secret" not in rows[0]
        assert "prompt" not in rows[0]


def test_parquet_columns_keep_their_types(run: Run, tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 10, datetime.timezone.utc)
    columns = {
        "prompt": pa.array(["one", "two"]),
        "key": pa.array([2**60, None], pa.uint64()),
        "at": pa.array([1, 2**60], pa.timestamp("ns")),
        "zone": pa.array([moment, None]),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "deep": pa.array([{"x": [1, 2]}, None]),
        "raw": pa.array([b"\xff\0", b""]),
        "day": pa.array([moment.date(), None]),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "in.parquet")
    kept = "at,zone,kind,deep,raw,day"
    arguments = ["score", "in.parquet", "--id-field", "key", "--keep", kept]
    result = run(*arguments, "-o", "out.parquet")
    assert result.exit_code == 0, result.stderr
    written = pq.read_table(tmp_path / "out.parquet")
    assert written["id"].combine_chunks() == columns["key"]
    for name in ("at", "zone", "deep", "raw", "day"):
        assert written[name].combine_chunks().equals(columns[name]), name
    assert written["kind"].to_pylist() == ["a", "b"]

    assert run(*arguments, "-o", "out.jsonl").exit_code == 0
    first = records(tmp_path / "out.jsonl")[0]
    assert (first["id"], first["kind"], first["deep"], first["raw"]) == (2**60, "a", {"x": [1, 2]}, "/wA=")
    assert first["at"] == "1970-01-01 00:00:00.000000001"
    assert (first["day"], first["zone"][:19]) == ("2024-05-06", "2024-05-06T07:08:09")
    assert run(*arguments, "-o", "out.csv").exit_code == 0


def test_a_kept_column_may_not_take_the_name_of_a_result(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt,candidate\na,b\n")
    result = run("score", "in.csv", "-o", "out.csv", "--keep", "candidate")
    assert result.exit_code == 1
    assert "--keep candidate" in one_error_line(result.stderr)


def test_policies_choose_per_row(run: Run, tmp_path: Path) -> None:
    text_file(tmp_path / "in.txt")
    run("score", "in.txt", "-o", "out.jsonl", "--policy", "cheapest-above", "--threshold", "0")
    assert {row["candidate"] for row in records(tmp_path / "out.jsonl")} == {"model-0"}


def test_lone_surrogates_travel_through_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "tag": "\\ud800"}\n')
    for out in ("out.jsonl", "out.csv", "out.parquet"):
        result = run("score", "in.jsonl", "-o", out, "--keep", "tag")
        assert result.exit_code == 0, result.stderr
    assert records(tmp_path / "out.jsonl")[0]["tag"] == "\ud800"
    assert records(tmp_path / "out.csv")[0]["tag"] == "?"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in.txt", "-o", "there.csv"], "pass --overwrite"),
        (["in.txt", "-o", "out.txt"], "the extension tells the format; use .parquet, .jsonl, .csv"),
        (["in.txt", "-o", "missing/out.csv"], "folder missing does not exist"),
        (["in.txt", "-o", "folder.csv"], "is a folder"),
        (["absent.txt", "-o", "out.csv"], "does not exist"),
        (["there.csv", "-o", "there.csv", "--overwrite"], "is the input"),
        (["in.txt", "-o", "out.csv", "--keep", "x"], "no columns"),
        (["in.txt", "-o", "out.csv", "--candidates", "nobody"], "no candidate is called 'nobody'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(run: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    text_file(tmp_path / "in.txt")
    (tmp_path / "there.csv").write_text("prompt\nold\n")
    (tmp_path / "folder.csv").mkdir()
    result = run("score", *arguments)
    assert result.exit_code == 1
    assert says in one_error_line(result.stderr)
    assert (tmp_path / "there.csv").read_text() == "prompt\nold\n"
    assert not list(tmp_path.glob("*.parts"))


def test_overwriting_replaces_the_file_and_keeps_its_mode(run: Run, tmp_path: Path) -> None:
    text_file(tmp_path / "in.txt")
    (tmp_path / "out.csv").write_text("old")
    (tmp_path / "out.csv").chmod(0o640)
    assert run("score", "in.txt", "-o", "out.csv", "--overwrite").exit_code == 0
    assert len(records(tmp_path / "out.csv")) == len(TEXTS)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o640


def test_a_link_is_written_through(run: Run, tmp_path: Path) -> None:
    text_file(tmp_path / "in.txt")
    (tmp_path / "real").mkdir()
    (tmp_path / "out.csv").symlink_to("real/out.csv")
    assert run("score", "in.txt", "-o", "out.csv").exit_code == 0
    assert (tmp_path / "out.csv").is_symlink()
    assert len(records(tmp_path / "real" / "out.csv")) == len(TEXTS)


class Interrupted:
    """A run that stopped after some parts: the third part of the input holds a bad row."""

    def __init__(self, run: Run, tmp_path: Path, out: str = "out.jsonl") -> None:
        self.run, self.folder, self.out = run, tmp_path, out
        text_file(tmp_path / "in.txt", [*TEXTS[:12], "", *TEXTS[12:]])
        self.arguments = ["score", "in.txt", "-o", out, "--part-rows", "5", "--json"]
        result = run(*self.arguments)
        assert result.exit_code == 1
        assert "line 13" in result.stderr
        parts = sorted(path.name for path in (tmp_path / f"{out}.parts").glob("part-*"))
        assert [re.sub(r"\..*", "", part) for part in parts] == ["part-000000", "part-000001"]
        assert not (tmp_path / out).exists()


@pytest.mark.parametrize("out", ["out.parquet", "out.jsonl", "out.csv"])
def test_a_second_run_goes_on_where_the_first_stopped(run: Run, tmp_path: Path, out: str) -> None:
    stopped = Interrupted(run, tmp_path, out)
    result = run(*stopped.arguments, "--on-error", "skip")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resumed_rows"] == 10
    resumed = records(tmp_path / out)
    assert not (tmp_path / f"{out}.parts").exists()
    run(*stopped.arguments, "--on-error", "skip", "--overwrite")
    assert resumed == records(tmp_path / out)
    assert len(resumed) == len(TEXTS) + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--policy", "cheapest-above", "--threshold", "0.5"], "policy"),
        (["--candidates", "model-1"], "zoo"),
        (["--part-rows", "6"], "--part-rows"),
        ("input", "input"),
        ("bundle", "bundle and zoo"),
    ],
)
def test_a_second_run_of_something_else_is_refused_until_restart(
    run: Run, tmp_path: Path, change: str | list[str], says: str
) -> None:
    from tests.runtime.tiny_bundle import write_tiny_bundle

    stopped = Interrupted(run, tmp_path)
    arguments = [*stopped.arguments, "--on-error", "skip"]
    if change == "input":
        text_file(tmp_path / "in.txt", TEXTS)
    elif change == "bundle":
        arguments += ["--bundle", str(write_tiny_bundle(tmp_path / "other", candidates=2, seed=8))]
    else:
        arguments += change
    result = run(*arguments)
    assert result.exit_code == 1
    line = one_error_line(result.stderr)
    assert f"was made from another {says};" in line
    assert "--restart" in line
    result = run(*arguments, "--restart")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resumed_rows"] == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_a_damaged_manifest_asks_for_a_restart(run: Run, tmp_path: Path, damage: str | None) -> None:
    stopped = Interrupted(run, tmp_path)
    manifest = tmp_path / "out.jsonl.parts" / "manifest.json"
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_text(damage)
    result = run(*stopped.arguments, "--on-error", "skip")
    assert result.exit_code == 1
    assert "--restart" in one_error_line(result.stderr)
    assert run(*stopped.arguments, "--on-error", "skip", "--restart").exit_code == 0


def test_a_lost_part_is_made_again(run: Run, tmp_path: Path) -> None:
    stopped = Interrupted(run, tmp_path)
    (tmp_path / "out.jsonl.parts" / "part-000000.jsonl").unlink()
    (tmp_path / "out.jsonl.parts" / ".part-000002.jsonl.x.tmp").write_text("half a li")
    result = run(*stopped.arguments, "--on-error", "skip")
    assert json.loads(result.stdout)["resumed_rows"] == 5
    assert [row["row"] for row in records(tmp_path / "out.jsonl")] == list(range(1, 25))
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_files_of_others_in_the_parts_folder_survive(run: Run, tmp_path: Path) -> None:
    stopped = Interrupted(run, tmp_path)
    (tmp_path / "out.jsonl.parts" / "notes.txt").write_text("mine")
    assert run(*stopped.arguments, "--on-error", "skip", "--restart").exit_code == 0
    assert [path.name for path in (tmp_path / "out.jsonl.parts").iterdir()] == ["notes.txt"]


def test_two_runs_cannot_write_one_output_at_once(run: Run, tmp_path: Path) -> None:
    text_file(tmp_path / "in.txt")
    with PartsFolder(tmp_path / "out.csv", {}):
        result = run("score", "in.txt", "-o", "out.csv")
    assert result.exit_code == 1
    assert "another run is writing" in one_error_line(result.stderr)


def test_an_input_that_changes_meanwhile_is_not_published(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.commands.scoring import RowScorer

    text_file(tmp_path / "in.txt")
    score = RowScorer.score

    def and_append(self: RowScorer, rows: list[Row]) -> object:
        with (tmp_path / "in.txt").open("a") as file:
            file.write("more\n")
        return score(self, rows)

    monkeypatch.setattr(RowScorer, "score", and_append)
    result = run("score", "in.txt", "-o", "out.csv")
    assert result.exit_code == 1
    assert "was changed while it was read" in one_error_line(result.stderr)
    assert not (tmp_path / "out.csv").exists()


def test_an_interruption_says_what_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelsat_engine.commands.scoring import RowScorer

    text_file(tmp_path / "in.txt")
    score = RowScorer.score

    def interrupted(self: RowScorer, rows: list[Row]) -> object:
        if rows[0].number > 10:
            raise KeyboardInterrupt
        return score(self, rows)

    monkeypatch.setattr(RowScorer, "score", interrupted)
    result = run("score", "in.txt", "-o", "out.csv", "--part-rows", "5")
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr
    monkeypatch.setattr(RowScorer, "score", score)
    result = run("score", "in.txt", "-o", "out.csv", "--part-rows", "5", "--json")
    assert json.loads(result.stdout)["resumed_rows"] == 10


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path: Path) -> None:
    from modelsat_engine.commands.files.atomic import atomic_file

    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        with atomic_file(path) as file:
            file.write(b"new")
            file.flush()
            assert path.read_text() == "old"
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    from modelsat_engine.commands.files.atomic import atomic_file

    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot write .*file: No space left on device"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
