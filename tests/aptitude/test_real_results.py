"""What docs/aptitude.md says of imported accuracies, measured on real outcomes with the shipped test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTest
from modelsat_engine.aptitude.importers.equating import Counts, step_between
from modelsat_engine.aptitude.outcome_table import OutcomeTable, load_outcomes
from modelsat_engine.aptitude.questions import load_questions
from modelsat_engine.aptitude.test_report import measure_test
from modelsat_engine.export.bundle import Bundle

DATA = Path(os.environ.get("MODELSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="no outcome data; set MODELSAT_DATA to its directory"),
]
SEED, TRIALS = 0, 200


@pytest.fixture(scope="module")
def shipped() -> AptitudeTest:
    return Bundle.load().aptitude_test


@pytest.fixture(scope="module")
def outcomes() -> OutcomeTable:
    return load_outcomes([DATA / "outcomes_mmlu_pro.npz"])


@pytest.fixture(scope="module")
def pools() -> dict[str, list[str]]:
    """Subject -> its questions in MMLU-Pro."""
    found: dict[str, list[str]] = {}
    for question in load_questions(DATA / "questions.parquet", columns={"task": "mmlu_subject"}):
        if question.task is not None:
            found.setdefault(question.task, []).append(question.id)
    return found


def test_accuracy_on_a_whole_task_is_not_accuracy_on_the_tests_items(
    shipped: AptitudeTest, outcomes: OutcomeTable, pools: dict[str, list[str]]
) -> None:
    report = measure_test(shipped, outcomes, pools)
    assert report.shift is not None
    assert report.shift_spread is not None
    print(f"shift {100 * report.shift:.1f} points, sd between tasks {100 * report.shift_spread:.1f}")
    assert 0.03 < report.shift < 0.05
    assert 0.045 < report.shift_spread < 0.07
    assert (report.reliability or 0) > 0.99


def test_two_anchors_carry_accuracies_over_to_harder_questions(
    shipped: AptitudeTest, outcomes: OutcomeTable, pools: dict[str, list[str]]
) -> None:
    """The easier half of each subject's other questions stands for another benchmark."""
    easy, hard = [], []  # [tasks] of (right, answered) [M]
    for task in shipped.tasks:
        others = [item for item in pools[task.name] if item not in shipped.item_ids]
        Y = outcomes.for_items(others)
        share = (Y == 1).sum(0) / np.maximum((Y >= 0).sum(0), 1)
        Y = Y[:, share > np.median(share)]
        items = outcomes.for_items(task.item_ids)
        easy.append(((Y == 1).sum(1), (Y >= 0).sum(1)))
        hard.append(((items == 1).sum(1), (items >= 0).sum(1)))
    whole = np.array([n for _, n in (*easy, *hard)]).min(0) > 0
    rows = [row for row, key in enumerate(outcomes.models) if key.startswith("olb2/") and whole[row]]
    rng = np.random.default_rng(SEED)
    carried, as_is, answers = [], [], []
    for _ in range(TRIALS):
        *anchors, model = rng.choice(rows, 3, replace=False).tolist()
        pairs = [
            (Counts(right[a], n[a]), Counts(hard_right[a], hard_n[a]))
            for a in anchors
            for (right, n), (hard_right, hard_n) in zip(easy, hard, strict=True)
        ]
        step = step_between(pairs)
        counts = [step.carry(Counts(right[model], n[model]), 20) for right, n in easy]
        truth = np.mean([right[model] / n[model] for right, n in hard])
        carried.append(np.mean([count.correct / count.total for count in counts]) - truth)
        as_is.append(np.mean([right[model] / n[model] for right, n in easy]) - truth)
        answers.append(sum(count.total for count in counts))
    errors = {name: 100 * float(np.sqrt(np.mean(np.square(e)))) for name, e in (("carried", carried), ("as is", as_is))}
    print(
        f"rms error in points {errors}, bias {100 * np.mean(carried):+.1f}, answers {np.mean(answers):.0f}, seed {SEED}"
    )
    assert errors["carried"] < 7 < 17 < errors["as is"]
    assert abs(np.mean(carried)) < 0.02
    assert 500 < np.mean(answers) < 1000
