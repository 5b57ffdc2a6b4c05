"""Ranges of a probability: in the same pass, wide where answers are few, and nothing else changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from modelsat_engine import CapabilityProfile
from modelsat_engine.aptitude.uncertainty import DRAWS
from modelsat_engine.errors import OptionError
from modelsat_engine.export.bundle import SHIPPED_BUNDLE, Bundle
from modelsat_engine.runtime.engine import Engine
from modelsat_engine.runtime.intervals import bounds, student_quantile, task_prior
from tests.runtime.tiny_bundle import tiny_profile

QUESTIONS = [
    "What is a tort, and who may sue for it?",
    "Prove that the square root of 2 is irrational.",
    "Which amino acid substitution causes sickle cell disease?",
    "Why did the Roman republic fall?",
]
TEXTS = ["prove that", "what is the square root of two", "a user and a system"]


def test_the_probabilities_and_the_choice_stay_as_they_were(bundle_of_any_memory: Bundle) -> None:
    with Engine.load(bundle_of_any_memory) as engine:
        plain = engine.route_many(TEXTS)
        ranged = engine.route_many(TEXTS, interval=0.9)
        for without, with_range in zip(plain, ranged, strict=True):
            assert with_range.candidate == without.candidate
            assert with_range.probabilities == pytest.approx(without.probabilities, abs=1e-6)
            assert (without.interval, without.intervals) == (None, None)
            assert with_range.interval == 0.9
            assert with_range.intervals is not None
            assert list(with_range.intervals) == list(engine.candidates.names)
            for name, (low, high) in with_range.intervals.items():
                assert 0 <= low <= with_range.probabilities[name] <= high <= 1
                assert low < high


def test_a_range_depends_on_its_candidate_and_the_text_alone(bundle: Bundle) -> None:
    alone = Engine.load(bundle, zoo=[bundle.zoo[1]])
    other_name = Engine.load(bundle, zoo=[bundle.zoo[2], replace(bundle.zoo[1], name="x")])
    with alone, other_name:
        expected = alone.route(TEXTS[0], interval=0.8).intervals
        again = other_name.route_many(TEXTS, interval=0.8)[0].intervals
        assert expected is not None
        assert again is not None
        assert again["x"] == pytest.approx(expected["model-1"], abs=1e-6)


def test_a_higher_level_is_wider(engine: Engine) -> None:
    ranges = [engine.route(TEXTS[0], interval=level).intervals for level in (0.5, 0.8, 0.95)]
    for name in engine.candidates.names:
        ends = [found[name] for found in ranges if found is not None]
        assert [low for low, _ in ends] == sorted((low for low, _ in ends), reverse=True)
        assert [high for _, high in ends] == sorted(high for _, high in ends)


def test_event_loops_get_the_same(engine: Engine) -> None:
    assert (
        asyncio.run(engine.aroute(TEXTS[1], interval=0.9)).intervals == engine.route(TEXTS[1], interval=0.9).intervals
    )


def test_candidates_that_join_later_have_ranges_before_requests_see_them(bundle: Bundle) -> None:
    with Engine.load(bundle) as engine:
        assert engine.candidates.bound.wide is None, "nothing is made that nobody asked for"
        engine.route(TEXTS[0], interval=0.9)
        engine.candidates.add(tiny_profile("new", 11, bundle.aptitude_test))
        wide = engine.candidates.bound.wide
        assert wide is not None
        assert len(wide.table) == 4 * (1 + DRAWS)
        found = engine.route(TEXTS[0], interval=0.9).intervals
        assert found is not None
        assert list(found) == ["model-0", "model-1", "model-2", "new"]


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, float("nan"), "0.9", True])
def test_a_level_that_is_no_share_is_refused(engine: Engine, level: float) -> None:
    with pytest.raises(OptionError, match=r"interval is .*; use how sure it should be"):
        engine.route(TEXTS[0], interval=level)


def test_a_profile_of_few_answers_has_the_wider_range() -> None:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    test = bundle.aptitude_test
    rng = np.random.default_rng(2)
    print("answers drawn with seed 2")
    order = rng.permutation(sorted(test.item_ids)).tolist()
    sizes = (40, 200, 1000)
    zoo = []
    for size in sizes:
        for whole in bundle.zoo:
            assert whole.answers is not None
            some = {item: whole.answers[item] for item in order[:size]}
            zoo.append(CapabilityProfile.from_answers(f"{whole.name} {size}", test, some))
    with Engine.load(bundle, zoo=zoo) as engine:
        decisions = engine.route_many(QUESTIONS, interval=0.9)
    widths = [[high - low for low, high in (decision.intervals or {}).values()] for decision in decisions]
    few, some_answers, all_answers = np.array(widths).reshape(len(QUESTIONS), 3, len(bundle.zoo)).mean((0, 2))
    print(f"mean widths {few:.3f}, {some_answers:.3f}, {all_answers:.3f}")
    assert few > some_answers > all_answers > 0
    assert few > 1.5 * all_answers


def test_bounds_are_a_t_interval_in_logits() -> None:
    logits = np.array([[0.3, -1.0, *np.linspace(-0.2, 0.8, 9), *np.linspace(-1.5, -0.5, 9)]])
    low, high = bounds((1 / (1 + np.exp(-logits))).astype(np.float32), 2, 0.9)
    reach = 1.8595 * np.linspace(-0.2, 0.8, 9).std(ddof=1)
    expected = 1 / (1 + np.exp(-(logits[0, :2, None] + np.array([-reach, reach]))))
    np.testing.assert_allclose(np.stack([low[0], high[0]], 1), expected, atol=1e-4)


def test_bounds_of_certain_draws_stay_in_range() -> None:
    P = np.array([[1.0, 0.0, *[1.0] * 4, *[0.0] * 4]], np.float32)
    low, high = bounds(P, 2, 0.99)
    assert (low <= P[:, :2]).all()
    assert (high >= P[:, :2]).all()
    assert ((low >= 0) & (high <= 1)).all()


@pytest.mark.parametrize(("share", "degrees", "expected"), [(0.95, 15, 1.7531), (0.975, 15, 2.1314), (0.75, 7, 0.7111)])
def test_the_quantile_is_students(share: float, degrees: int, expected: float) -> None:
    assert student_quantile(share, degrees) == pytest.approx(expected, abs=0.002)


def test_the_prior_is_the_routers_own_where_it_says_one(bundle: Bundle) -> None:
    shipped = task_prior(Bundle.load(SHIPPED_BUNDLE))
    assert shipped.difficulty.shape == (50,)
    assert np.ptp(shipped.difficulty) > 0.5
    assert shipped.strength == 8.0
    tiny = task_prior(bundle)
    assert tiny.difficulty.shape == (5,)
    assert np.isfinite(tiny.difficulty).all()
