"""What a router must be compared with: predictors that know the same or more, without a network.

Every predictor returns probabilities ``[Q, M]`` over all questions and models of the data, NaN outside the
questions asked for. Which answers each may look at is the point of it:

    aptitude_accuracy      a model's aptitude score, the same for every question: "best single by aptitude test"
    best_per_task          every model's training answers, and the true task label of the question
    knn_full_history       every model's training answers, new models' included (a router has only their aptitude
                           answers), on the 64 nearest questions
    knn_aptitude_answers   the aptitude answers alone, on the 64 nearest items
    matrix_factorisation   seen models' training answers; all others folded in on their aptitude answers

Random choice, the best single model in hindsight and the oracle need no prediction; they are in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.evaluation.outcomes import RIGHT, UNKNOWN, OutcomeData
from modelsat_engine.evaluation.scenarios import aptitude_accuracy
from modelsat_engine.evaluation.splits import Split, task_paths
from modelsat_engine.runtime.mixed_effects import fit

NEIGHBOURS = 64
RANK = 16
TASK_PRIOR_ANSWERS = 10.0  # a task's accuracy is shrunk to the model's own by this many answers
# On standardised embeddings, in units of the mean eigenvalue. Chosen among 0.03 to 3 on held-out training questions
# and the validation models, never on the test.
RIDGE = 0.1
PRIOR_PRECISION = 1.0

BASELINES = (
    "aptitude_accuracy",
    "best_per_task",
    "knn_full_history",
    "knn_aptitude_answers",
    "matrix_factorisation",
)


def baseline_predictions(
    data: OutcomeData,
    split: Split,
    test: AptitudeTest,
    embedding: np.ndarray,
    columns: np.ndarray,
    progress: Callable[[float], object] | None = None,
) -> dict[str, np.ndarray]:
    """All baselines on the given questions.

    Args:
        embedding: float ``[Q, D]``, one row a question of ``data``; rows of questions that are neither in
            ``columns``, training questions nor aptitude items are not looked at.
        columns: int64, the questions to predict.
        progress: called with the share done, 0 to 1.

    Returns:
        Name -> float32 ``[Q, M]``, in the order of :data:`BASELINES`.

    Raises:
        DataError: embeddings of a wrong shape, or not finite where they are needed.
        MissingExtraError: scikit-learn is not installed.
    """
    items = data.columns(sorted(test.item_ids))
    needed = np.concatenate([columns, split.train, items])
    if embedding.ndim != 2 or len(embedding) != len(data.questions):
        raise DataError(f"the embedding has shape {embedding.shape}, need one row for each of {len(data.questions)}")
    if not np.isfinite(embedding[needed]).all():
        raise DataError("the embedding is not finite for some of the questions that it is needed for")
    jobs: list[Callable[[], np.ndarray]] = [
        lambda: np.tile(_or_half(aptitude_accuracy(data, test)), (len(columns), 1)),
        lambda: best_per_task(data, split.train, columns),
        lambda: nearest_neighbours(embedding, data.Y, split.train, columns),
        lambda: nearest_neighbours(embedding, data.Y, items, columns),
        lambda: matrix_factorisation(embedding, data.Y, split.train, items, split.seen_rows, columns),
    ]
    predictions = {}
    for done, (name, job) in enumerate(zip(BASELINES, jobs, strict=True), start=1):
        P = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)  # [Q, M]
        P[columns] = job()
        predictions[name] = P
        if progress is not None:
            progress(done / len(jobs))
    return predictions


def baselines_elsewhere(
    data: OutcomeData,
    split: Split,
    test: AptitudeTest,
    embedding: np.ndarray,
    elsewhere: np.ndarray,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """The baselines on questions that are not in ``data``, from the same answers as :func:`baseline_predictions`.

    ``best_per_task`` is left out: it has no answers of a task that is not in the data.

    Args:
        embedding: float ``[Q, D]``, as for :func:`baseline_predictions`.
        elsewhere: float ``[N, D]``, the other questions.
        rows: int64, the models to predict.

    Returns:
        Name -> float32 ``[N, M]``, NaN for all other models.
    """
    items = data.columns(sorted(test.item_ids))
    both = np.concatenate([embedding, elsewhere])
    Y = np.pad(data.Y, ((0, 0), (0, len(elsewhere))), constant_values=UNKNOWN)
    columns = len(embedding) + np.arange(len(elsewhere))
    factorised = matrix_factorisation(both, Y, split.train, items, split.seen_rows, columns)
    of_rows = {
        "aptitude_accuracy": np.tile(_or_half(aptitude_accuracy(data, test))[rows], (len(columns), 1)),
        "knn_full_history": nearest_neighbours(both, Y[rows], split.train, columns),
        "knn_aptitude_answers": nearest_neighbours(both, Y[rows], items, columns),
        "matrix_factorisation": factorised[:, rows],
    }
    predictions = {}
    for name, predicted in of_rows.items():
        predictions[name] = np.full((len(columns), len(Y)), np.nan, np.float32)
        predictions[name][:, rows] = predicted
    return predictions


def best_per_task(data: OutcomeData, reference: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each model's accuracy on the question's own task, where domain-level routing ends.

    A task's accuracy is shrunk to the model's overall one by TASK_PRIOR_ANSWERS answers; a task that the reference
    questions do not have gets the overall one.

    Args:
        reference: int64, questions whose outcomes may be looked at.
        columns: int64 ``[q]``, questions to predict.

    Returns:
        float64 ``[q, M]``.
    """
    paths = np.array(task_paths(data))
    overall = _accuracy(data.Y[:, reference])  # [M]
    by_task = {}
    for task in set(paths[columns].tolist()):
        outcomes = data.Y[:, reference[paths[reference] == task]]  # [M, n]
        right, known = (outcomes == RIGHT).sum(1), (outcomes >= 0).sum(1)
        by_task[task] = (right + TASK_PRIOR_ANSWERS * overall) / (known + TASK_PRIOR_ANSWERS)
    return np.stack([by_task[task] for task in paths[columns].tolist()])


def nearest_neighbours(
    embedding: np.ndarray, Y: np.ndarray, reference: np.ndarray, columns: np.ndarray, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Share of right answers on the nearest reference questions that the model answered, by cosine.

    Args:
        embedding: float ``[Q, D]``.
        Y: int8 ``[M, Q]``.
        reference: int64, questions whose outcomes may be looked at.
        columns: int64 ``[q]``, questions to predict.

    Returns:
        float64 ``[q, M]``; 0.5 for a model without any reference answer.
    """

    def unit(questions: np.ndarray) -> np.ndarray:
        rows: np.ndarray = _sklearn("preprocessing").normalize(np.asarray(embedding[questions], np.float32))
        return rows

    targets = unit(columns)  # [q, D]
    P = np.full((len(columns), len(Y)), 0.5)
    # Models that answered the same questions share one search; there are few such patterns.
    known = Y[:, reference] >= 0  # [M, n]
    patterns, of_model = np.unique(np.packbits(known, axis=1), axis=0, return_inverse=True)
    for pattern in range(len(patterns)):
        rows = np.flatnonzero(of_model.ravel() == pattern)
        answered = reference[known[rows[0]]]
        if not len(answered):
            continue
        index = _sklearn("neighbors").NearestNeighbors(n_neighbors=min(neighbours, len(answered)), algorithm="brute")
        nearest = index.fit(unit(answered)).kneighbors(targets, return_distance=False)  # [q, k]
        for row in rows:
            P[:, row] = Y[row, answered][nearest].mean(1)
    return P


def matrix_factorisation(
    embedding: np.ndarray,
    Y: np.ndarray,
    train: np.ndarray,
    items: np.ndarray,
    seen_rows: np.ndarray,
    columns: np.ndarray,
    rank: int = RANK,
) -> np.ndarray:
    """Logistic matrix factorisation whose question factors are linear in the embedding.

        P[q, m] = sigmoid(b_m + u_m . F x_q),    F: rank x D

    F is the best rank-r approximation of a ridge regression from embeddings to the seen models' residual answers
    (reduced-rank regression). The factors of a model are then fitted by logistic regression on its answers: to all
    training questions and aptitude items for a seen model; to the aptitude items alone for any other, with the
    seen models' mean and variance as the prior.

    Args:
        embedding: float ``[Q, D]``.
        Y: int8 ``[M, Q]``.
        train, items: int64, training questions and aptitude items.
        seen_rows: int64, models whose training answers may be looked at.
        columns: int64 ``[q]``, questions to predict.

    Returns:
        float64 ``[q, M]``.
    """
    history = np.concatenate([train, items])
    X = np.asarray(embedding, np.float64)
    scaled = X[history] - X[history].mean(0)
    scale = scaled.std(0) + 1e-9
    scaled /= scale
    outcomes = Y[np.ix_(seen_rows, history)].T.astype(np.float64)  # [n, seen]
    known = outcomes >= 0
    residual = np.where(known, outcomes - _accuracy(Y[np.ix_(seen_rows, history)]), 0.0)
    # A missing answer is filled with what the others made of the question.
    residual = np.where(known, residual, (residual.sum(1) / np.maximum(known.sum(1), 1))[:, None])
    gram = scaled.T @ scaled
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram, scaled.T @ residual)  # [D, seen]
    _, _, directions = np.linalg.svd(scaled @ weights, full_matrices=False)
    F = weights @ directions[: min(rank, len(directions))].T  # [D, r]
    F /= (scaled @ F).std(0) + 1e-12

    def features(questions: np.ndarray) -> np.ndarray:
        z = (X[questions] - X[history].mean(0)) / scale @ F
        return np.concatenate([np.ones((len(z), 1)), z], axis=1)  # [n, 1 + r]

    width = F.shape[1] + 1
    factors = np.zeros((len(Y), width))
    weak = np.full(width, PRIOR_PRECISION)
    of_history, of_items = features(history), features(items)
    for row in seen_rows:
        factors[row] = _fit_logistic(of_history, Y[row, history], np.zeros(width), weak)
    mean, variance = factors[seen_rows].mean(0), factors[seen_rows].var(0) + 1e-4
    for row in np.setdiff1d(np.arange(len(Y)), seen_rows):
        factors[row] = _fit_logistic(of_items, Y[row, items], mean, 1 / variance)
    return _sigmoid(features(columns) @ factors.T)


def _fit_logistic(X: np.ndarray, y: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Most probable weights ``[r]`` under a Gaussian prior; y is int8 with -1 left out."""
    X, y = X[y >= 0], y[y >= 0]
    weights: np.ndarray = mean + fit(X, X @ mean, y, 1 / precision)
    return weights


def _accuracy(outcomes: np.ndarray) -> np.ndarray:
    """Share right of what is known, ``[M]`` of ``[M, n]``; 0.5 where nothing is."""
    known = (outcomes >= 0).sum(1)
    share: np.ndarray = np.where(known > 0, (outcomes == RIGHT).sum(1) / np.maximum(known, 1), 0.5)
    return share


def _or_half(accuracy: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(accuracy), 0.5, accuracy)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise MissingExtraError("comparing with nearest neighbours", "evaluate") from error
