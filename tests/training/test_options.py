"""Lettered options can be hidden or come in another order; questions without them stay as they are."""

from __future__ import annotations

import re

import pytest

from modelsat_engine.training.options import with_options_shuffled, without_options

BBH = "Long\ntext?\nOptions:\n(A) one\n(B) two, and\na second line\n(C) three"


def test_options_begin_where_the_first_letter_does() -> None:
    assert without_options("Which?\nA. one\nB. two") == "Which?"
    assert without_options(BBH) == "Long\ntext?"
    assert without_options("How many? A. is no option here") is None
    assert without_options("\nA. only options") is None


def test_letters_stay_and_what_follows_them_moves() -> None:
    texts = {with_options_shuffled(BBH, seed) for seed in range(1, 60)}
    assert len(texts) == 6  # all orders of three
    for text in texts:
        assert text is not None
        assert text.startswith("Long\ntext?\nOptions:\n(A) ")
        bodies = re.split(r"\n?\([ABC]\) ", text.partition("Options:")[2])[1:]
        assert sorted(bodies) == ["one", "three", "two, and\na second line"]


def test_the_same_seed_gives_the_same_order() -> None:
    text = "Which?\n" + "\n".join(f"{letter}. option {letter.lower()}" for letter in "ABCDEFGHIJ")
    assert with_options_shuffled(text, 7) == with_options_shuffled(text, 7) != with_options_shuffled(text, 8)


@pytest.mark.parametrize(
    "text", ["How many?", "Which?\nA. only one", "Which?\nA. one\nC. no B", "\nA. one\nB. two", "A. one\nB. two"]
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert with_options_shuffled(text, 1) is None
