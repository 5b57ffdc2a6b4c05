"""What must hold on the real outcomes, which lie beside a checkout and are not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.aptitude.building import build_reference_test, default_zoo
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import ModelGroups, Split

DATA = Path(os.environ.get("MODELSAT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="no outcome data; set MODELSAT_DATA to its directory"),
]


@pytest.fixture(scope="module")
def real() -> OutcomeData:
    return OutcomeData.load(DATA)


def test_panels_join_as_described(real: OutcomeData) -> None:
    assert real.Y.shape == (75, 20097)
    benchmarks = real.questions.benchmark
    known = {name: int(real.known[:, benchmarks == name].any(1).sum()) for name in np.unique(benchmarks)}
    assert known == {"mmlu_pro": 75, "bbh": 47, "math_l5": 49, "ifeval": 49, "musr": 47, "gsm8k": 12}


@pytest.mark.parametrize("seed", range(5))
def test_the_reference_test_and_split_fit_every_seed(real: OutcomeData, seed: int) -> None:
    test = build_reference_test(real, seed)
    assert len(test.tasks) == 50
    assert all(len(task.item_ids) == 20 and len(task.keywords) == 5 for task in test.tasks)
    split = Split.make(real, test, seed)
    assert len(split.train) > 10_000
    assert len(split.test) > 2_000
    assert 12 <= len(split.new_rows) <= 20
    families = {row: real.families[row] for row in range(75)}
    assert not {families[r] for r in split.new_rows} & {families[r] for r in split.seen_rows}


def test_the_default_zoo_is_priced_and_ranked_like_the_outcomes(real: OutcomeData) -> None:
    zoo = default_zoo(real, build_reference_test(real, 0))
    assert len(zoo) == 10
    assert all(profile.usd_per_million_tokens is not None for profile in zoo)
    accuracy = {profile.name: profile.accuracy for profile in zoo}
    assert accuracy["Llama-3.1-70B-Instruct"] > accuracy["Mixtral-8x7B-Instruct-v0.1"] > accuracy["gemma-2b-it"]


def test_strength_matches_the_published_accuracies(real: OutcomeData) -> None:
    """The published figures cover 12,032 questions; the panel holds 11,130 of them."""
    strength = dict(zip(real.model_keys, real.strength, strict=True))
    assert strength["mmlu_pro_cot/Llama-2-7b-hf"] == pytest.approx(0.1834, abs=0.01)
    assert strength["olb2/Qwen/Qwen2-72B-Instruct"] == pytest.approx(0.5403, abs=0.01)
    groups = ModelGroups.make(real, 0)
    gap = np.mean([strength[k] for k in groups.seen]) - np.mean([strength[k] for k in groups.new])
    assert abs(gap) < 0.06
