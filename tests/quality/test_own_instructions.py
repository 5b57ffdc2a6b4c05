"""What a router that routes must know, on instructions of our own: needs no data, so it always runs.

Outcomes of real models on these instructions do not exist. But some answers are right by construction: a strong model
is right more often than a weak one, whoever was good at mathematics in the aptitude test is the one to ask for
mathematics, and a school question is easier than a specialist's. A bundle whose weights, calibration, tokenizer or
capability path is broken fails here; how good it is, test_sample.py measures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from modelsat_engine import CapabilityProfile, Engine
from modelsat_engine.evaluation.metrics import pooled_auc
from modelsat_engine.export.bundle import MANIFEST_NAME, SHIPPED_BUNDLE
from tests.quality.instructions import EASY_AND_HARD, HUMANITIES, QUANTITATIVE

pytestmark = pytest.mark.skipif(
    not (SHIPPED_BUNDLE / MANIFEST_NAME).is_file(), reason="this checkout has no shipped router yet"
)

QUANTITATIVE_WORDS = (
    "mathematics",
    "algebra",
    "physics",
    "statistics",
    "engineering",
    "computer",
    "geometry",
    "math_l5",
)
HUMANITIES_WORDS = ("history", "law", "philosophy", "religions", "government", "moral", "sociology")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load() as engine:
        yield engine


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return [*QUANTITATIVE, *HUMANITIES, *(text for pair in EASY_AND_HARD for text in pair)]


def test_candidates_are_ranked_by_what_they_showed(engine: Engine, everything: list[str]) -> None:
    zoo = {profile.name: profile.accuracy for profile in engine.bundle.zoo}
    accuracy = np.array([zoo[name] for name in engine.candidates.names])
    mean = engine.score(everything).mean(0)
    correlation = _rank_correlation(mean, accuracy)
    print(f"rank correlation {correlation:.3f}")
    assert correlation >= 0.9
    weaker, stronger = accuracy < np.median(accuracy), accuracy > np.median(accuracy)
    assert mean[stronger].min() > mean[weaker].max()


def test_a_specialist_is_asked_for_its_subject(engine: Engine) -> None:
    """Two candidates of nearly equal overall accuracy, opposite in what they are good at."""
    texts = [*QUANTITATIVE, *HUMANITIES]
    calculator = _specialist(engine, "calculator", good=QUANTITATIVE_WORDS, poor=HUMANITIES_WORDS)
    scholar = _specialist(engine, "scholar", good=HUMANITIES_WORDS, poor=QUANTITATIVE_WORDS)
    with Engine.load(engine.bundle.path, zoo=[calculator, scholar]) as two:
        P = two.score(texts)
    is_quantitative = np.arange(len(texts)) < len(QUANTITATIVE)
    preference = P[:, 0] - P[:, 1]
    area = pooled_auc(preference[:, None], is_quantitative.astype(np.int8)[:, None])
    right = float(((preference > 0) == is_quantitative).mean())
    print(f"AUC of the preference {area:.3f}, right choices {right:.3f}")
    assert area >= 0.9
    assert right >= 0.8


def test_school_questions_are_easier_than_those_for_specialists(engine: Engine) -> None:
    easy = engine.score([pair[0] for pair in EASY_AND_HARD]).mean(1)
    hard = engine.score([pair[1] for pair in EASY_AND_HARD]).mean(1)
    share = float((easy > hard).mean())
    print(f"easier one preferred in {share:.3f} of pairs, mean {easy.mean():.3f} against {hard.mean():.3f}")
    assert share >= 0.75
    assert easy.mean() - hard.mean() >= 0.1


def test_probabilities_are_neither_certain_nor_all_the_same(engine: Engine, everything: list[str]) -> None:
    P = engine.score(everything)
    print(f"mean {P.mean():.3f}, over instructions {P.mean(1).std():.3f}, over candidates {P.mean(0).std():.3f}")
    assert 0.15 < P.mean() < 0.85
    assert P.min() > 0.002
    assert P.max() < 0.998
    assert P.mean(1).std() > 0.05
    assert P.mean(0).std() > 0.05


def _specialist(engine: Engine, name: str, good: tuple[str, ...], poor: tuple[str, ...]) -> CapabilityProfile:
    """17 of 20 right on the tasks of some words, 5 on those of others, half on the rest."""
    correct, total = {}, {}
    matched = {True: 0, False: 0}
    for task in engine.bundle.aptitude_test.tasks:
        total[task.name] = len(task.item_ids)
        is_good, is_poor = (any(word in task.name.lower() for word in words) for words in (good, poor))
        share = 0.85 if is_good else 0.25 if is_poor else 0.5
        matched[is_good] += is_good
        correct[task.name] = round(share * len(task.item_ids))
    assert matched[True] >= 5, "the aptitude test no longer covers what the specialists differ in"
    return CapabilityProfile(name, correct=correct, total=total)


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, for values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])
