"""The text of a capability says what was measured, in any order of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.representation import capability_text
from modelsat_engine.errors import ProfileError
from tests.aptitude.test_aptitude_test import small_test

TEST = small_test()
PROFILE = CapabilityProfile(
    "secret name",
    {"algebra": 17, "botany": 0, "chess": 1},
    {"algebra": 20, "botany": 0, "chess": 3},
    notes="instruction-tuned.",
)


def test_text_lists_accuracies_with_keywords() -> None:
    assert capability_text(PROFILE, TEST) == (
        "The model achieves accuracy 85% on algebra 0, algebra 1, algebra 2, algebra 3, algebra 4; "
        "33% on chess 0, chess 1, chess 2, chess 3, chess 4. Notes: instruction-tuned."
    )


def test_the_name_is_no_part_of_a_capability() -> None:
    assert "secret" not in capability_text(PROFILE, TEST)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_order_changes_the_order_alone(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(3)
    text = capability_text(PROFILE, TEST, order.tolist(), notes=False)
    assert sorted(text.replace("The model achieves accuracy ", "").rstrip(".").split("; ")) == sorted(
        capability_text(PROFILE, TEST, notes=False).replace("The model achieves accuracy ", "").rstrip(".").split("; ")
    )
    assert capability_text(PROFILE, TEST, [2, 1, 0]).index("chess") < capability_text(PROFILE, TEST).index("chess")


def test_nothing_measured_leaves_the_notes() -> None:
    unknown = CapabilityProfile("m", {"algebra": 0}, {"algebra": 0}, notes="128k context")
    assert capability_text(unknown, TEST) == "Notes: 128k context."
    assert capability_text(unknown, TEST, notes=False) == ""


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3]])
def test_what_is_no_permutation_is_refused(order: list[int]) -> None:
    with pytest.raises(ProfileError, match="permutation"):
        capability_text(PROFILE, TEST, order)
