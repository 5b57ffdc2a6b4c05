"""Made-up questions, a test that names them, and a model that knows some of the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.questions import LETTERS, Question
from tests.aptitude.taking.fault_server import Asked, Reply, Says

TASKS = ("algebra", "botany", "chess", "drama", "ethics")
ITEMS_PER_TASK = 4
WORDS = ("amber", "birch", "cedar", "dune", "ember")


def make_test() -> AptitudeTest:
    """Five tasks of four items, like the tests' small bundle."""
    return AptitudeTest(
        tuple(
            AptitudeTask(
                task, tuple(f"{task} {k}" for k in range(5)), tuple(f"{task}/{i}" for i in range(ITEMS_PER_TASK))
            )
            for task in TASKS
        )
    )


def make_question(item: str, place: int) -> Question:
    """Asks for a word of its options; the right one stands at ``place``."""
    return Question(item, f"[{item}] Which word rhymes with {WORDS[place]}?", WORDS, LETTERS[place])


def make_questions(test: AptitudeTest) -> list[Question]:
    """A question for every item; right places are spread over the letters."""
    return [make_question(item, number % len(WORDS)) for number, item in enumerate(sorted(test.item_ids))]


def write_questions(path: Path, questions: Collection[Question]) -> Path:
    """A question file of jsonl."""
    rows = [{"id": q.id, "question": q.text, "options": q.options, "answer": q.answer} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def right_letter(asked: Asked) -> str:
    """The letter of the right option in the form in which the question was asked."""
    word = re.search(r"rhymes with (\w+)", asked.text)
    assert word
    option = re.search(rf"^([A-Z])\. {word[1]}$", asked.text, re.MULTILINE)
    assert option
    return option[1]


def wrong_letter(asked: Asked) -> str:
    """Another letter of its options."""
    return "A" if right_letter(asked) != "A" else "B"


def knows_all(asked: Asked) -> Reply:
    """A model that is always right."""
    return Says(right_letter(asked))
