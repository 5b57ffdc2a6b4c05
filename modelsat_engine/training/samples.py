"""Samples: which questions share a batch, which candidates meet them, and how noisy their profiles are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.training.config import SampleConfig


@dataclass(frozen=True, eq=False)
class Candidates:
    """M candidates as a capability encoder reads them.

    Attributes:
        correct, total: float32 ``[M, T]``, right answers and answers per task.
        notes: M expert notes, "" where there is none.
    """

    correct: np.ndarray
    total: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Forms:
    """How the B questions of a batch are shown.

    Attributes:
        bare: bool ``[B]``, without their lettered options where they have any.
        orders: int64 ``[B]``, a number for the order of the options to be drawn from; 0 as they are written.
    """

    bare: np.ndarray
    orders: np.ndarray


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        questions: int64 ``[B]``, columns of the outcome data.
        candidates: the M candidates.
        labels: float32 ``[B, M]``, 1 right, 0 wrong, with a teacher between them; known: bool ``[B, M]``.
        weights: float32 ``[M]``.
        forms: how the questions are shown.
    """

    questions: np.ndarray
    candidates: Candidates
    labels: np.ndarray
    known: np.ndarray
    weights: np.ndarray
    forms: Forms


class AptitudeAnswers:
    """The answers of all models to the aptitude test, int8 ``[models, T, N]`` with -1 where unknown."""

    def __init__(self, data: OutcomeData, test: AptitudeTest) -> None:
        columns = np.stack([data.columns(task.item_ids) for task in test.tasks])  # [T, N]
        self.answers = data.Y[:, columns]

    def profiles(self, rows: np.ndarray, notes: list[str]) -> Candidates:
        """Complete profiles of the given model rows."""
        answers = self.answers[rows]
        return Candidates(*_count(answers), tuple(notes))


class BatchSampler:
    """Draws the batches of a run. Stateless: batch i of epoch e depends on the seed, e and i alone.

    A killed run therefore goes on with exactly the batches that it would have seen.

    Args:
        data: outcomes; `rows` and `columns` are the models and questions to train on.
        answers: the aptitude answers of all models.
        domains: int64 ``[Q]``, the domain of every question of `data`; `task_domains` int64 ``[T]``, of every task.
        lengths: int64 ``[Q]``, tokens of every question, to keep padding small.
        notes: an expert note for every model row.

    Attributes:
        expectations: float32 ``[Q, models]``, what a teacher expects, NaN where it says nothing; None without one.
    """

    def __init__(
        self,
        config: SampleConfig,
        data: OutcomeData,
        rows: np.ndarray,
        columns: np.ndarray,
        answers: AptitudeAnswers,
        domains: np.ndarray,
        task_domains: np.ndarray,
        lengths: np.ndarray,
        notes: list[str],
        seed: int,
    ) -> None:
        self.config, self.data, self.rows, self.columns = config, data, rows, columns
        self.answers, self.domains, self.task_domains = answers, domains, task_domains
        self.lengths, self.notes, self.seed = lengths, notes, seed
        self.expectations: np.ndarray | None = None
        order = data.strength[rows].argsort().argsort()  # 0 is the weakest
        self.row_weight = 1 + config.strength_weight * order / max(len(rows) - 1, 1)
        self.batches_per_epoch = len(self._epoch(0))

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The questions of every batch of an epoch, each int64 ``[B]`` or fewer."""
        return self._epoch(epoch)

    def batch(self, epoch: int, index: int, questions: np.ndarray) -> Batch:
        """Draws the candidates of a batch and looks up who is right."""
        rng = np.random.default_rng((self.seed, 1, epoch, index))
        count = min(self.config.candidates_per_batch, len(self.rows))
        synthetic = round(self.config.synthetic_share * count)
        first = rng.choice(len(self.rows), count, replace=False)
        second = first.copy()
        second[:synthetic] = rng.integers(len(self.rows), size=synthetic)
        domains = max(int(self.domains.max()), int(self.task_domains.max())) + 1
        from_second = rng.random((count, domains)) < 0.5  # a synthetic candidate is one model here, another there
        pick = np.where(from_second, second[:, None], first[:, None])  # [M, domains]
        answering = self.rows[pick[:, self.domains[questions]]].T  # [B, M]
        outcomes = self.data.Y[answering, questions[:, None]]
        taken = self.rows[pick[:, self.task_domains]]  # [M, T]
        answers = self.answers.answers[taken, np.arange(taken.shape[1])[None]]  # [M, T, N]
        correct, total = _count(self._degrade(answers, rng))
        kept = rng.random(count) < self.config.note_share
        notes = tuple(
            self.notes[self.rows[a]] if keep and a == b else "" for a, b, keep in zip(first, second, kept, strict=True)
        )
        weights = (self.row_weight[first] + self.row_weight[second]) / 2
        return Batch(
            questions,
            Candidates(correct, total, notes),
            self._labels(outcomes, answering, questions),
            outcomes >= 0,
            weights.astype(np.float32),
            self._forms(len(questions), epoch, index),
        )

    def _labels(self, outcomes: np.ndarray, answering: np.ndarray, questions: np.ndarray) -> np.ndarray:
        labels = (outcomes == 1).astype(np.float32)
        if self.expectations is None:
            return labels
        expected = self.expectations[questions[:, None], answering]
        share = np.where(np.isfinite(expected), self.config.teacher_share, 0)
        mixed: np.ndarray = (labels + share * (np.nan_to_num(expected) - labels)).astype(np.float32)
        return mixed

    def _forms(self, count: int, epoch: int, index: int) -> Forms:
        bare = np.random.default_rng((self.seed, 2, epoch, index)).random(count) < self.config.bare_share
        rng = np.random.default_rng((self.seed, 3, epoch, index))
        shuffled = rng.random(count) < self.config.shuffle_share
        return Forms(bare, np.where(shuffled, rng.integers(1, 2**31, count), 0))

    def _degrade(self, answers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Bootstraps some profiles item by item inside their tasks, and blanks part of some others."""
        count, _, items = answers.shape
        resampled = np.take_along_axis(answers, rng.integers(items, size=answers.shape), axis=2)
        noisy = rng.random((count, 1, 1)) < self.config.noisy_share
        answers = np.where(noisy, resampled, answers)
        partial = rng.random((count, 1, 1)) < self.config.partial_share
        missing = rng.random(answers.shape) < rng.random((count, 1, 1)) * partial
        return np.where(missing, -1, answers)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self.seed, 0, epoch))
        shuffled = rng.permutation(self.columns)
        homogeneous = rng.random(len(shuffled)) < self.config.homogeneous_share
        pools = [shuffled[~homogeneous]]
        domains = self.domains[shuffled]
        pools += [shuffled[homogeneous & (domains == domain)] for domain in np.unique(domains)]
        batches = [batch for pool in pools for batch in self._cut(pool)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _cut(self, pool: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of similar length: sorted inside windows, so that their content stays random."""
        size = self.config.questions_per_batch
        for start in range(0, len(pool), 16 * size):
            window = pool[start : start + 16 * size]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            yield from (window[i : i + size] for i in range(0, len(window), size))


def _count(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers ``[..., T, N]`` -> right answers and answers, float32 ``[..., T]``."""
    return (answers == 1).sum(-1).astype(np.float32), (answers >= 0).sum(-1).astype(np.float32)
