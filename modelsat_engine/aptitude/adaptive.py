"""Take the test in an order that pays, and stop when the profile is certain enough.

A sequential test over tasks. After every batch each task's accuracy has the Beta posterior of `uncertainty`, whose
standard deviation shrinks with the answers and is smaller for tasks that the candidate nearly always, or hardly ever,
gets right::

    sd_t = sqrt(m_t (1 - m_t) / (s + n_t + 1))        m_t = (s e_t + right_t) / (s + n_t)
    error = sqrt(mean_t sd_t^2)

The next batch goes to the tasks with the fewest answers, items in an order drawn once; testing ends when `error`
reaches its target. A strong or a weak candidate gets there with fewer answers than one in the middle. Items are not
chosen by their difficulty: a profile holds counts, and counts of items picked for the candidate would mean another
thing.
docs/onboarding.md has the measurements, by benchmarks/adaptive_test.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.aptitude.uncertainty import TaskPrior, ability
from modelsat_engine.errors import OptionError

#: About 450 answers of the shipped test on average.
TARGET_ERROR = 0.105
#: Before anything counts as certain: a candidate that gets its first few right looks surer than it is.
LEAST_ANSWERS_PER_TASK = 2
BATCH = 50


class AdaptiveTest:
    """What to ask next, given what was answered. It keeps nothing: the same answers give the same next items.

    Args:
        test: the aptitude test.
        prior: difficulty of its tasks, and how much they say before anything is answered.
        target_error: stop at this error of a task's accuracy, root mean square over the tasks, in (0, 0.5).
        batch: items to ask at a time.
        seed: draws the order of items inside a task.
        available: items that can be asked; None for all.

    Raises:
        OptionError: a target or a batch out of range.
    """

    def __init__(
        self,
        test: AptitudeTest,
        prior: TaskPrior,
        target_error: float = TARGET_ERROR,
        batch: int = BATCH,
        seed: int = 0,
        available: Collection[str] | None = None,
    ) -> None:
        if not 0 < target_error < 0.5:
            raise OptionError(f"the target error is {target_error!r}; use a share between 0 and 0.5, such as 0.1")
        if batch < 1:
            raise OptionError(f"a batch has {batch!r} items; use 1 or more")
        self.target_error = target_error
        self._test, self._prior, self._batch = test, prior, batch
        self._task_of = {item: task for task, entry in enumerate(test.tasks) for item in entry.item_ids}
        there = test.item_ids if available is None else test.item_ids & frozenset(available)
        self._queues = [
            sorted(there & frozenset(task.item_ids), key=lambda item: _draw(seed, item)) for task in test.tasks
        ]

    def next_items(self, answers: Mapping[str, bool], skipped: Collection[str] = ()) -> list[str]:
        """The next items to ask, none when it is certain or nothing is left.

        Args:
            answers: item -> right or wrong, of this test.
            skipped: items that were asked and brought no answer.
        """
        if self.is_certain(answers):
            return []
        done = answers.keys() | frozenset(skipped)
        left = [[item for item in queue if item not in done] for queue in self._queues]
        asked = [len(queue) - len(rest) for queue, rest in zip(self._queues, left, strict=True)]
        order = sorted(
            (
                (asked[task] + place, place, task, item)
                for task, rest in enumerate(left)
                for place, item in enumerate(rest)
            ),
            key=lambda entry: entry[:3],
        )
        return [item for *_, item in order[: self._batch]]

    def error(self, answers: Mapping[str, bool]) -> float:
        """Standard error of a task's accuracy after these answers, root mean square over the tasks."""
        correct, total = np.zeros(len(self._queues)), np.zeros(len(self._queues))
        for item, right in answers.items():
            task = self._task_of.get(item)
            if task is not None:
                correct[task] += bool(right)
                total[task] += 1
        estimate, _ = ability(correct, total, self._prior)
        strength = self._prior.strength
        expected = 1 / (1 + np.exp(self._prior.difficulty - estimate))  # [T]
        mean = (strength * expected + correct) / (strength + total)
        return float(np.sqrt(np.mean(mean * (1 - mean) / (strength + total + 1))))

    def is_certain(self, answers: Mapping[str, bool]) -> bool:
        """Whether there are two answers a task, and the error has reached the target."""
        known = sum(item in self._task_of for item in answers)
        return known >= LEAST_ANSWERS_PER_TASK * len(self._queues) and self.error(answers) <= self.target_error


def _draw(seed: int, item: str) -> bytes:
    """A rank that is the same on every machine."""
    return hashlib.sha256(f"{seed}/adaptive/{item}".encode("utf-8", errors="surrogatepass")).digest()
