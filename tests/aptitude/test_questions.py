"""Question files are read as they come, and every bad row is named."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelsat_engine.aptitude.questions import LETTERS, Question, load_questions
from modelsat_engine.errors import DataError

COLOURS = ("red", "green", "blue")


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Which is the sky?", "options": list(COLOURS), "answer": "C", **changes}


def load_one(tmp_path: Path, **changes: Any) -> Question:
    (question,) = load_questions(jsonl(tmp_path / "q.jsonl", row(**changes)))
    return question


@pytest.mark.parametrize("answer", ["C", "c", "(C)", "C.", 2, 2.0, "2", "blue", " blue\n"])
def test_an_answer_is_a_letter_an_index_or_an_options_text(tmp_path: Path, answer: Any) -> None:
    question = load_one(tmp_path, answer=answer)
    assert (question.answer, question.answer_index, question.answer_text) == ("C", 2, "blue")


@pytest.mark.parametrize("names", [("question", "options", "gold"), ("Prompt", "Choices", "TARGET")])
def test_columns_go_by_several_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    text, options, answer = names
    (question,) = load_questions(
        jsonl(tmp_path / "q.jsonl", {"ID": 7, text: "Which?", options: list(COLOURS), answer: "B", "Subject": "art"})
    )
    assert question == Question("7", "Which?", COLOURS, "B", "art")


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "q.jsonl", {"nr": "a/1", "frage": "Which?", "antwort": "blue", "fach": "Kunst"})
    renamed = {"id": "nr", "question": "frage", "answer": "antwort", "task": "fach"}
    assert load_questions(path, columns=renamed) == [Question("a/1", "Which?", (), "blue", "Kunst")]
    with pytest.raises(DataError, match=r"q\.jsonl, line 1: no column 'fragen'; the row has nr, frage"):
        load_questions(path, columns={**renamed, "question": "fragen"})


@pytest.mark.parametrize("line", ["A. {}\nB. {}\nC. {}", "A) {}\nB) {}\nC) {}", "Options:\n(A) {}\n(B) {}\n(C) {}"])
def test_options_may_stand_in_the_question(tmp_path: Path, line: str) -> None:
    text = "A. Einstein asked:\nWhich is the sky?\n" + line.format(*COLOURS)
    (question,) = load_questions(jsonl(tmp_path / "q.jsonl", {"question": text, "answer": "(C)"}))
    assert question.options == COLOURS
    assert question.answer == "C"
    assert question.text.startswith("A. Einstein asked:\nWhich is the sky?")


def test_lettered_lines_stay_in_the_question_when_the_answer_is_no_letter(tmp_path: Path) -> None:
    text = "Sort:\nA. red\nB. green"
    assert load_questions(jsonl(tmp_path / "q.jsonl", {"question": text, "answer": 17})) == [
        Question(load_questions(tmp_path / "q.jsonl")[0].hash[:16], text, (), "17")
    ]


def test_options_in_columns_of_their_own_and_as_a_dictionary_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('question,A,B,C,answer\n"Which, then?",red,green,blue,C\n')
    assert load_questions(path)[0].options == COLOURS
    arc = {"text": list(COLOURS), "label": ["1", "2", "3"]}
    question = load_one(tmp_path, options=arc, answer="3")
    assert (question.options, question.answer) == (COLOURS, "C")


def test_every_format_gives_the_same_questions_and_hashes(tmp_path: Path) -> None:
    rows = [
        row(id=f"q{i}", question=f"Which is the {i}?", options=[f"o{i}", "päge", "x, y"], task="t") for i in range(3)
    ]
    expected = load_questions(jsonl(tmp_path / "q.jsonl", *rows))
    (tmp_path / "q.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "q.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for r in rows)
    for name, delimiter in (("q.csv", ","), ("q.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows({**r, "options": json.dumps(r["options"])} for r in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    for name in ("q.json", "q.jsonl.gz", "q.csv", "q.tsv", "q.parquet"):
        assert load_questions(tmp_path / name) == expected, name


def test_the_hash_is_of_the_content_and_of_nothing_else() -> None:
    question = Question("q1", "Which is the sky?", COLOURS, "C", "art")
    assert Question("other", "Which  is\nthe sky?", COLOURS, "C", None).hash == question.hash
    assert Question("q1", "Which is the sky?", COLOURS, "B", "art").hash != question.hash
    assert Question("q1", "Which is the sky?", COLOURS[::-1], "A", "art").hash != question.hash
    inline = Question("q1", "Which is the sky?", (), "C", "art")
    assert inline.hash != question.hash


def test_a_question_without_an_id_is_called_by_its_content(tmp_path: Path) -> None:
    first, second = load_questions(
        jsonl(tmp_path / "q.jsonl", row(id=None), row(id=None, answer="A")), id_prefix="mine/"
    )
    assert first.id == f"mine/{first.hash[:16]}" != second.id
    with pytest.raises(DataError, match=r"line 2: the id .* was used before \(line 1\)"):
        load_questions(jsonl(tmp_path / "q.jsonl", row(id=None), row(id=None)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": 7}, "the question must be text, not int"),
        ({"question": float("nan")}, "the question must be text, not NaN"),
        ({"question": " \n"}, "the question is empty"),
        ({"question": ""}, "the question in column 'question' is empty"),
        ({"question": "x" * 10_000_000}, "the question has 10,000,000 characters, more than 1,048,576"),
        ({"question": "\ud800 lone"}, "half a surrogate pair"),
        ({"options": "red or blue"}, "options must be a list; in csv write"),
        ({"options": 3}, "options must be a list of texts, not int"),
        ({"options": ["red", ""], "answer": "A"}, "option B is empty"),
        ({"options": ["red", None], "answer": "A"}, "option B must be text, not NoneType"),
        ({"options": ["red", float("nan")], "answer": "A"}, "option B must be text, not NaN"),
        ({"options": [*LETTERS, "more"]}, "27 options; at most 26"),
        ({"answer": "D"}, "the answer 'D' is none of the 3 options"),
        ({"answer": 3}, "the answer '3' is none of the 3 options"),
        ({"answer": -1}, "the answer '-1' is none of the 3 options"),
        ({"answer": True}, "the answer must be text, not bool"),
        ({"answer": float("nan")}, "the answer must be text, not NaN"),
        ({"answer": None}, "the answer in column 'answer' is empty"),
        ({"options": ["3", "2", "1"], "answer": "2"}, "may be an index or an option's text"),
        ({"id": 1.5}, "the id must be text or a whole number, not 1.5"),
        ({"id": float("nan")}, "the id must be text or a whole number, not NaN"),
        ({"id": True}, "the id must be text or a whole number, not True"),
        ({"task": ["a"]}, "the task must be text, not list"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = jsonl(tmp_path / "q.jsonl", row(id="q0"), row(**changes))
    with pytest.raises(DataError) as caught:
        load_questions(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(("answer_as", "letter"), [("index", "C"), ("text", "B")])
def test_a_doubtful_answer_is_read_as_one_says(tmp_path: Path, answer_as: str, letter: str) -> None:
    path = jsonl(tmp_path / "q.jsonl", row(options=["3", "2", "1"], answer="2"))
    assert load_questions(path, answer_as=answer_as)[0].answer == letter
    with pytest.raises(DataError, match="none of the 3 options as letter"):
        load_questions(path, answer_as="letter")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"question": "caf\xe9"}\n', "line 1: not valid UTF-8"),
        ("q.jsonl", b'{"question": "a", "answer": "b"}\n{"question": ', "line 2: not valid JSON, or cut short"),
        ("q.jsonl", b"[1]\n", "line 1: need a JSON object, not list"),
        ("q.jsonl", b"", "holds no question"),
        ("q.json", b'{"a": 1}', "need a list of JSON objects, not dict"),
        ("q.csv", b"question,answer\na,b\ncaf\xe9,b\n", r"row 2 \(line 3\): not valid UTF-8"),
        ("q.csv", b"question,answer\na,b,c\n", r"row 1 \(line 2\): 3 fields, but 2 in the header"),
        ("q.csv", b"question,question\na,b\n", "the column 'question' stands twice"),
        ("q.csv", b'question,answer\n"a,b\n', "not valid CSV"),
        ("q.parquet", b"PAR1 not really", "not a readable parquet file"),
        ("q.jsonl.gz", gzip.compress(b'{"question": "a"}' * 99)[:30], "damaged gzip"),
        ("q.txt", b"what?", "the extension tells the format"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_questions(tmp_path / name)
    assert name in str(caught.value)


def test_text_in_parquet_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"question": texts, "answer": ["a", "b", "c"]}), tmp_path / "q.parquet")
    with pytest.raises(DataError, match=r"q\.parquet, row 2: text that is not valid UTF-8"):
        load_questions(tmp_path / "q.parquet")


def test_a_missing_file_and_a_missing_library_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="does not exist"):
        load_questions(tmp_path / "none.csv")
    with pytest.raises(DataError, match="neither a file nor a Hugging Face dataset"):
        load_questions("no such thing")
    with pytest.raises(DataError, match="pip install datasets"):
        load_questions("no-such-owner/no-such-dataset:config")


def test_a_hugging_face_dataset_is_read_where_its_library_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library itself is optional and needs a network, so a stand-in of its one function is asked."""
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, Any]]:
        asked.append((name, config, split))
        if config == "none":
            raise ValueError("BuilderConfig 'none'\nnot found")
        return [row(question_id=70, id=None)]

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert [q.id for q in load_questions("owner/name:main", id_prefix="x/", split="validation")] == ["x/70"]
    assert load_questions("owner/name")[0].answer == "C"
    assert asked == [("owner/name", "main", "validation"), ("owner/name", None, "test")]
    with pytest.raises(DataError, match="cannot load the dataset owner/name:none, split 'test': BuilderConfig"):
        load_questions("owner/name:none")
