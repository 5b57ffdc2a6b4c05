"""The words a question is asked in, and its rotations for the circle test."""

from __future__ import annotations

from dataclasses import replace

from modelsat_engine.aptitude.questions import LETTERS, Question
from modelsat_engine.aptitude.taking.protocol import Protocol

Prompt = list[dict[str, str]] | str

CHOICE_DIRECT = "Answer with the letter of the right option and nothing else."
CHOICE_REASON = 'Think step by step. End with one line: "The answer is (X)", with X the letter of the right option.'
FREE_DIRECT = "Give the final answer and nothing else."
FREE_REASON = 'Think step by step. End with one line: "The answer is X", with X your final answer.'


def make_prompt(question: Question, protocol: Protocol) -> Prompt:
    """Chat messages, or the text to go on from for the completions api."""
    if protocol.api == "completions":
        lead = "Answer: Let's think step by step." if protocol.style == "reason" else "Answer:"
        return f"Question: {question.instruction}\n{lead}"
    if question.options:
        request = CHOICE_REASON if protocol.style == "reason" else CHOICE_DIRECT
    else:
        request = FREE_REASON if protocol.style == "reason" else FREE_DIRECT
    messages = [{"role": "system", "content": protocol.system}] if protocol.system is not None else []
    return [*messages, {"role": "user", "content": f"{question.instruction}\n\n{request}"}]


def rotation_count(question: Question, protocol: Protocol) -> int:
    """How often the question is asked: once without options, else at most once per option."""
    if not question.options:
        return 1
    return min(protocol.rotations or len(question.options), len(question.options))


def rotated(question: Question, rotation: int, rotations: int) -> Question:
    """The question in its ``rotation``-th form of ``rotations``: options moved on in a circle, evenly spread.

    Rotation 0 is the question as it is. The right answer moves along, so that a model which prefers a letter, or
    remembers the printed order, is right in one form and wrong in others (CircularEval of MMBench, Liu et al. 2023).
    """
    count = len(question.options)
    shift = rotation * count // rotations if count else 0
    if not shift:
        return question
    index = question.answer_index
    assert index is not None
    options = question.options[-shift:] + question.options[:-shift]  # option i is at (i + shift) % count
    return replace(question, options=options, answer=LETTERS[(index + shift) % count])
