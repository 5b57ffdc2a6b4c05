"""Invented outcomes with the structure of real ones: topics that models are better or worse at, and gaps."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from modelsat_engine.aptitude.building import build_test
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.evaluation.model_names import family_of
from modelsat_engine.evaluation.outcomes import GSM8K_PANEL, MAIN_PANEL, OPEN_PANEL, OutcomeData, Questions
from modelsat_engine.evaluation.splits import ModelGroups

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "marketing",
    "nutrition",
    "philosophy",
    "sociology",
    "virology",
)
QUESTIONS_PER_TASK = {
    **{f"mmlu_pro/ori_mmlu-{subject}": 60 for subject in SUBJECTS},
    **{f"bbh/{task}": 17 for task in ("snarks", "navigate", "ruin_names", "hyperbaton", "web_of_lies", "penguins")},
    "bbh/swaps_three_objects": 17,
    "bbh/swaps_five_objects": 17,
    "math_l5/geometry_hard": 23,
    "ifeval/ifeval": 31,
    "musr/object_placements": 29,
    "gsm8k/gsm8k": 61,
}
TOPICS = 6
KEYWORDS = {subject: tuple(f"{subject} {k}" for k in range(5)) for subject in SUBJECTS}


def synthetic_outcomes(seed: int, models: int = 33) -> tuple[OutcomeData, np.ndarray]:
    """Outcomes by a logistic model, and the topic vectors behind them.

    A third of the models answer with chain of thought and have MMLU-Pro alone; three of the others have one twin
    each under a second name of the same family. A few answers are missing at random.

    Returns:
        data; embedding float32 ``[Q, TOPICS]``, what decides who answers what.
    """
    rng = np.random.default_rng(seed)
    ids, benchmarks, tasks, centres = [], [], [], []
    for path, count in QUESTIONS_PER_TASK.items():
        benchmark, _, task = path.partition("/")
        centre = rng.standard_normal(TOPICS)
        ids += [f"{path}/{number}" for number in range(count)]
        benchmarks += [benchmark] * count
        tasks += [task] * count
        centres += [centre] * count
    embedding = np.array(centres) + 0.7 * rng.standard_normal((len(ids), TOPICS))  # [Q, topics]
    keys = [f"mmlu_pro_cot/maker/talker-{m}" for m in range(models // 3)]
    keys += [f"olb2/maker/scorer-{m}" for m in range(models - len(keys) - 3)]
    keys += ["olb2/other/Scorer-0-hf", "olb2/maker/scorer-1#again", "olb2/meta/Meta-scorer-2"]
    family_skill = {
        family: (rng.normal(0, 0.9), rng.standard_normal(TOPICS)) for family in sorted({_family(key) for key in keys})
    }
    logits = np.stack([family_skill[_family(key)][0] + embedding @ family_skill[_family(key)][1] for key in keys])
    Y = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)  # [M, Q]
    Y[rng.random(Y.shape) < 0.004] = -1
    talkers = np.array([key.startswith("mmlu_pro_cot") for key in keys])
    Y[np.ix_(talkers, np.array(benchmarks) != "mmlu_pro")] = -1
    instructions = tuple(f"Question number {number} about {task}?\nA. yes\nB. no" for number, task in enumerate(tasks))
    prices = np.where(np.arange(len(keys)) % 4 == 0, 0.25 * (1 + np.arange(len(keys))), np.nan).astype(np.float32)
    data = OutcomeData(
        Questions(np.array(ids), np.array(benchmarks), np.array(tasks), instructions),
        Y,
        tuple(keys),
        tuple(key.partition("/")[2] for key in keys),
        tuple(_family(key) for key in keys),
        tuple("5-shot CoT generation" if talks else "lm-eval" for talks in talkers),
        prices,
    )
    return data, embedding.astype(np.float32)


def synthetic_test(data: OutcomeData, seed: int, num_tasks: int = 7, items_per_task: int = 9) -> AptitudeTest:
    """An aptitude test from the seen models of a split."""
    rows = data.rows(ModelGroups.make(data, seed).seen)
    return build_test(data, rows, seed=seed, keywords=KEYWORDS, num_tasks=num_tasks, items_per_task=items_per_task)


def write_outcomes(directory: Path, data: OutcomeData) -> Path:
    """The files that :meth:`OutcomeData.load` reads; GSM8K as other people's rows under other keys."""
    directory.mkdir(parents=True, exist_ok=True)
    questions = data.questions
    columns = {
        "id": questions.id.tolist(),
        "benchmark": questions.benchmark.tolist(),
        "task": questions.task.tolist(),
        "instruction": list(questions.instruction),
    }
    parquet.write_table(pyarrow.table(columns), directory / "questions.parquet")
    main = questions.benchmark == "mmlu_pro"
    gsm8k = questions.benchmark == "gsm8k"
    scorers = [row for row, key in enumerate(data.model_keys) if key.startswith("olb2/")]
    everyone = list(range(len(data.model_keys)))
    # Two measurements of scorer-3 by different harnesses, and one of a model that nobody else measured.
    twice = data.model_keys.index("olb2/maker/scorer-3")
    Y = {
        MAIN_PANEL: (data.Y[:, main], [data.model_keys[row] for row in everyone], main),
        OPEN_PANEL: (data.Y[np.ix_(scorers, ~main & ~gsm8k)], [data.model_keys[r] for r in scorers], ~main & ~gsm8k),
        GSM8K_PANEL: (
            np.stack([1 - abs(data.Y[twice, gsm8k]), data.Y[twice, gsm8k], data.Y[twice, gsm8k]]),
            ["hub/Scorer-3@cloud", "hub/scorer_3", "hub/stranger"],
            gsm8k,
        ),
    }
    for name, (outcomes, models, columns_of) in Y.items():
        np.savez(
            directory / name, Y=outcomes.astype(np.int8), models=np.array(models), questions=questions.id[columns_of]
        )
    with open(directory / "models.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["panel", "model_key", "model", "protocol", "usd_per_million_tokens"])
        for row, key in enumerate(data.model_keys):
            price = data.usd_per_million_tokens[row]
            text = "" if np.isnan(price) else str(float(price))
            writer.writerow(["mmlu_pro", key, data.model_names[row], data.protocols[row], text])
        writer.writerow(["gsm8k", "hub/Scorer-3@cloud", "hub/Scorer-3@cloud", "0-shot CoT JSON", ""])
        writer.writerow(["gsm8k", "hub/scorer_3", "hub/scorer-3", "lm-eval", ""])
        writer.writerow(["gsm8k", "hub/stranger", "hub/stranger", "0-shot CoT JSON", ""])
    return directory


def write_routerbench(directory: Path, seed: int, questions: int = 70) -> Path:
    """The subset of RouterBench: two models that the panel knows under other names, one that it does not know.

    The first is right on the first half of the questions, the second on all but every seventh.
    """
    rng = np.random.default_rng(seed)
    number = np.arange(questions)
    columns: dict[str, list[object]] = {
        "task": ["arc"] * questions,
        "question": [f"Question {n} that no panel has?" for n in range(questions)],
    }
    for model, right in (
        ("maker/Scorer-3", number < questions // 2),
        ("maker/Scorer-5-hf", number % 7 != 0),
        ("maker/stranger", number % 2 == 0),
    ):
        columns[f"score|{model}"] = [None if n == 3 else float(right[n]) for n in range(questions)]
        columns[f"cost|{model}"] = (rng.random(questions) + (9 if "5" in model else 1)).tolist()
    parquet.write_table(pyarrow.table(columns), directory / "routerbench_0shot_subset.parquet")
    return directory


def _family(key: str) -> str:
    return family_of(key.partition("/")[2])
