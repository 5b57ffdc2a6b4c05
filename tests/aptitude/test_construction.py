"""A test built from any question set has the size asked for, tells models apart, and can be built again."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.construction import build_test_from_questions
from modelsat_engine.aptitude.keyword_extraction import describe_tasks, extract_keywords
from modelsat_engine.aptitude.outcome_table import OutcomeTable
from modelsat_engine.aptitude.questions import Question
from modelsat_engine.aptitude.test_report import measure_test
from modelsat_engine.errors import DataError, MissingExtraError

WORDS = {
    "cooking": ("oven", "flour", "simmer", "recipe", "butter"),
    "sailing": ("mast", "rudder", "tide", "anchor", "jib"),
    "chess": ("rook", "bishop", "castling", "gambit", "endgame"),
    "botany": ("petal", "stamen", "pollen", "xylem", "root"),
}
PER_TASK = 40
MODELS = 15


def questions() -> list[Question]:
    rng = np.random.default_rng(2)
    asked = []
    for task, words in WORDS.items():
        for number in range(PER_TASK):
            one, two = rng.choice(words, 2, replace=False)
            text = f"Number {number}: what should people know about the {one} and the {two}?"
            asked.append(Question(f"{task}/{number}", text, ("yes", "no"), "A", task))
    return asked


def table(seed: int = 3) -> OutcomeTable:
    """Models of different ability; a third of the items is answered by a coin, whoever is asked."""
    rng = np.random.default_rng(seed)
    items = tuple(question.id for question in questions())
    ability = np.linspace(-2, 2, MODELS)[:, None]
    slope = np.where(np.arange(len(items)) % 3 == 0, 0.0, 2.0)
    share = 1 / (1 + np.exp(-slope * (ability - rng.normal(0, 0.8, len(items)))))
    Y = (rng.random(share.shape) < share).astype(np.int8)
    return OutcomeTable(tuple(f"m{m}" for m in range(MODELS)), items, Y)


SIZE = {"num_tasks": 3, "items_per_task": 10}


def test_the_test_has_the_size_asked_for_and_the_content_of_its_items() -> None:
    built = build_test_from_questions(questions(), table(), **SIZE)
    assert [len(task.item_ids) for task in built.test.tasks] == [10, 10, 10]
    by_id = {question.id: question for question in questions()}
    for task in built.test.tasks:
        assert all(by_id[item].task == task.name for item in task.item_ids)
        assert task.item_hashes == tuple(by_id[item].hash for item in task.item_ids)
    assert built.models == MODELS


def test_the_same_seed_gives_the_same_test_in_whatever_order_the_questions_come() -> None:
    first = build_test_from_questions(questions(), table(), seed=4, **SIZE)
    again = build_test_from_questions(questions()[::-1], table(), seed=4, **SIZE)
    assert first.test.id == again.test.id
    assert build_test_from_questions(questions(), table(), seed=5, **SIZE).test.id != first.test.id


def test_items_on_which_all_models_agree_are_not_used() -> None:
    outcomes = table()
    Y = outcomes.Y.copy()
    agreed = [column for column, item in enumerate(outcomes.items) if item.startswith(("chess/", "botany/"))]
    Y[:, agreed[:75]] = 1
    built = build_test_from_questions(questions(), replace(outcomes, Y=Y), num_tasks=2, items_per_task=10)
    assert built.test.task_names == ("cooking", "sailing")
    assert built.untold >= 75
    with pytest.raises(DataError, match="only 2 of 4 tasks have 10 usable items, 3 are needed"):
        build_test_from_questions(questions(), replace(outcomes, Y=Y), num_tasks=3, items_per_task=10)


def test_without_outcomes_every_item_is_as_likely() -> None:
    drawn = np.zeros(PER_TASK)
    for seed in range(60):
        built = build_test_from_questions(questions(), seed=seed, num_tasks=4, items_per_task=10)
        for item in built.test.item_ids:
            drawn[int(item.partition("/")[2])] += 1 / 240
    assert built.models == 0
    assert built.report.reliability is None
    assert built.report.tasks[0].standard_error == pytest.approx(0.5 / 10**0.5)
    assert drawn.mean() == pytest.approx(0.25)
    assert drawn.std() < 0.05


def test_one_question_asked_twice_is_one_item() -> None:
    asked = questions()
    twins = [replace(q, id=f"again/{q.id}", text=q.text.upper().replace(" ", "  ")) for q in asked[:7]]
    built = build_test_from_questions(asked + twins, **SIZE)
    assert built.repeated == 7
    assert not any(item.startswith("again/") for item in built.test.item_ids)


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(DataError, match="none of 160 questions has a task; name the column"):
        build_test_from_questions([replace(q, task=None) for q in questions()], **SIZE)
    with pytest.raises(DataError, match=r"no outcome is of any of the questions: .*--id-prefix"):
        build_test_from_questions([replace(q, id=f"x/{q.id}") for q in questions()], table(), **SIZE)
    with pytest.raises(DataError, match="at least one task and one item"):
        build_test_from_questions(questions(), num_tasks=0, items_per_task=5)
    with pytest.raises(DataError, match="only 0 of 4 tasks have 41 usable items"):
        build_test_from_questions(questions(), num_tasks=1, items_per_task=41)


def test_keywords_are_what_sets_a_task_apart() -> None:
    pytest.importorskip("sklearn")
    built = build_test_from_questions(questions(), num_tasks=4, items_per_task=10)
    for task in built.test.tasks:
        assert len(set(task.keywords) & set(WORDS[task.name])) >= 4, task
    assert set(built.keywords_from.values()) == {"extracted"}


def test_a_missing_library_is_named_with_the_way_round_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingExtraError, match=r"--keywords.*pip install 'modelsat-engine\[evaluate\]'"):
        build_test_from_questions(questions(), **SIZE)
    assert build_test_from_questions(questions(), keywords=WORDS, **SIZE).test.tasks[0].keywords == WORDS["botany"]


def test_given_keywords_go_before_known_and_extracted_ones() -> None:
    texts = {"anatomy": ["about bones"], "marketing": ["about brands"]}
    keywords, source = describe_tasks(texts, {"anatomy": ("mine",)})
    assert keywords["anatomy"] == ("mine",)
    assert "branding" in keywords["marketing"]
    assert source == {"anatomy": "given", "marketing": "known"}


def test_formulas_repeated_names_and_numbers_are_no_keywords() -> None:
    pytest.importorskip("sklearn")
    texts = {
        "sums": [r"What is \frac{1}{2} plus \sqrt{4}, as a decimal fraction?", "Add 17 and 4 as a decimal fraction."],
        "tales": ["Zork met Zork and Zork again. Who is the hero?", "Who is the hero of the story?"],
    }
    keywords = extract_keywords(texts, texts)
    assert {"frac", "sqrt"}.isdisjoint(" ".join(keywords["sums"]).split())
    assert keywords["tales"][0] == "hero"
    with pytest.raises(DataError, match="hold no word"):
        extract_keywords({"a": ["1 + 1"], "b": ["2 + 2"]}, ["a"])


# ---- the report -----------------------------------------------------------------------------------------------------


def test_the_standard_error_is_what_a_second_draw_of_items_differs_by() -> None:
    """Two tests of other items from one pool: their accuracies differ by sqrt(2) standard errors."""
    rng = np.random.default_rng(6)
    models, pool = 400, 3000
    skills = rng.normal(0, 1, (models, 1))
    share = 1 / (1 + np.exp(-(skills - rng.normal(0, 1, (1, pool)))))
    Y = (rng.random(share.shape) < share).astype(np.int8)
    outcomes = OutcomeTable(tuple(map(str, range(models))), tuple(f"i{k}" for k in range(pool)), Y)
    many = [Question(f"i{k}", f"question {k}", (), "x", f"task {k % 3}") for k in range(pool)]
    words = {f"task {k}": ("w",) for k in range(3)}
    one, two = (
        build_test_from_questions(many, None, seed=seed, num_tasks=3, items_per_task=20, keywords=words).test
        for seed in (1, 2)
    )
    report = measure_test(one, outcomes)
    first, second = (outcomes.for_items(sorted(test.item_ids)).mean(1) for test in (one, two))
    seen = float((first - second - (first - second).mean()).std()) / 2**0.5
    print(f"standard error {report.standard_error:.4f}, seen between two tests {seen:.4f}; seed 6")
    assert report.standard_error == pytest.approx(seen, rel=0.12)
    assert report.reliability == pytest.approx(float(np.corrcoef(first, second)[0, 1]), abs=0.03)


def test_items_answered_by_a_coin_do_not_discriminate() -> None:
    outcomes = table()
    built = build_test_from_questions(questions(), outcomes, num_tasks=4, items_per_task=30)
    sharp, flat = [], []
    for task in built.test.tasks:
        for item in task.item_ids:
            (flat if outcomes.items.index(item) % 3 == 0 else sharp).append(item)
    halves = []
    for items in (sharp, flat):
        test = replace(built.test.tasks[0], item_ids=tuple(items), item_hashes=(), name="half")
        halves.append(measure_test(type(built.test)((test,)), outcomes).tasks[0])
    assert halves[0].discrimination is not None
    assert halves[1].discrimination is not None
    assert halves[0].discrimination > 0.4 > 0.2 > abs(halves[1].discrimination)
    assert (halves[0].reliability or 0) > 0.9


def test_an_item_is_not_compared_with_itself() -> None:
    outcomes = table()
    task = AptitudeTask("two", ("w",), outcomes.items[1:3])
    row = measure_test(AptitudeTest((task,)), outcomes).tasks[0]
    assert row.discrimination == pytest.approx(float(np.corrcoef(outcomes.Y[:, 1:3].T)[0, 1]))


def test_the_shift_is_between_the_tests_items_and_the_tasks_others() -> None:
    outcomes = table()
    built = build_test_from_questions(questions(), outcomes, **SIZE)
    for row, task in zip(built.report.tasks, built.test.tasks, strict=True):
        others = [q.id for q in questions() if q.task == task.name and q.id not in task.item_ids]
        expected = outcomes.for_items(task.item_ids).mean() - outcomes.for_items(others).mean()
        assert row.shift == pytest.approx(float(expected))


def test_gaps_in_the_outcomes_are_left_out_and_not_filled() -> None:
    outcomes = table()
    test = build_test_from_questions(questions(), outcomes, **SIZE).test
    Y = outcomes.Y.copy()
    Y[:13] = -1
    few = measure_test(test, replace(outcomes, Y=Y))
    assert few.models == 2
    assert few.reliability is None
    assert all(row.discrimination is None for row in few.tasks)
    Y = outcomes.Y.copy()
    Y[0, ::2] = -1
    full, gaps = measure_test(test, outcomes), measure_test(test, replace(outcomes, Y=Y))
    assert gaps.standard_error == pytest.approx(full.standard_error, rel=0.1)
    assert gaps.to_json()["models"] == MODELS
