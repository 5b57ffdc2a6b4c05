"""How sure is a profile? Profiles that the same candidate could have, drawn from what its answers leave open.

The model is the one the router's encoder shrinks profiles with. The candidate has an overall ability o, known from n_t
answers on each task; a task's accuracy lies around what o and the task's difficulty d_t predict, as if ``s`` answers at
that rate had been given before::

    o   ~ Normal(o_hat, 1 / I)        o_hat solves  sum_t n_t sigmoid(o - d_t) = right answers (with a weak prior)
    p_t ~ Beta(s e_t + right_t, s (1 - e_t) + wrong_t)         e_t = sigmoid(o - d_t)

with I the Fisher information of the Rasch model. A draw is a profile as long as the whole test that shows p_t exactly.
A profile of few answers therefore scatters widely, a complete one by what twenty answers a task cannot tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest

#: Draws for each candidate; half of them mirror the other half.
DRAWS = 16
#: What a task's prior is worth in answers where a router does not say; its encoders shrink profiles by as much.
PRIOR_STRENGTH = 8.0
_NEWTON_STEPS = 12


@dataclass(frozen=True, eq=False)
class TaskPrior:
    """What is known of the test before a candidate takes it.

    Attributes:
        difficulty: float64 ``[T]``, logits; how much harder a task is than a task at which ability 0 gets half right.
        center: usual ability, logits.
        strength: s, how many answers the prior of a task is worth.
    """

    difficulty: np.ndarray
    center: float
    strength: float

    @classmethod
    def from_profiles(cls, profiles: Sequence[CapabilityProfile], test: AptitudeTest, strength: float) -> TaskPrior:
        """Difficulties from what some candidates showed, all of them together; every task alike without any."""
        tasks = len(test.tasks)
        right, total = np.full(tasks, 0.5 * strength), np.full(tasks, float(strength))
        for profile in profiles:
            correct, answered = profile.counts(test)
            right, total = right + correct, total + answered
        center = float(_logit(right.sum() / total.sum()))
        return cls(center - _logit((right + 0.5) / (total + 1)), center, strength)


def ability(correct: np.ndarray, total: np.ndarray, prior: TaskPrior) -> tuple[float, float]:
    """Overall ability of a candidate in logits, and its standard error.

    Args:
        correct, total: ``[T]``, right answers and answers per task.
    """
    right = correct.sum() + prior.strength * _sigmoid(prior.center)
    estimate = float(_logit(right / (total.sum() + prior.strength)))
    information = 1.0
    for _ in range(_NEWTON_STEPS):
        expected, middle = _sigmoid(estimate - prior.difficulty), _sigmoid(estimate)
        surplus = (total * expected).sum() + prior.strength * middle - right
        information = float((total * expected * (1 - expected)).sum() + prior.strength * middle * (1 - middle))
        estimate -= float(np.clip(surplus / information, -1, 1))  # far from the root a full step can overshoot
    return estimate, information**-0.5


def draw_profiles(
    profile: CapabilityProfile, test: AptitudeTest, prior: TaskPrior, draws: int = DRAWS
) -> list[CapabilityProfile]:
    """Profiles of the whole test's length that the candidate could have; the same ones for the same counts.

    They are called by the candidate's name, a NUL and a number: names that no candidate has.

    Args:
        draws: an even number.

    Raises:
        ProfileError: the profile belongs to another test.
    """
    correct, total = profile.counts(test)
    seed = hashlib.sha256(f"{test.id} {draws} ".encode() + correct.tobytes() + total.tobytes()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    estimate, error = ability(correct, total, prior)
    half = rng.standard_normal(draws // 2)
    abilities = estimate + error * np.concatenate([half, -half])  # [draws]
    expected = np.clip(_sigmoid(abilities[:, None] - prior.difficulty), 1e-6, 1 - 1e-6)  # [draws, T]
    accuracy = rng.beta(prior.strength * expected + correct, prior.strength * (1 - expected) + total - correct)
    length = np.array([max(len(task.item_ids), int(n)) for task, n in zip(test.tasks, total, strict=True)])  # [T]
    right = np.rint(accuracy * length).astype(int)
    totals = dict(zip(test.task_names, length.tolist(), strict=True))
    return [
        CapabilityProfile(
            f"{profile.name}\0{index}",
            dict(zip(test.task_names, row, strict=True)),
            totals,
            notes=profile.notes,
            usd_per_million_tokens=profile.usd_per_million_tokens,
            test_id=test.id,
            refinement=profile.refinement,
        )
        for index, row in enumerate(right.tolist())
    ]


def _sigmoid(x: np.ndarray | float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x, np.float64))))


def _logit(p: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.log(p) - np.log1p(-np.asarray(p, np.float64)))
