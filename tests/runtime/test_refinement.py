"""Refining candidates by graded answers: the arithmetic, and that every executor scores what was fitted. Seed 61."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine import Engine
from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.aptitude.uncertainty import TaskPrior, draw_profiles
from modelsat_engine.errors import BundleError, CandidateError, DataError, ProfileError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.onnx import export_router
from modelsat_engine.export.quantization import quantize_network
from modelsat_engine.runtime.instruction import Instruction
from modelsat_engine.runtime.mixed_effects import Answers
from modelsat_engine.runtime.refinement import Axes, HeldOut, fit_axes, measure, refine, require_axes
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


@pytest.fixture
def zoo(bundle: Bundle) -> list[CapabilityProfile]:
    return [tiny_profile(f"model-{seed}", seed, bundle.aptitude_test) for seed in (2, 3, 4)]


def answered(
    bundle: Bundle, zoo: list[CapabilityProfile], instructions: list[str], shared: float = 0.0, own: float = 0.0
) -> np.ndarray:
    """Every candidate's answers ``[M, N]`` in a traffic that is harder for all, and on axis 1 for the first alone."""
    offset, features = measure(bundle, zoo, instructions)
    moved = offset + shared * features[:, :1] / features[:, 0].std()
    moved[:, 0] += own * features[:, 1] / features[:, 1].std()
    return (np.random.default_rng(SEED).random(moved.shape) < 1 / (1 + np.exp(-moved))).T


def refinements(profiles: Iterable[CapabilityProfile]) -> list[Refinement]:
    found = [profile.refinement for profile in profiles]
    assert all(refinement is not None for refinement in found)
    return found  # type: ignore[return-value]


def test_what_one_candidate_shows_of_the_traffic_holds_for_all(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    instructions = texts(301)
    right = answered(bundle, zoo, instructions, shared=3.0)
    result = refine(zoo, instructions, ["model-3"] * 301, right[1], bundle=bundle)
    assert result.helps
    assert list(result.by_candidate) == ["model-3"]
    assert [refinement.answers for refinement in refinements(result.profiles)] == [0, 301, 0]
    assert refinements(result.profiles)[0].shared == refinements(result.profiles)[2].shared
    offset, _ = measure(bundle, zoo, instructions)
    after, _ = measure(bundle, result.profiles, instructions)
    accuracy = right[2].mean()
    before_gap, gap = (abs(accuracy - (1 / (1 + np.exp(-values[:, 2]))).mean()) for values in (offset, after))
    assert gap < 0.06 < 0.1 < before_gap


def test_what_is_shared_never_changes_who_is_best(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    shared = tuple(np.random.default_rng(SEED).normal(size=AXES).tolist())
    refined = [
        dataclasses.replace(profile, refinement=Refinement("sha256:drawn", (0.0,) * AXES, 0, shared)) for profile in zoo
    ]
    instructions = texts(97)
    before, after = (measure(bundle, profiles, instructions)[0] for profiles in (zoo, refined))
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after - before, np.repeat((after - before)[:, :1], 3, axis=1), atol=2e-3)


def test_a_refinement_replaces_the_one_before(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    instructions = texts(302)
    right = answered(bundle, zoo, instructions, shared=1.0, own=3.0)
    who = [profile.name for profile in zoo for _ in range(151)]

    def given(part: slice) -> tuple[list[str], list[str], np.ndarray]:
        return instructions[part] * 3, who, right[:, part].ravel()

    first = refine(zoo, *given(slice(0, 151)), bundle=bundle)
    second = refine(first.profiles, *given(slice(151, 302)), bundle=bundle)
    assert second == refine(zoo, *given(slice(151, 302)), bundle=bundle)
    assert first.total.answers == second.total.answers == 453
    assert [refinement.answers for refinement in refinements(second.profiles)] == [151] * 3
    offset, features = measure(bundle, zoo, instructions[151:])
    answers = Answers.of_outcomes(right[:, 151:].T.astype(np.int8))
    effects = fit_axes(require_axes(bundle), features, offset, answers)
    for column, refinement in enumerate(refinements(second.profiles)):
        np.testing.assert_allclose(refinement.values, effects.own[column], atol=1e-4)
        np.testing.assert_allclose(refinement.shared, effects.shared, atol=1e-4)
    assert first.helps
    assert first.by_candidate["model-2"].log_loss_after < first.by_candidate["model-2"].log_loss_before


def test_one_instruction_of_several_candidates_is_in_one_fold(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    """Answers that only their instruction explains: seen in another fold, they would be predicted well."""
    rng = np.random.default_rng(SEED)
    instructions = texts(41)
    right = np.repeat(rng.random((1, 41)) < 0.5, 3, axis=0)
    result = refine(zoo, instructions * 3, np.repeat([p.name for p in zoo], 41).tolist(), right.ravel(), bundle=bundle)
    assert result.total.log_loss_after > 0.66


def test_conversations_and_repeated_answers_count(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    instructions: list[Instruction] = [
        *texts(11),
        [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}],
    ]
    result = refine(zoo, instructions * 2, ["model-2"] * 24, [True] * 12 + [False] * 12, bundle=bundle)
    assert result.total.answers == 24
    assert result.total.accuracy == 0.5


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.35), (-2.0, 1.6, 2.2)])
def test_known_traffic_is_left_alone_and_other_traffic_is_not(shift: float, least: float, most: float) -> None:
    rng = np.random.default_rng(SEED)
    features = np.column_stack([np.ones(120), rng.normal(size=(120, AXES - 1))])
    offset = rng.normal(size=(120, 3))
    outcomes = (rng.random(offset.shape) < 1 / (1 + np.exp(-(offset + shift)))).astype(np.int8)
    effects = fit_axes(Axes("drawn", np.full(AXES, 0.003)), features, offset, Answers.of_outcomes(outcomes))
    assert least <= abs(effects.shared[0]) <= most
    assert np.abs(effects.shared[1:]).max() < 0.2


def test_answers_as_the_router_expects_them_do_not_help(bundle: Bundle, zoo: list[CapabilityProfile]) -> None:
    instructions = texts(200)
    right = answered(bundle, zoo, instructions)
    result = refine(zoo, instructions, ["model-2"] * 200, right[0], bundle=bundle)
    assert not result.helps
    assert result.total.log_loss_after == pytest.approx(result.total.log_loss_before, abs=0.03)


def test_chance_is_seldom_taken_for_help() -> None:
    """Gains that are noise: of many logs, as many help as a normal deviate is beyond one standard error."""
    rng = np.random.default_rng(SEED)
    helped = []
    for _ in range(400):
        rows = np.repeat(np.arange(60), 3)  # three answers an instruction, which go together
        before = np.repeat(rng.normal(size=60), 3)
        noise = np.repeat(rng.normal(scale=0.5, size=60), 3)
        right = (rng.random(180) < 1 / (1 + np.exp(-before - noise / 2))).astype(np.int8)  # halfway between both
        helped.append(HeldOut.of(before, before + noise, right, rows).better)
    assert 0.10 < np.mean(helped) < 0.22


def test_a_candidate_that_joins_a_refined_zoo_takes_what_all_share(
    bundle: Bundle, zoo: list[CapabilityProfile]
) -> None:
    shared = tuple(np.random.default_rng(SEED).normal(size=AXES).tolist())
    alike = Refinement("sha256:drawn", (0.0,) * AXES, 0, shared)
    refined = dataclasses.replace(zoo[0], refinement=Refinement("sha256:drawn", (1.0,) * AXES, 20, shared))
    with Engine.load(bundle, zoo=[refined]) as engine:
        engine.candidates.add(zoo[1])
        assert engine.candidates["model-2"] == refined
        assert engine.candidates["model-3"].refinement == alike
        engine.candidates.replace(zoo[0])
        assert engine.candidates["model-2"].refinement == alike
        engine.candidates.replace_all(zoo)
        assert list(engine.candidates.profiles) == zoo
        engine.candidates.remove("model-2")
        engine.candidates.add(refined)
        assert engine.candidates["model-2"].refinement == Refinement("sha256:drawn", (1.0,) * AXES, 20)


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


def test_what_cannot_be_learned_from_is_refused(
    bundle: Bundle, profile: CapabilityProfile, zoo: list[CapabilityProfile], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="at least 10"):
        refine([profile], texts(9), ["mine"] * 9, [True] * 9, bundle=bundle)
    with pytest.raises(DataError, match="answers to 9 different instructions are too few"):
        refine([profile], texts(9) * 4, ["mine"] * 36, [True] * 36, bundle=bundle)
    with pytest.raises(DataError, match="one right"):
        refine([profile], texts(12), ["mine"] * 12, [True] * 11 + [[True]], bundle=bundle)  # type: ignore[list-item]
    with pytest.raises(DataError, match="one right"):
        refine([profile], texts(12), ["mine"] * 12, [True] * 11, bundle=bundle)
    with pytest.raises(DataError, match="one right"):
        refine([profile], texts(12), ["mine"] * 12, np.full(12, np.nan), bundle=bundle)
    with pytest.raises(DataError, match="one candidate"):
        refine([profile], texts(12), ["mine"] * 11, [True] * 12, bundle=bundle)
    with pytest.raises(CandidateError, match="no candidate is called 'yours'"):
        refine([profile], texts(12), ["mine"] * 11 + ["yours"], [True] * 12, bundle=bundle)
    with pytest.raises(CandidateError, match="share a name"):
        refine([profile, profile], texts(12), ["mine"] * 12, [True] * 12, bundle=bundle)
    plain = write_random_bundle(tmp_path / "plain", relevance_hidden=13)
    with pytest.raises(BundleError, match="no axes"):
        refine([profile], texts(12), ["mine"] * 12, [True] * 12, bundle=plain)
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
