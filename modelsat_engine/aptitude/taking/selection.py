"""Which questions to ask: the test's items, joined with their texts, and an even spread of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelsat_engine.aptitude.questions import Question
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError


@dataclass(frozen=True)
class Item:
    """One question of the aptitude test, with the task that it measures."""

    id: str
    task: str
    question: Question


@dataclass(frozen=True)
class Selection:
    """The items to ask, in order, and the ids of those without a text.

    Attributes:
        items: a run with a smaller limit and the same seed asks the first of these.
        missing: items of the test that the questions lack, sorted.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...]


def select_items(
    test: AptitudeTest, questions: Iterable[Question], *, limit: int | None = None, seed: int = 0
) -> Selection:
    """Join the test with its texts and spread ``limit`` items evenly over the tasks.

    Tasks take turns, in an order drawn by ``seed``, and each gives its next item, in an order drawn by ``seed`` too:
    the counts per task differ by one at most while no task runs out, and a larger limit only adds items.

    Args:
        limit: how many items at most; None for all.

    Raises:
        DataError: none of the test's items is among the questions.
    """
    by_id = {question.id: question for question in questions}
    by_id = _matched(test, by_id)
    missing = tuple(sorted(test.item_ids - by_id.keys()))
    queues = []
    for task in sorted(test.tasks, key=lambda task: _draw(seed, "task", task.name)):
        there = [item for item in task.item_ids if item in by_id]
        there.sort(key=lambda item: _draw(seed, "item", item))
        queues.append([Item(item, task.name, by_id[item]) for item in there])
    items: list[Item] = []
    for place in range(max(map(len, queues))):
        items += [queue[place] for queue in queues if place < len(queue)]
    return Selection(tuple(items[:limit]), missing)


def id_prefix(test: AptitudeTest) -> str:
    """What every id of the test begins with, up to its last "/": "mmlu_pro/" in the shipped one, or ""."""
    heads = {item.rpartition("/")[0] for item in test.item_ids}
    head = next(iter(heads))
    return f"{head}/" if len(heads) == 1 and head else ""


def _matched(test: AptitudeTest, by_id: Mapping[str, Question]) -> dict[str, Question]:
    """The questions of the test, by the test's ids; a file may leave out the prefix common to all of them."""
    found = {item: by_id[item] for item in test.item_ids & by_id.keys()}
    prefix = id_prefix(test)
    if not found and prefix:
        found = {prefix + name: question for name, question in by_id.items() if prefix + name in test.item_ids}
    if not found:
        theirs = next(iter(by_id), "none")
        raise DataError(
            f"no question has an id of the aptitude test {test.id}: it names items such as "
            f"{min(test.item_ids)!r}, the questions such as {theirs!r}; bring the questions that the test names"
        )
    return found


def _draw(seed: int, kind: str, name: str) -> bytes:
    """A rank that is the same on every machine and in every version of Python."""
    return hashlib.sha256(f"{seed}:{kind}:{name}".encode("utf-8", errors="surrogatepass")).digest()
