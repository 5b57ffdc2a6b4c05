"""Lettered options of a question: hidden, or in another order, so that a router does not learn them by heart."""

from __future__ import annotations

import re

import numpy as np

_FIRST_OPTION = re.compile(r"\n(?:Options:\n)?\(?A[.)] ")
_OPTION = re.compile(r"^\(?([A-Z])[.)] ", re.MULTILINE)


def without_options(text: str) -> str | None:
    """The question before its lettered options, or None where there are none."""
    option = _FIRST_OPTION.search(text)
    return text[: option.start()] if option and text[: option.start()].strip() else None


def with_options_shuffled(text: str, seed: int) -> str | None:
    """The question with its options in an order drawn from `seed`, or None where there are no two of them.

    The letters stay where they are and what follows them moves. Options are taken as such where their letters run
    A, B, C, ... to the end of the text.
    """
    first = _FIRST_OPTION.search(text)
    if first is None or not text[: first.start()].strip():
        return None
    marks = list(_OPTION.finditer(text, first.start()))
    if len(marks) < 2 or [mark[1] for mark in marks] != [chr(ord("A") + i) for i in range(len(marks))]:
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    bodies = [text[mark.end() : end].rstrip("\n") for mark, end in zip(marks, ends, strict=True)]
    order = np.random.default_rng(seed).permutation(len(bodies))
    options = [f"{mark[0]}{bodies[moved]}" for mark, moved in zip(marks, order, strict=True)]
    return text[: marks[0].start()] + "\n".join(options)
