"""What an answer says is read from the many ways in which models say it, and not from what they merely mention."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsat_engine.aptitude.questions import Question
from modelsat_engine.aptitude.taking.extraction import as_number, extract_letter, final_part, grade

OPTIONS = ("oak", "elm", "42", "a large tree", "none", "fir", "yew", "ash", "Paris", "I do not know")  # A to J


def letter(answer: str) -> str | None:
    return extract_letter(final_part(answer), OPTIONS)


@pytest.mark.parametrize(
    "answer",
    [
        "C",
        "c",
        "(C)",
        "C.",
        "C)",
        "[C]",
        "[[C]]",
        "**C**",
        "`C`",
        "$C$",
        '"C"',
        "Ｃ",
        "（C）",
        " C\n",
        "C: 42",
        "(C) 42",
        "C. 42",
        "Option C",
        "Choice C",
        "Answer: C",
        "**Answer:** C",
        "**Answer: C. 42**",
        "answer = C",
        "Final answer: $C$",
        "The answer is C",
        "The answer is (C).",
        "The correct answer is **C**.",
        "the answer is: (c)",
        "THE ANSWER IS C!",
        "The answer is \\(C\\)",
        "The answer is $\\textbf{C}$.",
        "The answer to this question is C.",
        "The answer is C - 42",
        "The answer is C, I think",
        "The answer is C because A is wrong.",
        "So, the correct option is:\n\n**C. 42**",
        "The best choice would be option C.",
        "I choose C.",
        "I'd go with C.",
        "C is the correct answer.",
        "(C) is correct.",
        "Option C is correct; option B is not.",
        "$\\boxed{C}$",
        "\\boxed{\\text{(C)}}",
        "\\boxed{C. 42}",
        "\\[\\boxed{42}\\]",
        "A is wrong. B is wrong. The answer is A? No. The answer is C.",
        "Let us see: A? B?\n\nC",
        "C\n\nBecause A and B are not.",
        "<think>The answer is (A)</think>\n\nC",
        "is it A?</think>The answer is (C).",
        "<answer>C</answer>",
        "<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>The answer is (C).",
        '{"answer": "C"}',
        "42",
        "The answer is 42.",
        "It must be (C).",
        "The answer is (C), not (D).",
        "The answer is (C): 42. However, (D) may seem right.",
        "### C",
        "- C",
    ],
)
def test_an_option_is_read_however_it_is_said(answer: str) -> None:
    assert letter(answer) == "C"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "I cannot say.",
        "The answer is a bit longer.",
        "The answer is A dog",
        "The answer is not C.",
        "The answer is K.",
        "The answer is (A) or (B).",
        "The answer is A and C.",
        "It is (A) or (B).",
        "A. oak\nB. elm\nC. 42",
        "<think>The answer is C",
        "**A** and **B**",
        "I think so.",
        "Answer",
        "Is it a vitamin C?",
        "\x00\x01",
        "Z",
        "????",
        "\\boxed{}",
        "\\boxed{17}",
    ],
)
def test_what_names_no_option_or_two_is_not_guessed(answer: str) -> None:
    assert letter(answer) is None


def test_words_that_look_like_letters_are_told_from_letters() -> None:
    assert letter("The answer is A because it grows.") == "A"
    assert letter("The answer is A") == "A"
    assert letter("I") == "I"
    assert letter("I think the answer is (I).") == "I"
    assert letter("A tree. The answer is D.") == "D"


def test_letters_beyond_the_options_do_not_count() -> None:
    assert extract_letter("The answer is (D)", ("x", "y", "z")) is None
    assert extract_letter("D", ("x", "y", "z")) is None


def test_a_single_letter_option_can_be_named_by_its_text_only_when_no_letter_is_meant() -> None:
    assert extract_letter("Paris", OPTIONS) == "I"
    assert extract_letter("paris.", OPTIONS) == "I"
    assert extract_letter("oak", ("oak", "oak", "elm")) is None, "two options read the same"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("140", "140"),
        ("140", "The answer is 140 minutes."),
        ("140", "7 times 20 is 140.\n#### 140"),
        ("1400", "$1,400.00"),
        ("0.5", "1/2"),
        ("1/2", "\\boxed{\\frac{1}{2}}"),
        ("-3", "so x = −3"),
        ("25", "25%"),
        ("1,234", "The answer is **1234**."),
        ("10", "It was 3 and 7.\n\nThe answer is $10."),
        ("2", "\\boxed{2}. There were 3."),
        ("-2000", "-2e3"),
        ("True", "The answer is true."),
        ("valid", "Thus:\n\n**valid**"),
        ("x^2", "\\boxed{x^2}"),
        ("New York", "new york."),
    ],
)
def test_free_answers_are_compared_by_what_they_mean(gold: str, answer: str) -> None:
    assert grade(Question("i", "?", (), gold), answer).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("3", "I have 3 apples and 4 pears"), ("6", "1e999999999"), ("6", ""), ("yes", "no"), ("3", "1/0"), ("yes", "")],
)
def test_other_free_answers_are_wrong(gold: str, answer: str) -> None:
    assert not grade(Question("i", "?", (), gold), answer).correct


def test_numbers_are_exact() -> None:
    assert as_number("0.1") != as_number("0.1000000000000000001")
    assert as_number("1e400") is not None
    assert as_number("1e401") is None
    assert as_number("one") is None


@pytest.mark.parametrize(
    "part",
    [
        "(",
        "*",
        "the answer is ",
        "answer",
        "\\boxed{",
        "{",
        "1,",
        "1",
        "C",
        "**",
        "[(",
        "**A. ",
        "A. x\n",
        "answer: \t",
        "<",
        "</think",
        "</ ",
    ],
)
def test_no_answer_takes_long_to_read(part: str) -> None:
    """The bound is a hundred times what these take, and a thousandth of what a rule that goes back and forth would."""
    answer = part * (100_000 // len(part)) + "x"
    started = time.process_time()
    for gold, options in (("C", OPTIONS), ("3", ()), ("free", ())):
        grade(Question("i", "?", options, gold), answer)
    assert time.process_time() - started < 5


@given(st.text(max_size=300), st.sampled_from([OPTIONS, OPTIONS[:2], ()]))
def test_any_text_can_be_read(answer: str, options: tuple[str, ...]) -> None:
    graded = grade(Question("i", "?", options, "A" if options else "7"), answer)
    if options and graded.parsed is not None:
        assert graded.parsed in "ABCDEFGHIJ"[: len(options)]
