"""Two profiles are compared on what both answered, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest, CapabilityProfile
from modelsat_engine.aptitude.comparison import INDEPENDENT, PAIRED, STRATIFIED, compare, overall_score, task_scores
from modelsat_engine.errors import ProfileError

TASKS = 12
TEST = AptitudeTest(
    tuple(AptitudeTask(f"task {t}", (f"word {t}",), tuple(f"b/{t}/{i}" for i in range(20))) for t in range(TASKS))
)


def taken(name: str, skill: float, seed: int, better: tuple[int, ...] = ()) -> CapabilityProfile:
    rng = np.random.default_rng(seed)
    answers = {}
    for t, task in enumerate(TEST.tasks):
        share = 0.97 if t in better else skill
        answers.update(zip(task.item_ids, (rng.random(20) < share).tolist(), strict=True))
    return CapabilityProfile.from_answers(name, TEST, answers, notes=f"notes of {name}")


def bare(profile: CapabilityProfile, **changes: object) -> CapabilityProfile:
    """The same counts without the single answers."""
    return CapabilityProfile.from_json({k: v for k, v in {**profile.to_json(), **changes}.items() if k != "answers"})


def test_scores_carry_their_intervals() -> None:
    profile = taken("a", 0.6, 1)
    for score in task_scores(profile):
        assert score.total == 20
        assert score.accuracy is not None
        assert score.interval.low < score.accuracy < score.interval.high
    whole = overall_score(profile)
    assert whole.total == 240
    assert whole.interval.high - whole.interval.low < 0.13
    empty = CapabilityProfile("e", {"x": 0}, {"x": 0})
    assert task_scores(empty)[0].accuracy is None
    assert overall_score(empty).interval == (0, 1)


def test_answers_to_the_same_items_are_compared_in_pairs() -> None:
    a, b = taken("a", 0.6, 1), taken("b", 0.5, 2)
    comparison = compare(a, b, TEST)
    assert {task.method for task in comparison.tasks} == {PAIRED}
    assert comparison.overall.method == PAIRED
    assert comparison.overall.difference == pytest.approx(a.accuracy - b.accuracy)
    swapped = compare(b, a, TEST)
    assert swapped.overall.difference == -comparison.overall.difference
    assert swapped.overall.interval == pytest.approx(tuple(-x for x in reversed(comparison.overall.interval)))


def test_a_profile_against_itself_differs_nowhere() -> None:
    a = taken("a", 0.6, 1)
    comparison = compare(a, a, TEST)
    assert comparison.overall.difference == 0
    assert comparison.overall.p_value == 1
    assert comparison.certain == ()


def test_counts_alone_are_compared_as_independent() -> None:
    a, b = taken("a", 0.6, 1), taken("b", 0.5, 2)
    for left, right, test in ((bare(a), b, TEST), (a, b, None), (bare(a), bare(b), TEST)):
        comparison = compare(left, right, test)
        assert {task.method for task in comparison.tasks} == {INDEPENDENT}
        assert comparison.overall.method == STRATIFIED
        assert comparison.overall.difference == pytest.approx(a.accuracy - b.accuracy), "equal totals everywhere"


def test_counts_that_say_more_than_the_answers_are_not_taken_for_pairs() -> None:
    a = taken("a", 0.6, 1)
    value = a.to_json()
    value["answers"] = dict(list(value["answers"].items())[:-5])
    comparison = compare(CapabilityProfile.from_json(value), a, TEST)
    assert [task.method for task in comparison.tasks].count(INDEPENDENT) == 1
    assert comparison.overall.method == STRATIFIED


def test_only_the_same_items_are_pairs() -> None:
    a, b = taken("a", 0.6, 1), taken("b", 0.5, 2)
    fewer = CapabilityProfile.from_answers(
        "fewer", TEST, {item: right for item, right in (a.answers or {}).items() if not item.endswith("7")}
    )
    assert {task.method for task in compare(fewer, b, TEST).tasks} == {INDEPENDENT}
    assert {task.method for task in compare(fewer, fewer, TEST).tasks} == {PAIRED}
    more = CapabilityProfile.from_json({**fewer.to_json(), "total": dict.fromkeys(a.total, 20)})
    for pair in ((fewer, more), (more, fewer)):
        assert {task.method for task in compare(*pair, TEST).tasks} == {INDEPENDENT}, "other counts than answers"


def test_only_tasks_with_answers_on_both_sides_count() -> None:
    a, b = taken("a", 0.6, 1), bare(taken("b", 0.5, 2))
    value = b.to_json()
    value["correct"]["task 3"] = value["total"]["task 3"] = 0
    del value["correct"]["task 5"], value["total"]["task 5"]
    comparison = compare(a, CapabilityProfile.from_json(value), TEST)
    assert {task.task for task in comparison.tasks} == {f"task {t}" for t in range(TASKS)} - {"task 3", "task 5"}
    assert [score.task for score in comparison.scores_a] == [score.task for score in comparison.scores_b]
    nothing = CapabilityProfile("n", {"task 0": 0}, {"task 0": 0})
    with pytest.raises(ProfileError, match="no task in common"):
        compare(a, nothing)


def test_profiles_of_two_tests_are_not_compared() -> None:
    a = taken("a", 0.6, 1)
    with pytest.raises(ProfileError, match="grade both on one test"):
        compare(a, bare(a, test_id="sha256:other"))


def test_among_many_tasks_only_what_stands_is_marked() -> None:
    rng = np.random.default_rng(4)
    false_alarms, alone = 0, 0
    for _ in range(60):
        seeds = rng.integers(0, 2**31, 2).tolist()
        comparison = compare(taken("a", 0.6, seeds[0]), taken("b", 0.6, seeds[1]), TEST)
        false_alarms += bool(comparison.certain)
        alone += any(task.p_value < 0.05 for task in comparison.tasks)
    print(f"equal candidates: {alone} of 60 comparisons have a task below .05 alone, {false_alarms} adjusted; seed 4")
    assert false_alarms <= 6
    assert alone > 3 * false_alarms
    specialist = compare(taken("a", 0.4, 1, better=(7,)), taken("b", 0.4, 2), TEST)
    assert [task.task for task in specialist.certain] == ["task 7"]


def test_a_comparison_is_json() -> None:
    value = compare(taken("a", 0.6, 1), taken("b", 0.5, 2), TEST, 0.9).to_json()
    assert value["confidence"] == 0.9
    assert value["a"]["notes"] == "notes of a"
    assert len(value["tasks"]) == TASKS
    assert value["overall"]["interval"][0] < value["overall"]["difference"] < value["overall"]["interval"][1]
