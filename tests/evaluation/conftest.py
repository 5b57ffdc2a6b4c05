"""Fixtures of the evaluation's tests: one set of invented outcomes with its test and split."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import Split
from tests.evaluation.synthetic import synthetic_outcomes, synthetic_test

SEED = 5


@pytest.fixture(scope="session")
def outcomes() -> tuple[OutcomeData, np.ndarray]:
    print(f"synthetic outcomes of seed {SEED}")
    return synthetic_outcomes(SEED)


@pytest.fixture(scope="session")
def data(outcomes: tuple[OutcomeData, np.ndarray]) -> OutcomeData:
    return outcomes[0]


@pytest.fixture(scope="session")
def embedding(outcomes: tuple[OutcomeData, np.ndarray]) -> np.ndarray:
    """float32 [Q, D]: the topics that decide who answers what."""
    return outcomes[1]


@pytest.fixture(scope="session")
def aptitude_test(data: OutcomeData) -> AptitudeTest:
    return synthetic_test(data, SEED)


@pytest.fixture(scope="session")
def split(data: OutcomeData, aptitude_test: AptitudeTest) -> Split:
    return Split.make(data, aptitude_test, SEED)
