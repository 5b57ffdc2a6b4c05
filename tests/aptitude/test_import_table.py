"""Results in a plain table, and telling formats apart."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from modelsat_engine.aptitude.importers import detect_format, read_results, table
from modelsat_engine.aptitude.importers.results import TaskResult
from modelsat_engine.errors import DataError
from tests.aptitude.result_files import helm_run, helm_stats, lm_eval_results, pro_sample, write_json, write_lines


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("right", ["1", "1.0", "true", "True", "yes", "right", "correct"])
@pytest.mark.parametrize("wrong", ["0", "false", "No", "wrong"])
def test_an_item_is_right_or_wrong_in_many_words(tmp_path: Path, right: str, wrong: str) -> None:
    results = table.read([csv(tmp_path / "r.csv", f"item,correct\na/1,{right}\na/2,{wrong}\n")])
    assert [(item.ids, item.correct) for item in results.items] == [(("a/1",), True), (("a/2",), False)]


def test_tasks_come_as_counts_or_as_accuracies(tmp_path: Path) -> None:
    counts = table.read([csv(tmp_path / "r.csv", "Task,Correct,Total\nanatomy,3,5\nlaw,0,7\n")])
    assert [(r.task, r.accuracy, r.total) for r in counts.tasks] == [("anatomy", 0.6, 5), ("law", 0.0, 7)]
    shares = table.read([csv(tmp_path / "s.csv", "subject,accuracy,n\nanatomy,0.6,5\n")])
    assert (shares.tasks[0].accuracy, shares.tasks[0].total) == (0.6, 5)


def test_the_rows_of_one_model_are_taken(tmp_path: Path) -> None:
    path = csv(tmp_path / "r.csv", "model,item,correct\na,x,1\nb,x,0\n")
    assert [item.correct for item in table.read([path], model="b").items] == [False]
    with pytest.raises(DataError, match=r"row 2 \(line 3\): rows of 'a' and 'b'; choose one with --model"):
        table.read([path])
    with pytest.raises(DataError, match="no row of the model 'c'; it has a, b"):
        table.read([path], model="c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item,correct\na,maybe\n", "'maybe' is neither right"),
        ("item,correct\na,0.5\n", "'0.5' is neither right"),
        ("item,correct\na,nan\n", "'nan' is neither right"),
        ("item,correct\na,\n", "need the columns item and correct"),
        ("task,correct,total\nlaw,6,5\n", "6 right of 5"),
        ("task,correct,total\nlaw,-1,5\n", "correct is '-1'"),
        ("task,correct,total\nlaw,2.5,5\n", "correct is '2.5'"),
        ("task,correct,total\nlaw,0,0\n", "'law' has 0 questions"),
        ("task,accuracy,total\nlaw,1.2,5\n", "accuracy is '1.2'"),
        ("task,accuracy,total\nlaw,75,5\n", "if it is per cent, write 0.75"),
        ("task,accuracy,total\nlaw,nan,5\n", "accuracy is 'nan'"),
        ("task,accuracy,total\nlaw,0.7,inf\n", "total is 'inf'"),
        ("task,correct,total,accuracy\nlaw,3,5,0.9\n", "which is it?"),
        ("a,b\n1,2\n", "the row has a, b"),
        ("", "has no row"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=r"r\.csv") as caught:
        table.read([csv(tmp_path / "r.csv", text)])
    assert words in str(caught.value)


def test_a_task_result_is_a_share_of_some_questions() -> None:
    with pytest.raises(DataError, match="need a share"):
        TaskResult("here", "law", float("nan"), 5)
    with pytest.raises(DataError, match="at least one"):
        TaskResult("here", "law", 0.5, 0)


def test_formats_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    run = helm_run(tmp_path / "run", "mmlu:subject=law,model=m", [helm_stats("id1", 1.0)])
    samples = write_lines(tmp_path / "anything.jsonl", [pro_sample(1, 1.0)])
    results = write_json(tmp_path / "anything.json", lm_eval_results({"mmlu_law": (0.5, 10)}))
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(results.read_bytes()))
    folder = tmp_path / "org__model"
    folder.mkdir()
    write_lines(folder / "samples_mmlu_law_2025-01-01T00-00-00.1.jsonl", [pro_sample(1, 1.0)])
    rows = write_lines(tmp_path / "rows.jsonl", [{"item": "a", "correct": 1}])
    plain = csv(tmp_path / "r.csv", "item,correct\na,1\n")
    listed = write_json(tmp_path / "rows.json", [{"item": "a", "correct": 1}])
    for path, expected in (
        (run, "helm"),
        (run / "per_instance_stats.json", "helm"),
        (samples, "lm-eval"),
        (results, "lm-eval"),
        (packed, "lm-eval"),
        (folder, "lm-eval"),
        (rows, "csv"),
        (plain, "csv"),
        (listed, "csv"),
    ):
        assert detect_format(path) == expected, path
    with pytest.raises(DataError, match="in 2 formats"):
        read_results([samples, plain])
    with pytest.raises(DataError, match="no result format 'xml'"):
        read_results([plain], "xml")


@pytest.mark.parametrize(("name", "content"), [("x.json", "{}"), ("x.bin", "item"), ("x.json", '{"results": [')])
def test_an_unknown_format_is_told(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"no format known here|cut short"):
        read_results([tmp_path / name])


def test_the_wrong_format_is_told(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", [{"item": "a", "correct": 1}])
    with pytest.raises(DataError, match="choose another --format"):
        read_results([rows], "lm-eval")
    with pytest.raises(DataError, match=r"not valid JSON|need the list"):
        read_results([rows], "helm")
    stats = write_json(tmp_path / "stats.json", [helm_stats("id1", 1.0)])
    with pytest.raises(DataError, match="need the columns item and correct"):
        read_results([stats], "csv")
    assert json.loads(stats.read_text()), "nothing was written to"
