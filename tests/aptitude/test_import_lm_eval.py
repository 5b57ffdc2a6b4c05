"""Results and samples of the evaluation harness are read as it writes them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude.importers import lm_eval
from modelsat_engine.aptitude.importers.names import split_task_name
from modelsat_engine.aptitude.importers.results import CHAIN_OF_THOUGHT, LOG_LIKELIHOOD
from modelsat_engine.errors import DataError
from tests.aptitude.result_files import (
    lm_eval_results,
    mmlu_sample,
    pro_sample,
    question,
    write_json,
    write_lines,
)

PRO_SAMPLES = "samples_mmlu_pro_health_2025-01-31T10-11-12.123456.jsonl"


def test_a_sample_of_mmlu_pro_is_known_by_its_question_id_and_its_content(tmp_path: Path) -> None:
    path = write_lines(tmp_path / PRO_SAMPLES, [pro_sample(3, 1.0), pro_sample(4, 0.0)])
    results = lm_eval.read([path])
    assert [item.correct for item in results.items] == [True, False]
    first = results.items[0]
    assert first.ids == ("mmlu_pro/3", "3")
    assert first.content == question(3).hash
    assert (first.benchmark, first.task) == ("mmlu_pro", "health")
    assert results.protocol == CHAIN_OF_THOUGHT


def test_a_sample_of_mmlu_has_no_id_since_its_doc_id_is_a_place_in_a_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "samples_mmlu_anatomy_2025-01-31T10-11-12.1.jsonl", [mmlu_sample(3, "anatomy", 1.0)])
    results = lm_eval.read([path])
    assert results.items[0].ids == ()
    assert (results.items[0].benchmark, results.items[0].task) == ("mmlu", "anatomy")
    assert results.protocol == LOG_LIKELIHOOD


def test_a_renamed_and_gzipped_file_of_mmlu_pro_is_still_known(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(pro_sample(3, 1)) + "\n").encode()))
    assert lm_eval.read([path]).items[0].ids[0] == "mmlu_pro/3"


def test_one_answer_filter_counts_and_the_others_are_told(tmp_path: Path) -> None:
    rows = [pro_sample(3, 0, filter="strict-match"), pro_sample(3, 1, filter="flexible-extract")]
    path = write_lines(tmp_path / PRO_SAMPLES, rows)
    first = lm_eval.read([path])
    assert [item.correct for item in first.items] == [False]
    assert "'strict-match' count, those of flexible-extract (1) do not" in first.remarks[0]
    assert [item.correct for item in lm_eval.read([path], filter_name="flexible-extract").items] == [True]
    with pytest.raises(DataError, match="no sample of the filter 'other'; it has strict-match, flexible-extract"):
        lm_eval.read([path], filter_name="other")


def test_results_give_an_accuracy_and_a_size_per_task_and_no_sums(tmp_path: Path) -> None:
    scores = {"mmlu": (0.6, 14042), "mmlu_stem": (0.5, 3153), "mmlu_anatomy": (0.7, 135), "mmlu_pro_law": (0.3, 1101)}
    results = lm_eval.read([write_json(tmp_path / "results_x.json", lm_eval_results(scores))])
    assert [(r.benchmark, r.task, r.accuracy, r.total) for r in results.tasks] == [
        ("mmlu", "anatomy", 0.7, 135),
        ("mmlu_pro", "law", 0.3, 1101),
    ]
    assert results.model == "org/my-model"


def test_without_sizes_the_standard_error_gives_them_back(tmp_path: Path) -> None:
    value = lm_eval_results({"hendrycksTest-anatomy": (0.4, 135), "hendrycksTest-law": (1.0, 99)}, metric="acc")
    value["results"]["hendrycksTest-anatomy"]["acc_stderr"] = math.sqrt(0.4 * 0.6 / 134)
    del value["n-samples"]
    results = lm_eval.read([write_json(tmp_path / "r.json", value)])
    assert [(r.task, r.total) for r in results.tasks] == [("anatomy", 135)]
    assert "hendrycksTest-law does not say over how many questions" in results.remarks[0]


def test_of_several_runs_in_a_folder_the_latest_counts(tmp_path: Path) -> None:
    folder = tmp_path / "org__my-model"
    folder.mkdir()
    write_lines(folder / "samples_mmlu_pro_health_2025-01-31T10-11-12.1.jsonl", [pro_sample(3, 0)])
    write_lines(folder / "samples_mmlu_pro_health_2025-02-01T10-11-12.1.jsonl", [pro_sample(3, 1)])
    write_lines(folder / "samples_mmlu_pro_law_2025-01-31T10-11-12.1.jsonl", [pro_sample(4, 1)])
    results = lm_eval.read([tmp_path])
    assert [item.correct for item in results.items] == [True, True]
    assert "1 files of earlier runs" in results.remarks[0]
    other = tmp_path / "org__other"
    other.mkdir()
    write_lines(other / PRO_SAMPLES, [pro_sample(3, 1)])
    with pytest.raises(DataError, match="results of 2 models"):
        lm_eval.read([tmp_path])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mmlu_anatomy", ("mmlu", "anatomy")),
        ("hendrycksTest-anatomy", ("mmlu", "anatomy")),
        ("mmlu_flan_n_shot_generative_college_physics", ("mmlu", "college_physics")),
        ("mmlu_anatomy_generative", ("mmlu", "anatomy")),
        ("mmlu_pro_law", ("mmlu_pro", "law")),
        ("leaderboard_mmlu_pro", ("mmlu_pro", "")),
        ("leaderboard_bbh_snarks", ("bbh", "snarks")),
        ("hellaswag", (None, "hellaswag")),
    ],
)
def test_a_task_name_tells_the_benchmark(name: str, expected: tuple[str | None, str]) -> None:
    assert split_task_name(name) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"results": {"mmlu_anatomy": {"acc,none": 78.3}}},
            "need a share between 0 and 1; if it is per cent, write 0.783",
        ),
        ({"results": {"mmlu_anatomy": {"acc,none": float("nan")}}}, "mmlu_anatomy: acc,none is nan"),
        ({"results": {"mmlu_anatomy": {"acc,none": "high"}}}, "acc,none is 'high'"),
        ({"results": {"mmlu_anatomy": 0.7}}, "need an object of metrics, not float"),
        ({"results": {"mmlu": {"acc,none": 0.7}}}, "only sums over tasks"),
        (
            {"results": {"mmlu_anatomy": {"acc,none": 0.7}}, "n-samples": {"mmlu_anatomy": {"effective": 1.5}}},
            "need a whole number of questions",
        ),
        ([], "no results file"),
        ({"results": []}, "no results file"),
    ],
)
def test_bad_results_are_named(tmp_path: Path, value: Any, words: str) -> None:
    path = write_json(tmp_path / "results.json", value)
    with pytest.raises(DataError) as caught:
        lm_eval.read([path])
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (pro_sample(3, 0.5), "line 1, exact_match: 0.5 is neither right"),
        (pro_sample(3, float("nan")), "nan is neither right"),
        ({**pro_sample(3, 1), "doc": "text"}, "not a sample of the evaluation harness"),
        ({"question": "a", "answer": "b"}, "not a sample of the evaluation harness"),
        ({k: v for k, v in pro_sample(3, 1).items() if k != "exact_match"}, "no metric acc, exact_match, acc_norm"),
        ([1], "need a JSON object, not list"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, row: Any, words: str) -> None:
    path = write_lines(tmp_path / "samples_x.jsonl", [row])
    with pytest.raises(DataError, match="line 1") as caught:
        lm_eval.read([path])
    assert words in str(caught.value)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(lm_eval_results({"mmlu_anatomy": (0.5, 10)}))[:-40])
    with pytest.raises(DataError, match=r"results\.json: not valid JSON, or cut short"):
        lm_eval.read([path])
    with pytest.raises(DataError, match="does not exist"):
        lm_eval.read([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no results"):
        lm_eval.read([tmp_path / "empty"])
