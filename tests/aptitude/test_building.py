"""The built test is made of items that tell models apart, from the models it may look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from modelsat_engine.aptitude.building import (
    build_test,
    default_zoo,
    item_weights,
    profiles_from_outcomes,
)
from modelsat_engine.aptitude.keywords import FURTHER_TASKS, MMLU_SUBJECTS
from modelsat_engine.errors import DataError, ProfileError
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import ModelGroups, task_paths
from tests.evaluation.synthetic import KEYWORDS, SUBJECTS, synthetic_outcomes, synthetic_test


@pytest.fixture(scope="module")
def data() -> OutcomeData:
    return synthetic_outcomes(12)[0]


@pytest.fixture(scope="module")
def seen(data: OutcomeData) -> np.ndarray:
    return data.rows(ModelGroups.make(data, 0).seen)


def test_every_task_has_five_keywords_of_its_own() -> None:
    tasks = {**MMLU_SUBJECTS, **FURTHER_TASKS}
    assert len(MMLU_SUBJECTS) == 56
    assert all(len(keywords) == 5 for keywords in tasks.values())
    twice = [
        word for word, count in Counter(word.lower() for words in tasks.values() for word in words).items() if count > 1
    ]
    assert twice == []


def test_weights_are_the_variance_of_one_answer(data: OutcomeData, seen: np.ndarray) -> None:
    weight = item_weights(data, seen)
    for column in (0, 77, 301):
        known = data.Y[seen, column][data.Y[seen, column] >= 0]
        assert weight[column] == pytest.approx(known.mean() * (1 - known.mean()))
    rare = replace(data, Y=np.where(np.arange(len(data.Y))[:, None] < len(data.Y) - 4, np.int8(-1), data.Y))
    assert (item_weights(rare, seen) == 0).all(), "known to fewer than half of the rows"


def test_the_test_has_the_size_asked_for_and_usable_items_of_its_tasks(data: OutcomeData, seen: np.ndarray) -> None:
    test = build_test(data, seen, seed=3, keywords=KEYWORDS, num_tasks=6, items_per_task=11)
    assert len(test.tasks) == 6
    assert list(test.task_names) == sorted(test.task_names)
    paths, weight = task_paths(data), item_weights(data, seen)
    for task in test.tasks:
        assert task.keywords == KEYWORDS[task.name]
        assert len(task.item_ids) == 11
        for column in data.columns(task.item_ids):
            assert paths[column] == f"mmlu_pro/ori_mmlu-{task.name}"
            assert weight[column] > 0


def test_the_tasks_of_the_largest_weight_are_taken(data: OutcomeData, seen: np.ndarray) -> None:
    weight, paths = item_weights(data, seen), np.array(task_paths(data))
    total = {name: weight[paths == f"mmlu_pro/ori_mmlu-{name}"].sum() for name in SUBJECTS}
    test = build_test(data, seen, seed=3, keywords=KEYWORDS, num_tasks=3, items_per_task=11)
    assert set(test.task_names) == set(sorted(total, key=lambda name: -total[name])[:3])


def test_distinguishing_items_are_drawn_more_often_but_not_alone(data: OutcomeData, seen: np.ndarray) -> None:
    Y = data.Y.copy()
    easy = np.arange(0, Y.shape[1], 3)
    Y[:, easy] = 1
    Y[np.ix_(seen[:3], easy)] = 0
    uneven = replace(data, Y=Y)
    weight = item_weights(uneven, seen)
    drawn = np.zeros(len(weight))
    seeds = 40
    for seed in range(seeds):
        test = build_test(uneven, seen, seed=seed, keywords=KEYWORDS, num_tasks=8, items_per_task=9)
        drawn[uneven.columns(test.item_ids)] += 1 / seeds
    pool = np.flatnonzero((data.questions.benchmark == "mmlu_pro") & (weight > 0))
    plain = np.setdiff1d(pool, easy)
    easy = np.intersect1d(pool, easy)
    # A small sample without replacement draws nearly in proportion to the weights, about .11 against .24.
    ratio = (drawn[plain].mean() / drawn[easy].mean()) / (weight[plain].mean() / weight[easy].mean())
    assert 0.75 < ratio < 1.1, f"drawn at {ratio:.2f} of the ratio of weights"
    assert (drawn[easy] > 0).mean() > 0.8, "a sample, not the top"


def test_one_question_asked_twice_is_one_item(data: OutcomeData, seen: np.ndarray) -> None:
    texts = list(data.questions.instruction)
    anatomy = [c for c, path in enumerate(task_paths(data)) if path == "mmlu_pro/ori_mmlu-anatomy"]
    for column in anatomy[1:]:
        texts[column] = texts[anatomy[0]]
    twins = replace(data, questions=replace(data.questions, instruction=tuple(texts)))
    test = build_test(twins, seen, seed=0, keywords=KEYWORDS, num_tasks=7, items_per_task=5)
    assert "anatomy" not in test.task_names, "it has one usable item left"


def test_building_is_deterministic_and_blind_to_other_models(data: OutcomeData, seen: np.ndarray) -> None:
    settings = {"keywords": KEYWORDS, "num_tasks": 7, "items_per_task": 10}
    test = build_test(data, seen, seed=4, **settings)
    assert build_test(data, seen, seed=4, **settings) == test
    assert build_test(data, seen, seed=5, **settings) != test
    Y = data.Y.copy()
    others = np.setdiff1d(np.arange(len(Y)), seen)
    Y[others] = np.random.default_rng(0).integers(0, 2, Y[others].shape)
    assert build_test(replace(data, Y=Y), seen, seed=4, **settings) == test


def test_tasks_beyond_mmlu_can_be_drawn(data: OutcomeData, seen: np.ndarray) -> None:
    keywords = {**KEYWORDS, "bbh/snarks": FURTHER_TASKS["bbh/snarks"], "ifeval/ifeval": FURTHER_TASKS["ifeval/ifeval"]}
    test = build_test(data, seen, seed=0, keywords=keywords, num_tasks=10, items_per_task=9)
    assert {"bbh/snarks", "ifeval/ifeval"} < set(test.task_names)


def test_too_little_data_is_told(data: OutcomeData, seen: np.ndarray) -> None:
    with pytest.raises(DataError, match="only 0 of 8 tasks have 61 usable items"):
        build_test(data, seen, seed=0, keywords=KEYWORDS, num_tasks=1, items_per_task=61)
    with pytest.raises(DataError, match="only 8 of 56 tasks have 20 usable items, 50 are needed"):
        build_test(data, seen, seed=0)
    with pytest.raises(DataError, match="at least one row"):
        build_test(data, seen[:0], seed=0)


def test_profiles_repeat_the_outcomes(data: OutcomeData) -> None:
    test = synthetic_test(data, 0)
    for row, profile in zip((3, 20), profiles_from_outcomes(data, test, [3, 20]), strict=True):
        assert profile.name == data.model_keys[row]
        assert profile.test_id == test.id
        assert profile.answers is not None
        for item in test.item_ids:
            outcome = data.Y[row, data.columns([item])[0]]
            assert profile.answers.get(item, -1) == outcome
        assert sum(profile.total.values()) == len(profile.answers) <= len(test.item_ids)
        price = data.usd_per_million_tokens[row]
        assert profile.usd_per_million_tokens == (None if np.isnan(price) else pytest.approx(price))
    assert len(profiles_from_outcomes(data, test)) == len(data.model_keys)


def test_a_model_that_took_no_part_has_no_profile(data: OutcomeData) -> None:
    test = synthetic_test(data, 0)
    Y = data.Y.copy()
    Y[2] = -1
    with pytest.raises(ProfileError, match="no aptitude item"):
        profiles_from_outcomes(replace(data, Y=Y), test, [2])


def test_the_default_zoo_names_what_is_missing(data: OutcomeData) -> None:
    with pytest.raises(DataError, match="Llama"):
        default_zoo(data, synthetic_test(data, 0))
