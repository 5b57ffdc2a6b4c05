"""Core-task sampling: which tasks and items make a test, by how much each tells about one more model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTask, AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.splits import share_of


class PoolItem(NamedTuple):
    """An item that a task may be measured by.

    Attributes:
        weight: how likely it is to be drawn, above 0; p (1 - p), or 1 when nothing is known.
        content: its content hash, "" when the text is not known.
    """

    id: str
    weight: float
    content: str = ""


def distinguishability(Y: np.ndarray) -> np.ndarray:
    """p (1 - p) of every item, p its share of right answers: the variance of one answer.

    Args:
        Y: int8 ``[M, Q]``: 1 right, 0 wrong, -1 not known.

    Returns:
        float64 ``[Q]``; 0 where fewer than half of the models have an outcome, or all agree.
    """
    known = (Y >= 0).sum(0)
    share = (Y == 1).sum(0) / np.maximum(known, 1)
    weight: np.ndarray = np.where(2 * known >= len(Y), share * (1 - share), 0.0)
    return weight


def sample_test(
    pools: Mapping[str, Sequence[PoolItem]],
    keywords: Mapping[str, Sequence[str]],
    *,
    seed: int,
    num_tasks: int,
    items_per_task: int,
) -> AptitudeTest:
    """The test of the tasks that tell most, each measured by a weighted sample of its items.

    Of the tasks with at least ``items_per_task`` items the ``num_tasks`` of the largest total weight are taken, and
    from each a weighted sample without replacement (Efraimidis and Spirakis 2006: the largest u ** (1 / weight), u
    uniform and here a hash of seed and item, so that neither order nor machine matters).

    Args:
        pools: task -> its usable items, the tasks to draw from.
        keywords: task -> what it is about, for every task that can be chosen.
        seed: chooses the sample.

    Returns:
        The test, tasks sorted by name, items sorted inside a task.

    Raises:
        DataError: fewer than ``num_tasks`` tasks have enough usable items.
    """
    enough = {name: pool for name, pool in pools.items() if len(pool) >= items_per_task}
    if len(enough) < num_tasks:
        raise DataError(
            f"only {len(enough)} of {len(pools)} tasks have {items_per_task} usable items, {num_tasks} are "
            "needed; ask for fewer tasks or items, or bring more outcomes"
        )
    total = {name: sum(item.weight for item in pool) for name, pool in enough.items()}
    tasks = []
    for name in sorted(sorted(enough, key=lambda name: (-total[name], name))[:num_tasks]):
        rank = {item.id: np.log(max(share_of(seed, "item", item.id), 2.0**-64)) / item.weight for item in enough[name]}
        drawn = sorted(enough[name], key=lambda item: (-rank[item.id], item.id))[:items_per_task]
        drawn.sort(key=lambda item: item.id)
        contents = tuple(item.content for item in drawn)
        tasks.append(
            AptitudeTask(
                name, tuple(keywords[name]), tuple(item.id for item in drawn), contents if all(contents) else ()
            )
        )
    return AptitudeTest(tuple(tasks))
