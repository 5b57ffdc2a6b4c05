"""The sequential test: tasks in turn, the same answers give the same items, and it ends when it is certain."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.adaptive import AdaptiveTest
from modelsat_engine.aptitude.uncertainty import TaskPrior
from modelsat_engine.errors import OptionError

TASKS, ITEMS, SEED = 7, 13, 5
TEST = AptitudeTest(
    tuple(AptitudeTask(f"t{t}", tuple("abcde"), tuple(f"t{t}/{i}" for i in range(ITEMS))) for t in range(TASKS))
)
PRIOR = TaskPrior(np.linspace(-1, 1, TASKS), 0.0, 8.0)


def take(test: AdaptiveTest, accuracy: float) -> dict[str, bool]:
    """A candidate of this accuracy takes the test to its end."""
    rng = np.random.default_rng(SEED)
    print(f"answers of seed {SEED}")
    right = {item: bool(rng.random() < accuracy) for item in sorted(TEST.item_ids)}
    answers: dict[str, bool] = {}
    while batch := test.next_items(answers):
        assert not answers.keys() & set(batch), "nothing is asked twice"
        answers.update({item: right[item] for item in batch})
    return answers


def per_task(answers: dict[str, bool]) -> list[int]:
    return [sum(item in answers for item in task.item_ids) for task in TEST.tasks]


@pytest.mark.parametrize("batch", [1, 5, 7, 30])
def test_every_task_comes_in_turn(batch: int) -> None:
    test = AdaptiveTest(TEST, PRIOR, target_error=0.001, batch=batch)
    answers: dict[str, bool] = {}
    while items := test.next_items(answers):
        answers.update(dict.fromkeys(items, True))
        counts = per_task(answers)
        assert max(counts) - min(counts) <= 1
    assert answers.keys() == TEST.item_ids, "a target out of reach asks everything"


def test_it_ends_when_certain_and_an_extreme_candidate_ends_early() -> None:
    test = AdaptiveTest(TEST, PRIOR, target_error=0.11, batch=5)
    middle, strong, weak = (take(test, accuracy) for accuracy in (0.5, 0.97, 0.03))
    for answers in (middle, strong, weak):
        assert test.is_certain(answers)
        assert test.error(answers) <= 0.11
        before = dict(list(answers.items())[:-5])
        assert not test.is_certain(before)
    assert max(len(strong), len(weak)) < len(middle) < len(TEST.item_ids)


def test_a_lucky_start_is_no_certainty() -> None:
    test = AdaptiveTest(TEST, PRIOR, target_error=0.4, batch=1)
    for answered in range(2 * TASKS):
        some = dict.fromkeys(sorted(TEST.item_ids)[:answered], True)
        assert test.error(some) < 0.4
        assert not test.is_certain(some)
    assert test.is_certain(dict.fromkeys(sorted(TEST.item_ids)[: 2 * TASKS], True))


def test_the_same_answers_give_the_same_items_whatever_their_order() -> None:
    test = AdaptiveTest(TEST, PRIOR, batch=9)
    answers = dict.fromkeys(test.next_items({}), True)
    backwards = dict(reversed(list(answers.items())))
    again = AdaptiveTest(TEST, PRIOR, batch=9)
    assert test.next_items(answers) == again.next_items(backwards)
    assert AdaptiveTest(TEST, PRIOR, batch=9, seed=1).next_items({}) != test.next_items({})


def test_items_that_cannot_be_asked_are_passed_over() -> None:
    there = {item for item in TEST.item_ids if not item.startswith("t3/")} - {"t0/0"}
    test = AdaptiveTest(TEST, PRIOR, target_error=0.001, batch=6, available=there)
    answers = take(test, 0.6)
    assert answers.keys() == there
    refused = set(test.next_items({})[:4])
    assert not refused & set(test.next_items({}, skipped=refused))
    assert test.next_items({}, skipped=TEST.item_ids) == []


def test_answers_to_other_items_tell_nothing() -> None:
    test = AdaptiveTest(TEST, PRIOR)
    assert test.error({"elsewhere": True}) == test.error({})


def test_the_error_falls_with_every_answer_that_was_expected() -> None:
    test = AdaptiveTest(TEST, PRIOR, target_error=0.001, batch=1)
    answers: dict[str, bool] = {}
    errors = []
    while items := test.next_items(answers):
        answers[items[0]] = len(answers) % 2 == 0
        errors.append(test.error(answers))
    assert errors[-1] < 0.75 * errors[0]
    assert np.mean(np.diff(errors) < 0) > 0.8


@pytest.mark.parametrize(("target", "batch"), [(0.0, 5), (0.5, 5), (float("nan"), 5), (0.1, 0)])
def test_settings_out_of_range_are_refused(target: float, batch: int) -> None:
    with pytest.raises(OptionError, match=r"use (a share|1 or more)"):
        AdaptiveTest(TEST, PRIOR, target_error=target, batch=batch)
