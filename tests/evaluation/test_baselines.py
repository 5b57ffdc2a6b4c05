"""Baselines predict from what they are allowed to see, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import metrics
from modelsat_engine.evaluation.baselines import (
    BASELINES,
    baseline_predictions,
    best_per_task,
    matrix_factorisation,
    nearest_neighbours,
)
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import Split, task_paths


@pytest.fixture(scope="module")
def predictions(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest, embedding: np.ndarray
) -> dict[str, np.ndarray]:
    return baseline_predictions(data, split, aptitude_test, embedding, split.test)


def test_every_baseline_gives_probabilities_on_the_questions_asked(
    predictions: dict[str, np.ndarray], data: OutcomeData, split: Split
) -> None:
    assert tuple(predictions) == BASELINES
    asked = np.zeros(len(data.questions), bool)
    asked[split.test] = True
    for name, P in predictions.items():
        assert P.shape == data.Y.T.shape, name
        assert np.isnan(P[~asked]).all(), name
        assert ((P[asked] >= 0) & (P[asked] <= 1)).all(), name


def test_topics_help_those_who_may_see_them(
    predictions: dict[str, np.ndarray], data: OutcomeData, split: Split
) -> None:
    def auc(name: str, rows: np.ndarray) -> float:
        cut = np.ix_(split.test, rows)
        return metrics.pooled_auc(predictions[name][cut], data.Y.T[cut])

    for rows in (split.seen_rows, split.new_rows):
        assert auc("aptitude_accuracy", rows) > 0.5
        for name in ("best_per_task", "knn_full_history", "matrix_factorisation"):
            assert auc(name, rows) > auc("aptitude_accuracy", rows) + 0.05, name


def test_new_models_are_known_by_their_aptitude_answers_alone(
    predictions: dict[str, np.ndarray],
    data: OutcomeData,
    split: Split,
    aptitude_test: AptitudeTest,
    embedding: np.ndarray,
) -> None:
    Y = data.Y.copy()
    items = data.columns(aptitude_test.item_ids)
    hidden = np.setdiff1d(np.arange(len(data.questions)), items)
    Y[np.ix_(split.new_rows, hidden)] = np.random.default_rng(1).integers(0, 2, (len(split.new_rows), len(hidden)))
    lied_to = baseline_predictions(replace(data, Y=Y), split, aptitude_test, embedding, split.test)
    for name in ("aptitude_accuracy", "knn_aptitude_answers", "matrix_factorisation"):
        np.testing.assert_array_equal(lied_to[name], predictions[name], err_msg=name)
    assert not np.array_equal(lied_to["knn_full_history"], predictions["knn_full_history"], equal_nan=True)


def test_no_baseline_looks_at_the_outcomes_it_predicts(
    predictions: dict[str, np.ndarray],
    data: OutcomeData,
    split: Split,
    aptitude_test: AptitudeTest,
    embedding: np.ndarray,
) -> None:
    Y = data.Y.copy()
    Y[:, np.concatenate([split.test, split.validation, split.new_datasets])] = -1
    blind = baseline_predictions(replace(data, Y=Y), split, aptitude_test, embedding, split.test)
    for name in BASELINES:
        np.testing.assert_array_equal(blind[name], predictions[name], err_msg=name)


@pytest.mark.parametrize("neighbours", [1, 7])
def test_neighbours_are_the_nearest_by_cosine_that_the_model_answered(
    data: OutcomeData, split: Split, embedding: np.ndarray, neighbours: int
) -> None:
    columns = split.test[:11]
    P = nearest_neighbours(embedding, data.Y, split.train, columns, neighbours)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    for row in (0, 13, 30):
        answered = split.train[data.Y[row, split.train] >= 0]
        similarity = unit[columns] @ unit[answered].T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
        np.testing.assert_allclose(P[:, row], data.Y[row, answered][nearest].mean(1))


def test_fewer_reference_questions_than_neighbours_is_fine(data: OutcomeData, embedding: np.ndarray) -> None:
    Y = data.Y.copy()
    Y[0, :9] = -1  # a model without any reference answer
    P = nearest_neighbours(embedding, Y, np.arange(9), np.arange(20, 25))
    np.testing.assert_allclose(P[:, 0], 0.5)
    known = Y[3, :9][Y[3, :9] >= 0]
    np.testing.assert_allclose(P[:, 3], known.mean())


def test_task_accuracy_is_shrunk_to_the_models_own(data: OutcomeData, split: Split) -> None:
    row, column = 4, int(split.test[0])
    paths = np.array(task_paths(data))
    known = data.Y[row, split.train] >= 0
    own = (data.Y[row, split.train][known] == 1).mean()
    of_task = data.Y[row, split.train[(paths[split.train] == paths[column]) & known]]
    P = best_per_task(data, split.train, np.array([column, split.new_datasets[0]]))
    assert P[0, row] == pytest.approx((of_task.sum() + 10 * own) / (len(of_task) + 10))
    assert P[1, row] == pytest.approx(own), "no history of that task"


def test_factorisation_finds_planted_factors(split: Split, data: OutcomeData) -> None:
    rng = np.random.default_rng(8)
    questions, models = len(data.questions), len(data.model_keys)
    X = rng.standard_normal((questions, 12))
    logits = X[:, :3] @ rng.standard_normal((3, models)) * 1.5 + rng.normal(0, 0.5, models)  # [Q, M]
    truth = 1 / (1 + np.exp(-logits))
    Y = (rng.random(truth.shape) < truth).astype(np.int8).T
    items = np.setdiff1d(np.arange(questions), np.concatenate([split.train, split.test, split.validation]))
    P = matrix_factorisation(X, Y, split.train, items, split.seen_rows, split.test, rank=3)
    for rows in (split.seen_rows, split.new_rows):
        error = np.abs(P[:, rows] - truth[np.ix_(split.test, rows)]).mean()
        assert error < 0.1, f"mean absolute error {error:.3f}"


def test_embeddings_that_do_not_fit_are_refused(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest, embedding: np.ndarray
) -> None:
    with pytest.raises(DataError, match="one row for each"):
        baseline_predictions(data, split, aptitude_test, embedding[:-1], split.test)
    holed = embedding.copy()
    holed[split.train[0], 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        baseline_predictions(data, split, aptitude_test, holed, split.test)
    holed = embedding.copy()
    holed[split.validation] = np.nan  # nobody looks at these
    baseline_predictions(data, split, aptitude_test, holed, split.test[:3])
