"""Recomputes the shipped router's AUC on a committed sample of real outcomes and compares it with its record.

Ids and outcomes are committed, texts are not: they are read from MODELSAT_DATA, or from ``../shared/data`` beside the
checkout. Without them there is nothing to route and the recomputation is skipped; what the sample itself must be is
tested always.

The record is ``quality`` in router.json or, where that is empty, benchmarks/results/quality_mini.json. It was measured
on all test questions, the sample is a tenth of them: the two may differ by three standard errors of the sample's AUC,
from a bootstrap over its questions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.evaluation.metrics import expected_calibration_error, pooled_auc
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.router import router_probabilities
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scenarios import aptitude_accuracy
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import MANIFEST_NAME, SHIPPED_BUNDLE, Bundle
from tests.quality.draw_sample import SAMPLE, SIGNS

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MODELSAT_DATA", ROOT.parent / "shared" / "data"))
RECORD = ROOT / "benchmarks" / "results" / "quality_mini.json"
STANDARD_ERRORS = 3.0
RESAMPLES = 200
SEED = 17

needs_router = pytest.mark.skipif(
    not (SHIPPED_BUNDLE / MANIFEST_NAME).is_file(), reason="this checkout has no shipped router yet"
)
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"question texts are not part of the repository and not at {DATA}; set MODELSAT_DATA"
)


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    return dict(json.loads(SAMPLE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def record() -> Mapping[str, Any]:
    """Scenario -> its recorded result."""
    quality = Bundle.load().config.get("quality") or json.loads(RECORD.read_text(encoding="utf-8"))
    scenarios: Mapping[str, Any] = quality["scenarios"]
    return scenarios


def test_the_sample_is_facts_only(sample: dict[str, Any]) -> None:
    assert len(set(sample["questions"])) == len(sample["questions"]) >= 200
    assert len(sample["outcomes"]) >= 20
    for outcomes in sample["outcomes"].values():
        assert len(outcomes) == len(sample["questions"])
        assert set(outcomes) <= set(SIGNS.values())
    assert all(len(question) < 100 and " " not in question for question in sample["questions"]), "ids, no text"


@needs_router
def test_the_record_claims_what_the_router_is_for(record: Mapping[str, Any]) -> None:
    """Whoever ships a bundle ships a record that is better than knowing the candidates' overall accuracy."""
    for name in ("seen_models", "new_models"):
        predictions = record[name]["predictions"]
        for metric in ("auc", "auc_per_model"):
            assert predictions["router"][metric]["mean"] > predictions["aptitude_accuracy"][metric]["mean"] + 0.05
        assert predictions["router"]["ece"]["mean"] < 0.05


@dataclass(frozen=True)
class Recomputed:
    """The shipped router on the sample.

    Attributes:
        P: float32 ``[q, m]``, for seen and new models.
        Y: int8 ``[q, m]``, from the committed outcomes.
        aptitude: float64 ``[m]``.
        positions: seen_models, new_models -> positions among the m models.
    """

    P: np.ndarray
    Y: np.ndarray
    aptitude: np.ndarray
    positions: Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def recomputed(sample: dict[str, Any]) -> Recomputed:
    data, bundle = OutcomeData.load(DATA), Bundle.load()
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    # Another bundle may have another aptitude test, whose items are not fair to ask.
    columns = np.intersect1d(data.columns(sample["questions"]), split.test)
    assert len(columns) > 0.8 * len(sample["questions"]), "draw the sample again: python -m tests.quality.draw_sample"
    place = {question: index for index, question in enumerate(sample["questions"])}
    value = {sign: y for y, sign in SIGNS.items()}
    rows = np.concatenate([split.seen_rows, split.new_rows])
    of_row = [sample["outcomes"][data.model_keys[row]] for row in rows]
    Y = np.array([[value[one[place[data.questions.id[column]]]] for one in of_row] for column in columns], np.int8)
    np.testing.assert_array_equal(Y, data.Y.T[np.ix_(columns, rows)])
    profiles = profiles_from_outcomes(data, bundle.aptitude_test, rows)
    P = router_probabilities(bundle, profiles, [data.questions.instruction[column] for column in columns])
    seen = np.arange(len(split.seen_rows))
    positions = {"seen_models": seen, "new_models": np.arange(len(seen), len(rows))}
    return Recomputed(P, Y, aptitude_accuracy(data, bundle.aptitude_test)[rows], positions)


@pytest.mark.data
@pytest.mark.slow
@needs_router
@needs_data
@pytest.mark.parametrize("group", ["seen_models", "new_models"])
def test_the_auc_recomputed_is_the_auc_recorded(recomputed: Recomputed, record: Mapping[str, Any], group: str) -> None:
    some_models = recomputed.positions[group]
    P, Y = recomputed.P[:, some_models], recomputed.Y[:, some_models]
    auc = pooled_auc(P, Y)
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(0, len(Y), len(Y)) for _ in range(RESAMPLES)]
    error = float(np.std([pooled_auc(P[some], Y[some]) for some in draws]))
    recorded = record[group]["predictions"]["router"]["auc"]["mean"]
    baseline = pooled_auc(np.tile(recomputed.aptitude[some_models], (len(Y), 1)), Y)
    print(
        f"{group}: AUC {auc:.4f} on {len(Y)} questions, standard error {error:.4f} (seed {SEED}), recorded "
        f"{recorded:.4f}, aptitude accuracy alone {baseline:.4f}, ECE {expected_calibration_error(P, Y):.4f}"
    )
    assert abs(auc - recorded) <= STANDARD_ERRORS * error
    assert auc > baseline + 0.05
