"""`modelsat aptitude build`: from a question file to a test that results can be imported for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsat_engine.aptitude import AptitudeTest
from tests.aptitude.conftest import Run
from tests.aptitude.test_construction import WORDS, questions, table

KEYWORDS = {task: list(words) for task, words in WORDS.items()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """questions.jsonl, outcomes.csv and keywords.json in the folder of the command."""
    with (tmp_path / "questions.jsonl").open("w") as file:
        for q in questions():
            row = {"id": q.id, "question": q.text, "options": q.options, "answer": q.answer, "subject": q.task}
            file.write(json.dumps(row) + "\n")
    outcomes = table()
    with (tmp_path / "outcomes.csv").open("w") as file:
        file.write("model,item,correct\n")
        for model, row in zip(outcomes.models, outcomes.Y.tolist(), strict=True):
            file.writelines(f"{model},{item},{y}\n" for item, y in zip(outcomes.items, row, strict=True))
    (tmp_path / "keywords.json").write_text(json.dumps(KEYWORDS))
    return tmp_path


BUILD = ("aptitude", "build", "questions.jsonl", "--tasks", "3", "--shots", "8", "--keywords", "keywords.json")


def test_a_test_is_built_reported_and_built_again(run: Run, files: Path) -> None:
    first = run(*BUILD, "--outcomes", "outcomes.csv", "-o", "a.json", "--json")
    assert first.exit_code == 0, first.stderr
    summary = json.loads(first.stdout)
    test = AptitudeTest.load(files / "a.json")
    assert (summary["id"], summary["sampling"]) == (test.id, "distinguishability")
    assert len(test.item_hashes) == 24
    assert "people know" not in (files / "a.json").read_text(), "no question text"
    assert summary["report"]["models"] == 15
    assert 0 < summary["report"]["standard_error"] < 0.2
    assert {task["keywords_from"] for task in summary["report"]["tasks"]} == {"given"}
    again = json.loads(run(*BUILD, "--outcomes", "outcomes.csv", "-o", "b.json", "--json").stdout)
    assert again["id"] == summary["id"]
    assert (files / "a.json").read_bytes() == (files / "b.json").read_bytes()
    other = json.loads(run(*BUILD, "--outcomes", "outcomes.csv", "-o", "c.json", "--seed", "1", "--json").stdout)
    assert other["id"] != summary["id"]


def test_the_table_says_what_a_person_must_know(run: Run, files: Path) -> None:
    result = run(*BUILD, "--outcomes", "outcomes.csv", "-o", "a.json")
    assert result.exit_code == 0, result.stderr
    for words in (
        "discrimination",
        "reliability",
        "Standard error of a model's accuracy",
        "oven, flour",
        "--aptitude a.json",
    ):
        assert words in result.stdout, words
    uniform = run(*BUILD, "-o", "b.json")
    assert "drawn uniformly" in uniform.stdout
    assert "at most" in uniform.stdout
    assert "no outcomes were given" in uniform.stderr
    assert "keywords that were not used: 1" in uniform.stderr


def test_a_built_test_takes_results_by_content_and_by_task(run: Run, files: Path) -> None:
    assert run(*BUILD, "--outcomes", "outcomes.csv", "-o", "a.json").exit_code == 0
    test = AptitudeTest.load(files / "a.json")
    by_id = {q.id: q for q in questions()}
    item = test.tasks[0].item_ids[0]
    doc = {"question": by_id[item].text, "choices": list(by_id[item].options), "answer": 0}
    sample = {"doc_id": 5, "doc": doc, "target": "0", "filter": "none", "metrics": ["acc"], "acc": 1.0}
    (files / "samples_mine.jsonl").write_text(json.dumps(sample) + "\n")
    imported = run("aptitude", "import", "samples_mine.jsonl", "--name", "m", "--test", "a.json", "--json")
    assert imported.exit_code == 0, imported.stderr
    assert json.loads(imported.stdout)["items"] == 1
    (files / "r.csv").write_text(f"task,correct,total\n{test.tasks[1].name},30,40\n")
    imported = run("aptitude", "import", "r.csv", "--name", "n", "--test", "a.json", "--json")
    assert json.loads(imported.stdout)["answers"] == 8


def test_nothing_is_overwritten_unasked_and_bad_input_is_one_line(run: Run, files: Path) -> None:
    assert run(*BUILD, "-o", "a.json").exit_code == 0
    before = (files / "a.json").read_bytes()
    for extra, words in (
        (("-o", "a.json"), "exists; pass --overwrite"),
        (("-o", "no/a.json"), "is not a folder"),
        (("-o", "b.json", "--outcomes", "none.csv"), "none.csv"),
        (("-o", "b.json", "--tasks", "9"), "only 4 of 4 tasks have 8 usable items, 9 are needed"),
        (("-o", "b.json", "--task-column", "topic"), "no column 'topic'"),
        (("-o", "b.json", "--id-prefix", "x/", "--outcomes", "outcomes.csv"), "use the same ids in both"),
    ):
        result = run(*BUILD, *extra)
        assert result.exit_code == 1, extra
        assert result.stderr.count("\n") == 1, result.stderr
        assert words in result.stderr
    assert (files / "a.json").read_bytes() == before
    assert run(*BUILD).exit_code == 2
    assert run(*BUILD, "-o", "b.json", "--shots", "0").exit_code == 2
    (files / "keywords.json").write_text('{"cooking": "oven; flour", "chess": []}')
    assert "the keywords of 'chess' must be a list" in run(*BUILD, "-o", "b.json").stderr
    assert "Examples:" in run("aptitude", "build", "--help").stdout
