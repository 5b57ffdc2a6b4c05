"""Runs of HELM are read as it writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude.importers import helm
from modelsat_engine.aptitude.importers.results import CHAIN_OF_THOUGHT
from modelsat_engine.errors import DataError
from tests.aptitude.result_files import helm_instance, helm_run, helm_stat, helm_stats, question, write_json

MMLU = "mmlu:subject=anatomy,method=multiple_choice_joint,model=org_my-model,eval_split=test"
PRO = "mmlu_pro:subject=all,use_chain_of_thought=true,model=org_my-model"


def test_a_run_tells_benchmark_subject_and_model(tmp_path: Path) -> None:
    run = helm_run(tmp_path / "run", MMLU, [helm_stats("id3", 1.0), helm_stats("id9", 0.0)])
    results = helm.read([run])
    assert [(item.correct, item.benchmark, item.task) for item in results.items] == [
        (True, "mmlu", "anatomy"),
        (False, "mmlu", "anatomy"),
    ]
    assert results.items[0].ids == (), "the number is a place in the scenario"
    assert results.model == "org_my-model"


def test_the_name_of_the_folder_does_where_there_is_no_run_spec(tmp_path: Path) -> None:
    run = helm_run(tmp_path / MMLU, MMLU, [helm_stats("id3", 1.0)])
    (run / "run_spec.json").unlink()
    assert helm.read([run / "per_instance_stats.json"]).items[0].task == "anatomy"


def test_questions_of_mmlu_pro_keep_their_ids_and_their_content(tmp_path: Path) -> None:
    stats = [helm_stats("id104", 1.0, "chain_of_thought_correctness")]
    run = helm_run(tmp_path / "run", PRO, stats, [helm_instance("id104", question(104))])
    results = helm.read([run])
    assert results.items[0].ids == ("mmlu_pro/104", "104")
    assert results.items[0].content == question(104).hash
    assert results.protocol == CHAIN_OF_THOUGHT


def test_altered_questions_other_splits_and_repeated_trials_do_not_count(tmp_path: Path) -> None:
    train = helm_stats("id4", 1.0)
    for stat in train["stats"]:
        stat["name"]["split"] = "train"
    stats = [
        helm_stats("id3", 1.0),
        helm_stats("id3", 0.0, perturbation={"name": "typos", "robustness": True}),
        helm_stats("id3", 0.0, train_trial_index=1),
        train,
    ]
    results = helm.read([helm_run(tmp_path / "run", MMLU, stats)])
    assert [item.correct for item in results.items] == [True]
    assert len(results.remarks) == 2


def test_the_statistics_of_one_question_may_come_in_several_entries(tmp_path: Path) -> None:
    other = {"instance_id": "id3", "train_trial_index": 0, "stats": [helm_stat("logprob", -3.0)]}
    results = helm.read([helm_run(tmp_path / "run", MMLU, [other, helm_stats("id3", 1.0), other])])
    assert len(results.items) == 1


def test_a_suite_is_read_run_by_run_and_only_of_one_model(tmp_path: Path) -> None:
    helm_run(tmp_path / "a", MMLU, [helm_stats("id3", 1.0)])
    helm_run(tmp_path / "b", MMLU.replace("anatomy", "virology"), [helm_stats("id3", 0.0)])
    assert {item.task for item in helm.read([tmp_path]).items} == {"anatomy", "virology"}
    helm_run(tmp_path / "c", MMLU.replace("org_my-model", "other"), [helm_stats("id3", 0.0)])
    with pytest.raises(DataError, match="results of two models"):
        helm.read([tmp_path])


def state(number: int, letter: str) -> dict[str, Any]:
    asked = question(number)
    return {
        "instance": helm_instance(f"id{number}", asked),
        "train_trial_index": 0,
        "output_mapping": {"ABCDEFGHIJ"[k]: option for k, option in enumerate(asked.options)},
        "request": {"model": "org/my-model"},
        "result": {"success": True, "completions": [{"text": f" {letter}", "logprob": 0.0}]},
    }


def test_a_scenario_state_is_graded_by_letter(tmp_path: Path) -> None:
    value = {"adapter_spec": {}, "request_states": [state(3, question(3).answer), state(4, "A"), state(5, "?")]}
    results = helm.read([write_json(tmp_path / "scenario_state.json", value)])
    assert [item.correct for item in results.items] == [True, False, False]
    assert results.items[0].content == question(3).hash
    del value["request_states"][1]["output_mapping"]
    with pytest.raises(DataError, match="request 2: no letter that can be graded"):
        helm.read([write_json(tmp_path / "scenario_state.json", value)])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1}, "need the list of per_instance_stats"),
        ([1], "entry 1: need an object with instance_id and stats"),
        ([helm_stats("id3", 0.5)], "entry 1, exact_match: 0.5 is neither right"),
        ([helm_stats("id3", 1.0, "rouge_l")], "no statistic chain_of_thought_correctness, exact_match"),
        ([], "no statistic"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, value: Any, words: str) -> None:
    path = write_json(tmp_path / "per_instance_stats.json", value)
    with pytest.raises(DataError, match=r"per_instance_stats\.json") as caught:
        helm.read([path])
    assert words in str(caught.value)


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no per_instance_stats"):
        helm.read([tmp_path])
