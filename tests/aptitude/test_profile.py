"""A capability profile is consistent or it does not exist."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest, CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.errors import ProfileError
from tests.aptitude.test_aptitude_test import small_test

TEST = small_test()


def profile(**changes: Any) -> CapabilityProfile:
    fields: dict[str, Any] = {
        "name": "model",
        "correct": {"algebra": 2, "botany": 0, "chess": 1},
        "total": {"algebra": 3, "botany": 3, "chess": 1},
        "test_id": TEST.id,
    }
    return CapabilityProfile(**{**fields, **changes})


def test_counts_follow_the_tests_order() -> None:
    correct, total = profile(total={"chess": 1, "botany": 3, "algebra": 3}).counts(TEST)
    assert correct.dtype == total.dtype == np.float32
    assert correct.tolist() == [2, 0, 1]
    assert total.tolist() == [3, 3, 1]


def test_a_missing_task_counts_as_nothing_and_is_told() -> None:
    partial = profile(correct={"botany": 2, "chess": 0}, total={"botany": 3, "chess": 0})
    correct, total = partial.counts(TEST)
    assert correct.tolist() == [0, 2, 0]
    assert total.tolist() == [0, 3, 0]
    assert partial.missing_tasks(TEST) == ("algebra", "chess")
    assert profile().missing_tasks(TEST) == ()


def test_another_test_or_an_unknown_task_is_refused() -> None:
    with pytest.raises(ProfileError, match="grade the candidate on that test"):
        profile(test_id="sha256:0123456789abcdef").counts(TEST)
    with pytest.raises(ProfileError, match="'drama' is not in the aptitude test"):
        profile(correct={"drama": 1}, total={"drama": 1}).counts(TEST)
    assert profile(test_id=None).counts(TEST)[0].tolist() == [2, 0, 1], "a writer need not say which test"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "non-empty name"),
        ({"name": "  "}, "non-empty name"),
        ({"name": None}, "non-empty name"),
        ({"correct": {}, "total": {}}, "no task"),
        ({"correct": {"algebra": 1}}, "only one of"),
        ({"correct": {"algebra": 4, "botany": 0, "chess": 0}}, "4 right of 3"),
        ({"correct": {"algebra": -1, "botany": 0, "chess": 0}}, "-1 right of 3"),
        (
            {"correct": {"algebra": 0, "botany": 0, "chess": 0}, "total": {"algebra": -1, "botany": 0, "chess": 0}},
            "of -1",
        ),
        ({"correct": {"algebra": 0.85, "botany": 0, "chess": 0}}, "whole number"),
        ({"correct": {"algebra": math.nan, "botany": 0, "chess": 0}}, "whole number"),
        ({"correct": {"algebra": True, "botany": 0, "chess": 0}}, "whole number"),
        ({"correct": {"algebra": "2", "botany": 0, "chess": 0}}, "whole number"),
        ({"correct": {1: 2}}, "not text"),
        ({"correct": [1, 2]}, "must map"),
        ({"total": None}, "must map"),
        ({"usd_per_million_tokens": -0.1}, "finite price"),
        ({"usd_per_million_tokens": math.nan}, "finite price"),
        ({"usd_per_million_tokens": math.inf}, "finite price"),
        ({"usd_per_million_tokens": "0.9"}, "must be a number"),
        ({"usd_per_million_tokens": True}, "must be a number"),
        ({"answers": {"b/chess/1": 2}}, "true"),
        ({"answers": {"b/chess/1": None}}, "true"),
        ({"answers": ["b/chess/1"]}, "must map"),
        ({"notes": 5}, "notes must be text"),
        ({"test_id": 5}, "test_id"),
        ({"refinement": {"axes": "a", "values": [1.0], "answers": 3}}, "must be a Refinement"),
    ],
)
def test_an_inconsistent_profile_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        profile(**changes)


def test_numpy_counts_and_answers_are_taken_as_what_they_are() -> None:
    made = profile(correct={"algebra": np.int64(2)}, total={"algebra": np.int8(3)}, answers={"i": np.bool_(True)})
    assert json.loads(json.dumps(made.to_json()))["correct"] == {"algebra": 2}
    assert made.answers == {"i": True}


def test_answers_are_counted_into_their_tasks() -> None:
    answers = {"b/algebra/0": True, "b/algebra/1": False, "b/chess/2": True}
    made = CapabilityProfile.from_answers("model", TEST, answers, notes="tuned", usd_per_million_tokens=0.5)
    assert made.correct == {"algebra": 1, "botany": 0, "chess": 1}
    assert made.total == {"algebra": 2, "botany": 0, "chess": 1}
    assert made.test_id == TEST.id
    assert made.answers == answers
    assert made.accuracy == pytest.approx(2 / 3)
    with pytest.raises(ProfileError, match="'b/drama/0' is not in"):
        CapabilityProfile.from_answers("model", TEST, {"b/drama/0": True})
    with pytest.raises(ProfileError, match="no aptitude item"):
        CapabilityProfile.from_answers("model", TEST, {})


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(TEST.item_ids)), st.booleans(), min_size=1),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.text(st.characters(codec="utf-8")),
)
def test_json_keeps_a_profile_and_its_hash(answers: dict[str, bool], price: float | None, notes: str) -> None:
    made = CapabilityProfile.from_answers("model", TEST, answers, notes=notes, usd_per_million_tokens=price)
    again = CapabilityProfile.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.hash == made.hash
    assert hash(again) == hash(made)


def test_any_change_changes_the_hash() -> None:
    base = profile()
    changed = [
        profile(name="other"),
        profile(notes="tuned"),
        profile(usd_per_million_tokens=0.0),
        profile(test_id=None),
        profile(correct={"algebra": 3, "botany": 0, "chess": 1}),
        profile(answers={}),
    ]
    assert len({base.hash, *(other.hash for other in changed)}) == len(changed) + 1


def test_a_profile_does_not_follow_the_mapping_it_was_made_from() -> None:
    correct = {"algebra": 2, "botany": 0, "chess": 1}
    made = profile(correct=correct)
    correct["algebra"] = 99
    assert made.correct["algebra"] == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "JSON object"),
        ({"name": "model", "correct": {}}, "'total' is missing"),
        ({**profile().to_json(), "usd_per_milion_tokens": 0.9}, "unknown key 'usd_per_milion_tokens'"),
    ],
)
def test_json_that_is_no_profile_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        CapabilityProfile.from_json(value)


def test_a_profile_without_any_answer_has_no_accuracy() -> None:
    assert math.isnan(profile(correct={"algebra": 0}, total={"algebra": 0}).accuracy)


def test_a_profile_of_a_single_task_test_works() -> None:
    test = AptitudeTest((AptitudeTask("only", ("one",), ("i",)),))
    assert CapabilityProfile.from_answers("model", test, {"i": False}).counts(test)[1].tolist() == [1]


REFINEMENT = {"axes": "a", "values": [1.0], "answers": 3, "shared": [0.5]}


def test_a_refinement_survives_json_and_tells_profiles_apart() -> None:
    refined = profile(refinement=Refinement("sha256:a", (0.25, -1.5), 300, (1.0, 2.0)))
    again = CapabilityProfile.from_json(json.loads(json.dumps(refined.to_json())))
    assert again == refined
    assert again.hash == refined.hash != profile().hash
    assert "refinement" not in profile().to_json()
    assert refined.refinement is not None
    assert refined.refinement.effects == (1.25, 0.5)
    own_only = Refinement.from_json({"axes": "a", "values": [0.25, -1.5], "answers": 3})
    assert own_only.effects == (0.25, -1.5)
    assert own_only.shared == (0.0, 0.0)


@pytest.mark.parametrize(
    ("refinement", "words"),
    [
        ({"axes": "a", "values": [1.0]}, "axes, values, answers and shared"),
        ({**REFINEMENT, "prior": 1}, "axes, values, answers and shared"),
        ([1.0], "axes, values, answers and shared"),
        ({**REFINEMENT, "axes": 5}, "names the axes"),
        ({**REFINEMENT, "values": []}, "one finite number"),
        ({**REFINEMENT, "values": [math.nan]}, "one finite number"),
        ({**REFINEMENT, "shared": [math.inf]}, "one finite number"),
        ({**REFINEMENT, "answers": -1}, "one finite number"),
        ({**REFINEMENT, "shared": [1.0, 2.0]}, "1 values of its own and 2 shared"),
        ({**REFINEMENT, "values": ["x"]}, "list of numbers"),
        ({**REFINEMENT, "values": 1.0}, "list of numbers"),
        ({**REFINEMENT, "shared": None}, "list of numbers"),
        ({**REFINEMENT, "answers": 0.5}, "list of numbers"),
    ],
)
def test_a_refinement_that_is_none_is_refused(refinement: Any, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        CapabilityProfile.from_json({**profile().to_json(), "refinement": refinement})
