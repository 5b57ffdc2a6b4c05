"""A split leaks nothing: neither families, nor items, nor questions, nor datasets."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.outcomes import OutcomeData, Questions
from modelsat_engine.evaluation.splits import ModelGroups, Split, new_tasks, question_stem, task_paths
from tests.evaluation.conftest import SEED
from tests.evaluation.synthetic import synthetic_test

QUESTION_GROUPS = ("train", "validation", "test", "new_datasets")


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 11])
def test_every_row_is_in_one_group_and_a_family_in_one(data: OutcomeData, seed: int) -> None:
    groups = ModelGroups.make(data, seed)
    keys = [*groups.seen, *groups.validation, *groups.new]
    assert sorted(keys) == sorted(data.model_keys)
    families = [
        {data.families[row] for row in data.rows(part)} for part in (groups.seen, groups.validation, groups.new)
    ]
    for one, other in combinations(families, 2):
        assert one.isdisjoint(other)
    sizes = [len(part) for part in families]
    assert sizes == [21, 3, 6], "30 families in blocks of ten: 70, 10 and 20 per cent"


def test_each_block_of_like_strength_gives_to_every_group(data: OutcomeData) -> None:
    groups = ModelGroups.make(data, SEED)
    median = np.median(data.strength)
    for part in (groups.seen, groups.new):
        strength = data.strength[data.rows(part)]
        assert strength.min() < median < strength.max()


def test_questions_are_in_one_group_and_aptitude_items_in_none(
    data: OutcomeData, aptitude_test: AptitudeTest, split: Split
) -> None:
    columns = [set(getattr(split, name).tolist()) for name in QUESTION_GROUPS]
    for one, other in combinations(columns, 2):
        assert one.isdisjoint(other)
    items = set(data.columns(aptitude_test.item_ids).tolist())
    assert set().union(*columns) == set(range(len(data.questions))) - items


def test_shares_of_questions_are_about_75_7_18(data: OutcomeData, split: Split) -> None:
    sizes = np.array([len(split.train), len(split.validation), len(split.test)])
    np.testing.assert_allclose(sizes / sizes.sum(), [0.75, 0.07, 0.18], atol=0.05)


def test_datasets_never_trained_on_are_whole(data: OutcomeData, split: Split) -> None:
    paths = np.array(task_paths(data))
    held_out = set(paths[split.new_datasets].tolist())
    assert held_out == set(split.new_tasks) == set(new_tasks(data, SEED))
    assert {"musr/object_placements", "gsm8k/gsm8k"} < held_out
    assert sum(path.startswith("bbh/") for path in held_out) == 5
    assert not any(path.endswith("_objects") for path in held_out), "siblings would leak"
    for name in ("train", "validation", "test"):
        assert held_out.isdisjoint(paths[getattr(split, name)].tolist())


def test_questions_that_differ_only_in_options_or_spacing_stay_together(
    data: OutcomeData, aptitude_test: AptitudeTest
) -> None:
    trained_on = [c for c, path in enumerate(task_paths(data)) if path.startswith("mmlu_pro/")]
    texts = list(data.questions.instruction)
    for first, second in zip(trained_on[::2], trained_on[1::2], strict=False):
        texts[second] = texts[first].replace(" about ", "\n ABOUT  ").replace("A. yes", "A. no")
        assert question_stem(texts[first]) == question_stem(texts[second])
    twins = replace(data, questions=replace(data.questions, instruction=tuple(texts)))
    split = Split.make(twins, aptitude_test, SEED)
    group_of = {column: name for name in QUESTION_GROUPS for column in getattr(split, name).tolist()}
    for first, second in zip(trained_on[::2], trained_on[1::2], strict=False):
        assert group_of.get(first) == group_of.get(second), "a twin of an aptitude item is left out with it"


def test_a_split_depends_on_seed_names_and_texts_alone(
    data: OutcomeData, aptitude_test: AptitudeTest, split: Split
) -> None:
    order = np.random.default_rng(3).permutation(len(data.questions))
    q = data.questions
    shuffled = replace(
        data,
        questions=Questions(q.id[order], q.benchmark[order], q.task[order], tuple(q.instruction[i] for i in order)),
        Y=data.Y[:, order],
    )
    again = Split.make(shuffled, aptitude_test, SEED)
    for name in QUESTION_GROUPS:
        assert set(shuffled.questions.id[getattr(again, name)]) == set(q.id[getattr(split, name)])
    assert again.models == split.models
    other = Split.make(data, aptitude_test, SEED + 1)
    assert other.models != split.models
    assert set(other.train.tolist()) != set(split.train.tolist())


def test_a_recorded_split_is_restored(data: OutcomeData, aptitude_test: AptitudeTest, split: Split) -> None:
    restored = Split.from_json(json.loads(json.dumps(split.to_json())), data, aptitude_test)
    assert restored.models == split.models
    assert restored.to_json() == split.to_json()
    for name in (*QUESTION_GROUPS, "seen_rows", "validation_rows", "new_rows"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(split, name))


def test_models_that_the_record_does_not_name_are_new_unless_kin(
    data: OutcomeData, aptitude_test: AptitudeTest, split: Split
) -> None:
    recorded = split.to_json()
    newcomer, twin = "olb2/lab/newcomer", split.models.seen[0] + "#rerun"
    more = OutcomeData(
        data.questions,
        np.concatenate([data.Y, data.Y[:2]]),
        (*data.model_keys, newcomer, twin),
        (*data.model_names, "lab/newcomer", data.model_names[0]),
        (*data.families, "newcomer", data.families[data.model_keys.index(split.models.seen[0])]),
        (*data.protocols, "lm-eval", "lm-eval"),
        np.concatenate([data.usd_per_million_tokens, [np.nan, np.nan]]).astype(np.float32),
    )
    restored = Split.from_json(recorded, more, aptitude_test)
    assert newcomer in restored.models.new
    assert twin not in (*restored.models.seen, *restored.models.validation, *restored.models.new)
    assert restored.models.seen == split.models.seen


def test_a_record_of_another_test_or_without_a_key_is_refused(
    data: OutcomeData, aptitude_test: AptitudeTest, split: Split
) -> None:
    other = synthetic_test(data, SEED + 1)
    with pytest.raises(DataError, match="aptitude test"):
        Split.from_json(split.to_json(), data, other)
    for key in ("seed", "models", "new_tasks", "aptitude_test_id"):
        record = {name: value for name, value in split.to_json().items() if name != key}
        with pytest.raises(DataError, match=key):
            Split.from_json(record, data, aptitude_test)


def test_a_model_that_did_not_take_the_test_is_in_no_group_of_rows(
    data: OutcomeData, aptitude_test: AptitudeTest, split: Split
) -> None:
    absent = int(split.new_rows[0])
    Y = data.Y.copy()
    Y[absent, data.columns(aptitude_test.item_ids)] = -1
    restored = Split.from_json(split.to_json(), replace(data, Y=Y), aptitude_test)
    assert restored.new_rows.tolist() == split.new_rows[1:].tolist()
