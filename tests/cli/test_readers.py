"""Reading instructions: four formats, and every way a row can be bad."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelsat_engine.commands.files.readers import PARQUET_ROWS_AT_ONCE, open_instructions
from modelsat_engine.commands.files.results import plain
from modelsat_engine.errors import DataError


def read(path: Path, **options: object) -> list[tuple[int, object, str | None]]:
    """(number, instruction, error) of every row."""
    return [(row.number, row.instruction, row.error) for row in open_instructions(path, **options).rows()]  # type: ignore[arg-type]


def test_text_is_one_instruction_a_line(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n \t\nbad \xff\nlast, \xf0\x9f\xa6\x89 without end")
    assert read(path) == [
        (1, "one", None),
        (2, "two", None),
        (3, None, "the instruction is empty"),
        (4, None, "the instruction is empty"),
        (5, None, "not valid UTF-8 (byte 0xff at byte 5)"),
        (6, "last, 🦉 without end", None),
    ]


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.tsv"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert read(tmp_path / name) == []


def test_json_lines_with_good_and_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    messages = [{"role": "user", "content": "hi"}]
    lines = [
        json.dumps({"id": 1, "prompt": "one"}).encode(),
        b"{",
        b"",
        b"[1]",
        json.dumps({"id": 2}).encode(),
        json.dumps({"prompt": None}).encode(),
        json.dumps({"prompt": 7}).encode(),
        json.dumps({"prompt": " "}).encode(),
        json.dumps({"prompt": messages}).encode(),
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt": "lone \\ud800 surrogate"}',
        b'{"prompt": ' + b"9" * 10_000 + b"}",
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read(path)
    assert [row[0] for row in rows] == list(range(1, len(lines) + 1))
    good = {number: instruction for number, instruction, error in rows if error is None}
    assert good == {1: "one", 9: messages, 12: "lone \ud800 surrogate"}
    errors = {number: error for number, _, error in rows if error is not None}
    assert errors[2].startswith("not valid JSON")
    assert errors[3] == "the instruction is empty"
    assert errors[4] == "not a JSON object"
    assert errors[5] == "no field 'prompt'"
    assert errors[6] == "no 'prompt'"
    assert errors[7] == "'prompt' is neither text nor a list of chat messages"
    assert errors[8] == "the instruction is empty"
    assert errors[10].startswith("not valid UTF-8 (byte 0xff")


def test_the_usual_field_names_are_tried_in_order(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"other": 1}\n{"text": "t", "prompt": "p", "messages": [], "id": "x"}\n')
    source = open_instructions(path)
    assert source.field == "prompt"
    assert source.id_column is not None
    source = open_instructions(path, field="text", id_field="other", keep=["prompt", "absent"])
    rows = list(source.rows())
    assert rows[0].error == "no field 'text'"
    assert (rows[1].instruction, rows[1].id, rows[1].kept) == ("t", None, ("p", None))


def test_a_file_without_a_usual_field_asks_for_one_and_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,answer\nwhat?,that\n")
    with pytest.raises(DataError, match=r"name the one to score with --field \(columns: question, answer\)"):
        open_instructions(tmp_path / "in.csv")
    assert read(tmp_path / "in.csv", field="question") == [(1, "what?", None)]


def test_csv_fields_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(
        b'id,prompt\r\n1,"a, ""b""\r\nc"\r\n\r\n2,plain\r\n3\r\n4,bad \xff\r\n5,nul \0\r\n6,\r\n7,"x" y\r\n8,end\r\n'
    )
    rows = list(open_instructions(path).rows())
    assert [(row.number, row.id) for row in rows] == [
        (1, "1"),
        (2, "2"),
        (3, None),
        (4, None),
        (5, "5"),
        (6, "6"),
        (7, None),
        (8, "8"),
    ]
    assert rows[0].instruction == 'a, "b"\r\nc'
    assert rows[0].where == "row 1 (line 3)"
    assert rows[2].error == "1 fields, but 2 in the header"
    assert rows[3].error == "bytes that are not valid UTF-8"
    assert rows[4].instruction == "nul \ufffd"
    assert rows[5].error == "the instruction is empty"
    assert (rows[6].error or "").startswith("not valid CSV")
    assert rows[7].instruction == "end"


def test_a_quote_that_is_never_closed_is_an_error_not_a_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('prompt\ngood\n"open\nand on\n')
    rows = read(tmp_path / "in.csv")
    assert rows[0] == (1, "good", None)
    assert rows[1][1] is None
    assert "not valid CSV" in str(rows[1][2])


def test_tabs_separate_in_tsv(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("id\ttext\n1\ta, b\n")
    assert read(tmp_path / "in.tsv") == [(1, "a, b", None)]


@pytest.mark.parametrize("cell", ['[{"role": "user", "content": "hi"}]', "plain"])
def test_text_in_a_messages_column_may_be_json(tmp_path: Path, cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    (tmp_path / "in.csv").write_text(f"messages\n{quoted}\n")
    expected = json.loads(cell) if cell.startswith("[") else cell
    assert read(tmp_path / "in.csv") == [(1, expected, None)]


def test_parquet_text_messages_and_nulls(tmp_path: Path) -> None:
    n = PARQUET_ROWS_AT_ONCE + 37
    table = pa.table({"prompt": pa.array([None if i == 5 else f"row {i}" for i in range(n)]), "id": pa.array(range(n))})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=100)
    source = open_instructions(tmp_path / "in.parquet")
    rows = list(source.rows())
    assert len(rows) == n
    assert source.fraction == 1.0
    assert rows[5].error == "no 'prompt'"
    assert rows[-1].instruction == f"row {n - 1}"
    assert plain(rows[-1].id) == n - 1

    messages = [[{"role": "user", "content": "hi"}]]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "chat.parquet")
    assert read(tmp_path / "chat.parquet") == [(1, messages[0], None)]


def test_parquet_text_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff!")]
    )
    pq.write_table(pa.table({"text": bad}), tmp_path / "in.parquet")
    rows = read(tmp_path / "in.parquet")
    assert rows[0] == (1, "ok", None)
    assert rows[1][2] == "not valid UTF-8 (byte 0xff at byte 1)"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.xml", b"", "the extension tells the format"),
        ("in", b"", "the extension tells the format"),
        ("in.parquet", b"not parquet at all", "not a readable parquet file"),
        ("in.csv", b"\xff\xfea\n", "line 1, the header"),
        ("in.csv", b"prompt,prompt\na,b\n", "stands 2 times"),
    ],
)
def test_files_that_cannot_be_opened_say_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        open_instructions(tmp_path / name)


def test_missing_files_and_unknown_columns_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_instructions(tmp_path / "in.txt")
    (tmp_path / "dir.txt").mkdir()
    with pytest.raises(DataError, match="is not a file"):
        open_instructions(tmp_path / "dir.txt")
    (tmp_path / "in.txt").write_text("x")
    with pytest.raises(DataError, match="a text file has no columns"):
        open_instructions(tmp_path / "in.txt", field="prompt")
    (tmp_path / "in.csv").write_text("prompt\nx\n")
    with pytest.raises(DataError, match="has no column 'absent'; its columns: prompt"):
        open_instructions(tmp_path / "in.csv", keep=["absent"])
