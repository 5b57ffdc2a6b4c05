"""The shipped router end to end: its probabilities depend on the instruction and the candidate, and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from modelsat_engine import CheapestAbove, Engine, MaximumUtility
from modelsat_engine.export.bundle import MANIFEST_NAME, SHIPPED_BUNDLE

pytestmark = pytest.mark.skipif(
    not (SHIPPED_BUNDLE / MANIFEST_NAME).is_file(), reason="this checkout has no shipped router yet"
)

# fp32 in ONNX Runtime: the sums of a row may be taken in another order when the shape of the batch differs
TOLERANCE = 1e-5
TEXTS = [
    "Prove that the square root of 2 is irrational.",
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Which enzyme unwinds DNA during replication? (A) ligase (B) helicase (C) primase (D) gyrase",
    "hi",
    "Three machines make 90 parts in 2 hours. How many parts do 5 machines make in 7 hours? " * 3,
    "שלום! 你好! 😀",
    "for (int i = 0; i < n; ++i) sum += a[i] * b[i]; // what is the complexity?",
    "the " * 3000,
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load() as engine:
        yield engine


@pytest.fixture(scope="module")
def scores(engine: Engine) -> np.ndarray:
    return engine.score(TEXTS)


def test_scores_are_probabilities_that_tell_instructions_and_candidates_apart(scores: np.ndarray) -> None:
    assert scores.shape[0] == len(TEXTS)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores.std(axis=0).min() > 1e-3
    assert scores.std(axis=1).min() > 1e-3


def test_a_score_is_the_same_alone_in_a_batch_and_in_any_order(engine: Engine, scores: np.ndarray) -> None:
    alone = np.concatenate([engine.score([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, scores, atol=TOLERANCE)
    order = np.random.default_rng(4).permutation(len(TEXTS) * 2) % len(TEXTS)
    np.testing.assert_allclose(engine.score([TEXTS[i] for i in order]), scores[order], atol=TOLERANCE)


@pytest.mark.parametrize("columns", [[0], [2, 0], [1], list(range(7, -1, -1))], ids=str)
def test_a_candidate_does_not_depend_on_the_others(engine: Engine, scores: np.ndarray, columns: list[int]) -> None:
    columns = [column for column in columns if column < scores.shape[1]]
    zoo = [engine.bundle.zoo[column] for column in columns]
    with Engine.load(engine.bundle, zoo=zoo) as other:
        np.testing.assert_allclose(other.score(TEXTS), scores[:, columns], atol=TOLERANCE)


def test_a_candidate_that_joins_later_scores_as_if_it_had_been_there(engine: Engine, scores: np.ndarray) -> None:
    with Engine.load(engine.bundle, zoo=engine.bundle.zoo[1:]) as other:
        other.candidates.add(engine.bundle.zoo[0])
        np.testing.assert_allclose(np.roll(other.score(TEXTS), 1, axis=1), scores, atol=TOLERANCE)


def test_threads_change_nothing(engine: Engine, scores: np.ndarray) -> None:
    with Engine.load(engine.bundle, threads=2) as other:
        np.testing.assert_allclose(other.score(TEXTS), scores, atol=TOLERANCE)


def test_the_shipped_zoo_routes_by_every_policy(engine: Engine) -> None:
    priced = [profile for profile in engine.bundle.zoo if profile.usd_per_million_tokens is not None]
    assert len(priced) == len(engine.bundle.zoo), "a default zoo with prices serves every policy"
    for policy in (None, CheapestAbove(0.5), MaximumUtility(0.01)):
        decision = engine.route(TEXTS[0], policy=policy)
        assert decision.candidate in engine.candidates
    assert engine.route(TEXTS[-1]).truncated


def test_routing_loads_no_training_library() -> None:
    code = (
        "import sys; from modelsat_engine import Engine; Engine.load().route('why?'); "
        "print([name for name in ('torch', 'onnx', 'sklearn', 'pyarrow', 'click') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
