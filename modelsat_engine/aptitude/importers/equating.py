"""Carry accuracies from one set of questions over to another, by models that were measured on both.

An easier benchmark gives every model more right answers: four options leave more to luck than ten, and questions
that everybody knew were left out of the harder one. Under the Rasch model the log-odds of a right answer are ability
minus difficulty, so that the step between two sets of questions on one task is the same for all models, and a model
that took both (an *anchor*) shows it: linear linking by common persons (Kolen and Brennan, Test Equating, Scaling,
and Linking, 3rd ed., ch. 6). The step is the plain mean over anchors and tasks: weights by each pair's noise would
favour accuracies near one half, which are those of the smaller steps. What it varies by between tasks, beyond noise,
is the random effect of Hedges and Olkin (Statistical Methods for Meta-Analysis, 1985, ch. 9); it comes back as fewer
answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from statistics import variance as variance_of
from typing import NamedTuple

from modelsat_engine.errors import DataError


class Counts(NamedTuple):
    """Right answers out of a total, of one model on one task."""

    correct: float
    total: float


class Step(NamedTuple):
    """How much harder the second set of questions is, in log-odds.

    Attributes:
        mean: negative when the second set is harder.
        variance: of the mean.
        between: of a single task's step around it.
        pairs: how many (anchor, task) pairs it comes from.
    """

    mean: float
    variance: float
    between: float
    pairs: int

    def carry(self, first: Counts, most: int) -> Counts:
        """What a model's result on the first set says about the second, in whole answers.

        The number of answers is the one whose binomial noise equals the uncertainty of the estimate,
        n = 1 / (variance * p * (1 - p)), rounded down, at least 1 and at most ``most``
        or what the first set had.
        """
        log_odds, variance = empirical_log_odds(first)
        share = 1 / (1 + math.exp(-(log_odds + self.mean)))
        spread = (variance + self.variance + self.between) * share * (1 - share)
        total = max(1, min(most, math.floor(first.total), math.floor(1 / spread)))
        return Counts(math.floor(share * total + 0.5), total)


def empirical_log_odds(counts: Counts) -> tuple[float, float]:
    """(log-odds, variance) of a share, half an answer added to either side so that 0 and 1 stay finite.

    Cox and Snell, Analysis of Binary Data, 2nd ed., section 2.1.
    """
    right, wrong = counts.correct + 0.5, counts.total - counts.correct + 0.5
    return math.log(right / wrong), 1 / right + 1 / wrong


def step_between(pairs: Sequence[tuple[Counts, Counts]]) -> Step:
    """The step from a first set of questions to a second.

    Args:
        pairs: of each anchor and task, its result on the first set and on the second.

    Raises:
        DataError: fewer than two pairs, of which no spread can be told.
    """
    if len(pairs) < 2:
        raise DataError(f"anchors and results share {len(pairs)} tasks; at least two are needed to compare benchmarks")
    steps, variances = [], []
    for first, second in pairs:
        (before, noise_before), (after, noise_after) = empirical_log_odds(first), empirical_log_odds(second)
        steps.append(after - before)
        variances.append(noise_before + noise_after)
    mean = fmean(steps)
    spread = variance_of(steps)
    return Step(mean, spread / len(pairs), max(0.0, spread - fmean(variances)), len(pairs))
