"""Refining candidates by graded answers: the arithmetic, and that every executor scores what was fitted. Seed 61."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine import Engine
from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.aptitude.uncertainty import TaskPrior, draw_profiles
from modelsat_engine.errors import BundleError, DataError, ProfileError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.onnx import export_router
from modelsat_engine.export.quantization import quantize_network
from modelsat_engine.runtime.refinement import Axes, fit, measure, posterior, refine
from tests.export.random_bundle import random_network, write_random_bundle
from tests.runtime.tiny_bundle import tiny_profile

SEED, AXES = 61, 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With a graph of its own, so that ONNX Runtime can run it as well."""
    kind = {"relevance_hidden": 13, "refinement_axes": AXES}
    path = write_random_bundle(tmp_path_factory.mktemp("axes") / "bundle", **kind).path
    network = random_network(**kind)
    quantize_network(network)
    export_router(network, path)
    write_manifest(path)
    return Bundle.load(path)


@pytest.fixture
def profile(bundle: Bundle) -> CapabilityProfile:
    return tiny_profile("mine", 2, bundle.aptitude_test)


def texts(count: int, seed: int = SEED) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(count)]


def logits(P: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.log(P.astype(np.float64)) - np.log1p(-P.astype(np.float64))
    return values


def test_a_fit_finds_what_made_the_answers() -> None:
    rng = np.random.default_rng(SEED)
    features, offset = rng.normal(size=(20_001, 3)), rng.normal(size=20_001)
    true = np.array([0.8, -0.5, 0.0])
    right = rng.random(len(offset)) < 1 / (1 + np.exp(-(offset + features @ true)))
    theta, covariance = posterior(features, offset, right, np.full(3, 10.0))
    assert np.abs(theta - true).max() < 4 * np.sqrt(np.diag(covariance)).max()
    assert np.sqrt(np.diag(covariance)).max() < 0.03


def test_few_answers_hardly_move_a_candidate() -> None:
    rng = np.random.default_rng(SEED)
    features, offset, right = rng.normal(size=(11, 4)), np.zeros(11), np.ones(11)
    tight, wide = (np.abs(fit(features, offset, right, np.full(4, variance))).max() for variance in (1e-3, 10.0))
    assert tight < 0.02 < 0.2 < wide
    assert not fit(features[:0], offset[:0], right[:0], np.ones(4)).any()


@pytest.mark.parametrize("executor", ["native", "onnxruntime"])
def test_a_refinement_moves_the_logit_by_its_axes(bundle: Bundle, profile: CapabilityProfile, executor: str) -> None:
    theta = np.random.default_rng(SEED).normal(size=AXES).astype(np.float32)
    refined = dataclasses.replace(profile, refinement=Refinement("sha256:drawn", tuple(theta.tolist()), 40))
    instructions = texts(13)
    offset, features = measure(bundle, [profile], instructions, executor=executor)
    with Engine.load(bundle, zoo=[refined], executor=executor) as engine:
        scored = logits(engine.score(instructions))[:, 0]
    assert np.abs(features).max() > 0.1
    np.testing.assert_allclose(scored, offset[:, 0] + features @ theta, atol=2e-3)


def test_refined_twice_is_refined_by_all_answers(bundle: Bundle, profile: CapabilityProfile) -> None:
    instructions = texts(301)
    _, features = measure(bundle, [profile], instructions)
    rng = np.random.default_rng(SEED)
    right = rng.random(len(instructions)) < 1 / (1 + np.exp(-3 * features[:, 1] / features[:, 1].std()))
    first = refine(profile, instructions[:150], right[:150], bundle=bundle)
    second = refine(first.profile, instructions[150:], right[150:], bundle=bundle)
    assert first.helps
    assert (first.answers, second.answers) == (150, 151)
    assert second.profile.refinement is not None
    assert second.profile.refinement.answers == 301
    assert first.profile.refinement is not None
    offset, features = measure(bundle, [first.profile], instructions[150:])
    more = fit(features, offset[:, 0], right[150:], np.full(AXES, 0.5))
    built_upon = np.array(first.profile.refinement.values) + more
    np.testing.assert_allclose(second.profile.refinement.values, built_upon, atol=1e-4)
    assert second.log_loss_before < first.log_loss_before
    assert abs(second.predicted_before - second.accuracy) < 0.12
    afresh = refine(first.profile, instructions[150:], right[150:], bundle=bundle, afresh=True)
    assert afresh.profile.refinement is not None
    assert afresh.profile.refinement.answers == 151
    assert afresh.log_loss_before > second.log_loss_before


def test_answers_as_the_router_expects_them_do_not_help(bundle: Bundle, profile: CapabilityProfile) -> None:
    instructions = texts(200)
    offset, _ = measure(bundle, [profile], instructions)
    right = np.random.default_rng(SEED).random(200) < 1 / (1 + np.exp(-offset[:, 0]))
    result = refine(profile, instructions, right, bundle=bundle)
    assert not result.helps
    assert result.log_loss_after == pytest.approx(result.log_loss_before, abs=0.03)


def test_intervals_keep_the_refinement(bundle: Bundle, profile: CapabilityProfile) -> None:
    refined = dataclasses.replace(profile, refinement=Refinement("sha256:drawn", (3.0, 0.0, 0.0, 0.0, 0.0), 40))
    with Engine.load(bundle, zoo=[refined]) as engine:
        decision = engine.route(texts(1)[0], interval=0.9)
    assert decision.intervals is not None
    low, high = decision.intervals["mine"]
    plain, features = measure(bundle, [profile], texts(1))
    moved = 1 / (1 + np.exp(-(plain[0, 0] + 3 * features[0, 0])))
    assert low <= moved <= high
    with Engine.load(bundle, zoo=[profile]) as engine:
        unrefined = engine.route(texts(1)[0], interval=0.9).intervals
    assert unrefined is not None
    width = [np.diff(logits(np.array(ends)))[0] for ends in ((low, high), unrefined["mine"])]
    assert width[0] == pytest.approx(width[1], rel=0.05)
    draws = draw_profiles(refined, bundle.aptitude_test, TaskPrior.from_profiles([profile], bundle.aptitude_test, 8.0))
    assert all(draw.refinement == refined.refinement for draw in draws)


def test_a_candidate_refined_for_another_router_counts_as_it_was(
    bundle: Bundle, profile: CapabilityProfile, caplog: pytest.LogCaptureFixture
) -> None:
    strange = dataclasses.replace(profile, refinement=Refinement("sha256:other", (1.0,) * AXES, 40))
    with caplog.at_level(logging.WARNING), Engine.load(bundle, zoo=[strange]) as engine:
        scored = engine.score(texts(3))
        engine.route(texts(1)[0], interval=0.9)
    assert [record.getMessage() for record in caplog.records] == [
        "candidate mine was refined for another router; it counts as not refined until you refine it again"
    ]
    with Engine.load(bundle, zoo=[profile]) as engine:
        np.testing.assert_array_equal(scored, engine.score(texts(3)))


def test_a_replaced_refinement_is_scored(bundle: Bundle, profile: CapabilityProfile) -> None:
    refined = dataclasses.replace(profile, refinement=Refinement("sha256:drawn", (2.0,) * AXES, 40))
    with Engine.load(bundle, zoo=[profile]) as engine:
        before = engine.score(texts(1))
        engine.candidates.replace_all([refined])
        assert not np.array_equal(engine.score(texts(1)), before)
        engine.candidates.replace(profile)
        np.testing.assert_array_equal(engine.score(texts(1)), before)


def test_what_cannot_be_learned_from_is_refused(bundle: Bundle, profile: CapabilityProfile, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 10"):
        refine(profile, texts(9), [True] * 9, bundle=bundle)
    with pytest.raises(DataError, match="one right"):
        refine(profile, texts(12), [True] * 11, bundle=bundle)
    with pytest.raises(DataError, match="one right"):
        refine(profile, texts(12), np.full(12, np.nan), bundle=bundle)
    with pytest.raises(BundleError, match="no axes"):
        refine(profile, texts(12), [True] * 12, bundle=write_random_bundle(tmp_path / "plain", relevance_hidden=13))
    short = dataclasses.replace(profile, refinement=Refinement("sha256:drawn", (1.0,), 40))
    with pytest.raises(ProfileError, match="1 values"):
        Engine.load(bundle, zoo=[short])


@pytest.mark.parametrize(
    "described",
    [None, {}, {"axes": "a"}, {"axes": "a", "prior_variance": [1.0]}, {"axes": "a", "prior_variance": [1.0, 0.0]}],
)
def test_axes_that_are_not_described_are_refused(described: object) -> None:
    with pytest.raises(BundleError, match="export it again"):
        Axes.of({"refinement_axes": 2, "refinement": described})
    assert Axes.of({"refinement": described}) is None
