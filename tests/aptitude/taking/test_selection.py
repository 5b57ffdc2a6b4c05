"""Questions are spread evenly over the tasks, the same ones every time, and asked in all their rotations."""

from __future__ import annotations

from collections import Counter

import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.questions import Question
from modelsat_engine.aptitude.taking.estimate import estimate
from modelsat_engine.aptitude.taking.prompts import make_prompt, rotated, rotation_count
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import select_items
from modelsat_engine.errors import DataError, OptionError
from tests.aptitude.taking.made_up import make_question, make_questions, make_test

TEST = make_test()
QUESTIONS = make_questions(TEST)


@pytest.mark.parametrize("limit", [1, 4, 5, 13, 19, 20, 999])
def test_a_limited_run_takes_about_the_same_from_every_task(limit: int) -> None:
    items = select_items(TEST, QUESTIONS, limit=limit, seed=3).items
    assert len(items) == min(limit, 20)
    assert len({item.id for item in items}) == len(items)
    counts = Counter(item.task for item in items)
    assert max(counts.values()) - min(counts[task] for task in TEST.task_names) <= 1


def test_a_smaller_limit_takes_the_first_of_a_larger_one() -> None:
    all_items = select_items(TEST, QUESTIONS, seed=3).items
    assert select_items(TEST, reversed(QUESTIONS), limit=7, seed=3).items == all_items[:7]


def test_another_seed_takes_other_questions() -> None:
    chosen = {tuple(item.id for item in select_items(TEST, QUESTIONS, limit=7, seed=seed).items) for seed in range(5)}
    assert len(chosen) == 5


def test_the_choice_is_the_same_on_every_machine() -> None:
    assert [item.id for item in select_items(TEST, QUESTIONS, limit=3, seed=0).items] == [
        "botany/3",
        "algebra/3",
        "ethics/1",
    ]


def test_questions_without_a_text_are_named_and_others_take_their_place() -> None:
    selection = select_items(TEST, [q for q in QUESTIONS if not q.id.startswith("chess")], limit=9)
    assert selection.missing == tuple(f"chess/{i}" for i in range(4))
    assert len(selection.items) == 9


def test_questions_of_another_test_are_refused() -> None:
    with pytest.raises(DataError, match=r"such as 'algebra/0', the questions such as 'other/0'"):
        select_items(TEST, [Question("other/0", "?", ("x", "y"), "A")])


def test_a_file_may_leave_out_what_all_ids_begin_with() -> None:
    test = AptitudeTest((AptitudeTask("t", ("k",), ("set/5", "set/6")),))
    items = select_items(test, [make_question("5", 0), make_question("7", 0)]).items
    assert [item.id for item in items] == ["set/5"]


def test_a_test_that_states_content_hashes_knows_its_questions_by_them() -> None:
    known, edited = make_question("any", 0), make_question("t/1", 1)
    test = AptitudeTest((AptitudeTask("t", ("k",), ("t/0", "t/1"), (known.hash, make_question("x", 2).hash)),))
    selection = select_items(test, [known, edited])
    assert [(item.id, item.question) for item in selection.items] == [("t/0", known)]
    assert (selection.missing, selection.changed) == ((), ("t/1",))
    with pytest.raises(DataError, match=r"all 1 questions differ .* \(t/1, \.\.\.\)"):
        select_items(test, [edited])


@pytest.mark.parametrize("rotations", [2, 3, 5])
def test_rotations_move_the_right_answer_and_keep_the_circle(rotations: int) -> None:
    question = make_question("chess/0", 3)
    forms = [rotated(question, rotation, rotations) for rotation in range(rotations)]
    assert forms[0] == question
    assert len({form.answer for form in forms}) == rotations
    for form in forms:
        assert form.answer_text == question.answer_text
        start = form.options.index(question.options[0])
        assert form.options[start:] + form.options[:start] == question.options


def test_a_question_without_options_is_asked_once() -> None:
    free = Question("i", "How many?", (), "7")
    assert rotation_count(free, Protocol(rotations=None)) == 1
    assert rotated(free, 0, 1) is free


def test_prompts_say_what_to_answer() -> None:
    question, free = make_question("chess/0", 3), Question("i", "How many?", (), "7")
    direct, reason = Protocol(), Protocol(style="reason", system="Be kind.")
    assert "letter of the right option and nothing else" in make_prompt(question, direct)[0]["content"]  # type: ignore[index]
    assert make_prompt(question, reason)[0] == {"role": "system", "content": "Be kind."}
    assert "step by step" in make_prompt(free, reason)[1]["content"]  # type: ignore[index]
    assert make_prompt(free, Protocol(api="completions")) == "Question: How many?\nAnswer:"


@pytest.mark.parametrize(
    "settings",
    [
        {"api": "telegraph"}, {"style": "haiku"}, {"temperature": -1}, {"temperature": float("nan")}, {"max_tokens": 0},
        {"rotations": 0}, {"omit": frozenset({"model"})}, {"api": "completions", "system": "x"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Protocol(**settings)  # type: ignore[arg-type]


def test_an_estimate_bounds_requests_tokens_and_cost() -> None:
    items = select_items(TEST, QUESTIONS, limit=6).items
    plain, circle = estimate(items, Protocol(max_tokens=50)), estimate(items, Protocol(max_tokens=50, rotations=None))
    assert (plain.least_requests, plain.most_requests) == (6, 6)
    assert (circle.least_requests, circle.most_requests) == (6, 30)
    assert circle.prompt_tokens == 5 * plain.prompt_tokens
    assert (plain.least_answer_tokens, plain.most_answer_tokens) == (12, 300)
    assert plain.usd(None) is None
    assert plain.usd(2.0) == pytest.approx(((plain.prompt_tokens + 12) * 2e-6, (plain.prompt_tokens + 300) * 2e-6))
    assert estimate([], Protocol()).example is None
