"""Which questions to ask: the test's items, joined with their texts, and an even spread of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
        changed: items whose question is there with another text than the test states (by its content hash), sorted;
            they are not asked.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...] = ()


def select_items(
    test: AptitudeTest, questions: Iterable[Question], *, limit: int | None = None, seed: int = 0
) -> Selection:
    """Join the test with its texts and spread ``limit`` items evenly over the tasks.

    Tasks take turns, in an order drawn by ``seed``, and each gives its next item, in an order drawn by ``seed`` too:
    the counts per task differ by one at most while no task runs out, and a larger limit only adds items.

    Args:
        limit: how many items at most; None for all.

    Raises:
        DataError: none of the test's items is among the questions as the test states it.
    """
    texts, changed = _matched(test, questions)
    missing = tuple(sorted(test.item_ids - texts.keys() - set(changed)))
    queues = []
    for task in sorted(test.tasks, key=lambda task: _draw(seed, "task", task.name)):
        there = [item for item in task.item_ids if item in texts]
        there.sort(key=lambda item: _draw(seed, "item", item))
        queues.append([Item(item, task.name, texts[item]) for item in there])
    items: list[Item] = []
    for place in range(max(map(len, queues))):
        items += [queue[place] for queue in queues if place < len(queue)]
    return Selection(tuple(items[:limit]), missing, changed)


def id_prefix(test: AptitudeTest) -> str:
    """What every id of the test begins with, up to its last "/": "mmlu_pro/" in the shipped one, or ""."""
    heads = {item.rpartition("/")[0] for item in test.item_ids}
    head = next(iter(heads))
    return f"{head}/" if len(heads) == 1 and head else ""


def _matched(test: AptitudeTest, questions: Iterable[Question]) -> tuple[dict[str, Question], tuple[str, ...]]:
    """The questions of the test by its ids, and the ids whose text is another one.

    A test that states content hashes knows its questions by them, under any id; of the others the id decides, and a
    file may leave out what all ids of the test begin with.
    """
    prefix = id_prefix(test)
    by_id: dict[str, Question] = {}
    by_hash: dict[str, Question] = {}
    for question in questions:
        by_id[question.id] = question
        if test.item_hashes:
            by_hash[question.hash] = question
    if prefix and not test.item_ids & by_id.keys():
        by_id = {prefix + name: question for name, question in by_id.items()}
    found: dict[str, Question] = {}
    changed: list[str] = []
    for item in sorted(test.item_ids):
        stated = test.item_hashes.get(item)
        if stated is None and item in by_id:
            found[item] = by_id[item]
        elif stated in by_hash:
            found[item] = by_hash[stated]
        elif item in by_id:
            changed.append(item)
    if found:
        return found, tuple(changed)
    if changed:
        raise DataError(
            f"the texts of all {len(changed):,} questions differ from those that the aptitude test {test.id} was made "
            f"of ({changed[0]}, ...); bring the version of the data set that the test states"
        )
    theirs = next((name.removeprefix(prefix) for name in by_id), "none")
    raise DataError(
        f"no question has an id of the aptitude test {test.id}: it names items such as {min(test.item_ids)!r}, the "
        f"questions such as {theirs!r}; bring the questions that the test names"
    )


def _draw(seed: int, kind: str, name: str) -> bytes:
    """A rank that is the same on every machine and in every version of Python."""
    return hashlib.sha256(f"{seed}:{kind}:{name}".encode("utf-8", errors="surrogatepass")).digest()
