"""Which candidates stand in a zoo together: of like strength, of any, or by size class.

The size classes follow Model-SAT's smaller-scale, mixed and high-performance zoos; the bounds in billions of
parameters are ours, read from names and a table of public facts (``model_facts``):

    small              every candidate below 10
    middle_mixed       every candidate below 40, at least one on each side of 10
    large_mixed        every size, at least one on each side of 40
    high_performance   the strongest third of the families, whatever their size; closed models belong here

A model of unknown size is in no class but the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.model_facts import billions_of_parameters
from modelsat_engine.evaluation.outcomes import OutcomeData

if TYPE_CHECKING:
    from modelsat_engine.evaluation.scenarios import Scenario

ZOO_KINDS = ("similar", "mixed")
SPARSE = "similar_sparse"  # seen models, drawn from no more families than there are new ones
SIZE_CLASSES = ("small", "middle_mixed", "large_mixed", "high_performance")
ZOOS_PER_SEED = 20
MIN_QUESTIONS = 50  # a zoo judged on fewer questions says nothing
# A zoo of similar strength is drawn from this many more families than it needs, and refused when its accuracies lie
# further apart: a dozen new families leave gaps, and across a gap there is nothing to route.
SPARE_FAMILIES = 2
SIMILAR_RANGE = 0.2

MIDDLE_FROM, LARGE_FROM = 10.0, 40.0  # billions of parameters
STRONG_SHARE = 1 / 3

# Positions are part of the random draw, so new names go to the end.
_SCENARIO_ORDER = ("seen_models", "new_models", "new_datasets", "size_classes")
_KIND_ORDER = (*ZOO_KINDS, SPARSE, *SIZE_CLASSES)


def draw_zoos(
    data: OutcomeData,
    scenario: Scenario,
    kind: str,
    *,
    seed: int,
    zoo_size: int = 5,
    count: int = ZOOS_PER_SEED,
    families: int | None = None,
) -> list[np.ndarray]:
    """Random zoos of a scenario's models, each of distinct families with enough questions in common.

    ``similar``: around a model drawn at random, from the families nearest in MMLU-Pro accuracy (``zoo_size`` and
    two more), no further apart than SIMILAR_RANGE. ``similar_sparse``: the same, but every zoo first draws
    ``families`` families and knows no others; a scenario of many families then has zoos as wide as one of few.
    ``mixed``: any families. The size classes: see the module.

    Returns:
        Up to ``count`` different zoos, int64 ``[zoo_size]`` each, as model rows; none when the scenario has too
        few families.

    Raises:
        DataError: there is no such kind.
    """
    if kind not in _KIND_ORDER:
        raise DataError(f"there is no kind of zoo {kind!r}; choose from {', '.join(_KIND_ORDER)}")
    rng = np.random.default_rng([seed, _SCENARIO_ORDER.index(scenario.name), _KIND_ORDER.index(kind), zoo_size])
    known = data.known[:, scenario.columns]  # [M, Q]
    similar = kind in ("similar", SPARSE)
    belongs, mixture = _size_rule(data, scenario.rows, kind)
    zoos: dict[tuple[int, ...], np.ndarray] = {}
    for _ in range(50 * count):
        if len(zoos) == count:
            break
        # One row a family, in random order; the first is the anchor.
        order = rng.permutation(scenario.rows)
        of_family: dict[str, int] = {}
        for row in order.tolist():
            if belongs(row):
                of_family.setdefault(data.families[row], row)
        pool = np.array(list(of_family.values()), np.int64)
        if kind == SPARSE and families is not None:
            pool = pool[:families]
        if len(pool) < zoo_size:
            break
        if similar:
            distance = np.abs(data.strength[pool] - data.strength[pool[0]])
            pool = pool[np.argsort(distance, kind="stable")[: zoo_size + SPARE_FAMILIES]]
        zoo = np.concatenate([pool[:1], rng.permutation(pool[1:])[: zoo_size - 1]])
        if similar and np.ptp(data.strength[zoo]) > SIMILAR_RANGE:
            continue
        if mixture(zoo) and known[zoo].all(0).sum() >= MIN_QUESTIONS:
            zoos.setdefault(tuple(sorted(zoo.tolist())), np.sort(zoo))
    return list(zoos.values())


def _size_rule(
    data: OutcomeData, rows: np.ndarray, kind: str
) -> tuple[Callable[[int], bool], Callable[[np.ndarray], bool]]:
    """Which rows belong to the kind at all, and which sets of them are such a zoo."""
    if kind == "high_performance":
        strongest: dict[str, float] = {}
        for row in rows.tolist():
            strongest[data.families[row]] = max(strongest.get(data.families[row], 0.0), float(data.strength[row]))
        ranked = sorted(strongest, key=lambda family: (-strongest[family], family))
        chosen = frozenset(ranked[: math.ceil(len(ranked) * STRONG_SHARE)])
        return lambda row: data.families[row] in chosen, lambda zoo: True
    if kind not in SIZE_CLASSES:
        return lambda row: True, lambda zoo: True
    size = np.array([billions_of_parameters(name) or math.nan for name in data.model_names])  # [M]
    if kind == "small":
        return lambda row: bool(size[row] < MIDDLE_FROM), lambda zoo: True
    below, bound = (LARGE_FROM, MIDDLE_FROM) if kind == "middle_mixed" else (math.inf, LARGE_FROM)
    return (
        lambda row: bool(size[row] < below),
        lambda zoo: bool((size[zoo] < bound).any() and (size[zoo] >= bound).any()),
    )
