"""Result files as the evaluation harness and HELM write them, about invented questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.questions import LETTERS, Question

SUBJECTS = ("anatomy", "philosophy", "high_school_us_history")
SHOTS = 5


def question(number: int) -> Question:
    """An invented question of ten options, called as MMLU-Pro's question `number` is."""
    options = tuple(f"{number} plus {k}" for k in range(10))
    return Question(f"mmlu_pro/{number}", f"How much is {number}?", options, LETTERS[number % 10])


def pro_test(*, hashes: bool = False, shots: int = SHOTS) -> AptitudeTest:
    """Three MMLU subjects asked by MMLU-Pro questions 0 to 4, 100 to 104 and 200 to 204."""
    tasks = []
    for place, subject in enumerate(SUBJECTS):
        items = [question(100 * place + i) for i in range(shots)]
        tasks.append(
            AptitudeTask(
                subject,
                (f"{subject} at large",),
                tuple(item.id for item in items),
                tuple(item.hash for item in items) if hashes else (),
            )
        )
    return AptitudeTest(tuple(tasks))


def pro_sample(number: int, correct: float, **changes: Any) -> dict[str, Any]:
    """One line of samples_mmlu_pro_*.jsonl."""
    asked = question(number)
    return {
        "doc_id": number + 7,
        "doc": {
            "question_id": number,
            "question": asked.text,
            "options": list(asked.options),
            "answer": asked.answer,
            "answer_index": asked.answer_index,
            "cot_content": "",
            "category": "health",
            "src": "ori_mmlu-anatomy",
        },
        "target": asked.answer,
        "arguments": {"gen_args_0": {"arg_0": "Question: ...", "arg_1": {"until": ["Q:"], "temperature": 0.0}}},
        "resps": [["the answer is (A)"]],
        "filtered_resps": ["A"],
        "filter": "custom-extract",
        "metrics": ["exact_match"],
        "doc_hash": "0" * 64,
        "prompt_hash": "1" * 64,
        "target_hash": "2" * 64,
        "exact_match": correct,
        **changes,
    }


def mmlu_sample(number: int, subject: str, correct: float) -> dict[str, Any]:
    """One line of samples_mmlu_*.jsonl: four options, no id but the place in the file."""
    return {
        "doc_id": number,
        "doc": {
            "question": f"An easy one about {number}?",
            "subject": subject,
            "choices": ["w", "x", "y", "z"],
            "answer": number % 4,
        },
        "target": str(number % 4),
        "arguments": {f"gen_args_{k}": {"arg_0": "...", "arg_1": f" {LETTERS[k]}"} for k in range(4)},
        "resps": [[["-1.2", "False"]]] * 4,
        "filtered_resps": [["-1.2", "False"]] * 4,
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": "0" * 64,
        "prompt_hash": "1" * 64,
        "target_hash": "2" * 64,
        "acc": correct,
    }


def lm_eval_results(scores: Mapping[str, tuple[float, int]], metric: str = "acc,none", **more: Any) -> dict[str, Any]:
    """A results_*.json: task -> (score, questions)."""
    name, _, rest = metric.partition(",")
    return {
        "results": {
            task: {
                "alias": f" - {task}",
                metric: score,
                f"{name}_stderr,{rest}": (score * (1 - score) / max(n - 1, 1)) ** 0.5,
            }
            for task, (score, n) in scores.items()
        },
        "group_subtasks": {},
        "configs": {task: {"task": task, "num_fewshot": 5} for task in scores},
        "versions": dict.fromkeys(scores, 1.0),
        "n-shot": dict.fromkeys(scores, 5),
        "n-samples": {task: {"original": n, "effective": n} for task, (_, n) in scores.items()},
        "config": {"model": "hf", "model_args": "pretrained=org/my-model,dtype=bfloat16"},
        "model_name": "org/my-model",
        **more,
    }


def helm_stats(instance: str, correct: float, metric: str = "exact_match", **changes: Any) -> dict[str, Any]:
    """One entry of per_instance_stats.json."""
    return {
        "instance_id": instance,
        "train_trial_index": 0,
        "stats": [
            helm_stat("num_prompt_tokens", 431.0),
            helm_stat(metric, correct),
            {"name": {"name": "inference_runtime", "split": "test"}, "count": 1, "sum": 0.7, "mean": 0.7},
        ],
        **changes,
    }


def helm_stat(name: str, value: float) -> dict[str, Any]:
    return {
        "name": {"name": name, "split": "test"},
        "count": 1,
        "sum": value,
        "sum_squared": value * value,
        "min": value,
        "max": value,
        "mean": value,
        "variance": 0.0,
        "stddev": 0.0,
    }


def helm_instance(instance: str, asked: Question) -> dict[str, Any]:
    """One entry of instances.json."""
    return {
        "input": {"text": asked.text},
        "references": [
            {"output": {"text": option}, "tags": ["correct"] if k == asked.answer_index else []}
            for k, option in enumerate(asked.options)
        ],
        "split": "test",
        "id": instance,
    }


def helm_run(folder: Path, name: str, stats: Sequence[Any], instances: Sequence[Any] = ()) -> Path:
    """A run's folder; `name` is that of its run_spec.json."""
    folder.mkdir(parents=True)
    (folder / "run_spec.json").write_text(json.dumps({"name": name, "scenario_spec": {}, "adapter_spec": {}}))
    (folder / "per_instance_stats.json").write_text(json.dumps(list(stats)))
    if instances:
        (folder / "instances.json").write_text(json.dumps(list(instances)))
    return folder


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
