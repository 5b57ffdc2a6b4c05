"""Refines a candidate by graded answers to any instructions, such as its own traffic: no training, the router stays.

The aptitude test tells a candidate by 50 numbers. What it shows beside them is modelled as random effects, as in a
generalised linear mixed model (GLMix, Zhang et al., KDD 2016)::

    logit P(x, c) = logit P_router(x, c) + a(x) . theta_c        theta_c ~ Normal(0, diag(prior_variance))

``a(x)`` are A axes that the relevance head computes beside its task weights: a constant, and the principal components
of its hidden layer. ``theta_c`` is the most probable value given the graded answers (MAP, Newton's method): with few
answers it stays near 0 and the router's own word stands. It lies at the end of the candidate's evidence, so that no
executor and no exported graph has to know of it, and a refined candidate costs nothing more to score.

The axes are read off the executor's own probabilities: ``theta = e_k`` moves the logit by exactly ``a_k(x)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.errors import BundleError, DataError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.instruction import Instruction

FOLDS = 5
FEWEST_ANSWERS = 10
_SMALLEST = 1e-7  # keeps logits of float32 probabilities finite
_NEWTON_STEPS = 30
_INSTRUCTIONS_AT_ONCE = 256

Share = Callable[[float], object]


@dataclass(frozen=True, eq=False)
class Axes:
    """The axes of one router.

    Attributes:
        id: names them; a `Refinement` belongs to the axes of its id.
        prior_variance: float64 ``[A]``, how far candidates lie apart on each axis, logits squared.
    """

    id: str
    prior_variance: np.ndarray

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Axes | None:
        """The axes in a router.json, or None: a router of before has none.

        Raises:
            BundleError: they are not what an export writes.
        """
        size = config.get("refinement_axes", 0)
        if not size:
            return None
        try:
            described = config["refinement"]
            variance = np.array(described["prior_variance"], np.float64)
            if variance.shape != (size,) or not (np.isfinite(variance) & (variance > 0)).all():
                raise ValueError(f"prior_variance needs {size} positive numbers")
            return cls(str(described["axes"]), variance)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"router.json does not describe its {size} axes ({error}); export it again") from error


@dataclass(frozen=True)
class Refined:
    """A refined candidate, and whether that was worth it.

    Attributes:
        profile: the candidate with its refinement.
        answers: graded answers that it was fitted to, those with nothing known left out.
        log_loss_before, log_loss_after: mean of -log P(what happened), nats, each answer predicted by a refinement
            that was fitted to the other four fifths of them.
        accuracy, predicted_before, predicted_after: share of right answers, and what was predicted on average.
    """

    profile: CapabilityProfile
    answers: int
    log_loss_before: float
    log_loss_after: float
    accuracy: float
    predicted_before: float
    predicted_after: float

    @property
    def helps(self) -> bool:
        """Whether answers that the refinement had not seen were predicted better."""
        return self.log_loss_after < self.log_loss_before


def refine(
    profile: CapabilityProfile,
    instructions: Sequence[Instruction],
    right: Sequence[bool] | np.ndarray,
    *,
    bundle: Bundle | None = None,
    executor: str = "auto",
    afresh: bool = False,
    seed: int = 0,
    progress: Share | None = None,
) -> Refined:
    """Fit a candidate's refinement to graded answers.

    Args:
        profile: the candidate; a refinement that it has already is where this one starts from.
        instructions: N texts or conversations that it answered, N >= 10, none of them graded before.
        right: ``[N]``, whether each answer was right.
        bundle: the router; None is the shipped one.
        executor: as for `Engine.load`.
        afresh: forget the refinement that the candidate has.
        seed: deals the answers into folds for the figures of `Refined`.
        progress: called with the share done, 0 to 1.

    Raises:
        DataError: too few answers, or not one ``right`` an instruction.
        BundleError: the router has no axes.
        InstructionError, ProfileError, ExecutorError: as `Engine.load` and `Engine.score`.
    """
    bundle = Bundle.load() if bundle is None else bundle
    axes = require_axes(bundle)
    outcomes = np.asarray(right)
    if outcomes.shape != (len(instructions),) or not np.isin(outcomes, (0, 1)).all():
        raise DataError(f"need one right (1) or wrong (0) for each of {len(instructions)} instructions")
    if len(instructions) < FEWEST_ANSWERS:
        raise DataError(f"{len(instructions)} graded answers are too few to learn from; give at least {FEWEST_ANSWERS}")
    known = profile.refinement is not None and profile.refinement.axes == axes.id and not afresh
    start = dataclasses.replace(profile, refinement=profile.refinement if known else None)
    logits, features = measure(bundle, [start], instructions, executor=executor, progress=progress)
    offset, y = logits[:, 0], outcomes.astype(np.float64)

    after = np.empty(len(y))
    fold = np.random.default_rng(seed).permutation(len(y)) % FOLDS
    for number in range(FOLDS):
        held = fold == number
        after[held] = offset[held] + features[held] @ fit(features[~held], offset[~held], y[~held], axes.prior_variance)
    moved = fit(features, offset, y, axes.prior_variance)
    if known and profile.refinement is not None:
        moved = moved + np.array(profile.refinement.values)
    before_answers = profile.refinement.answers if known and profile.refinement is not None else 0
    refinement = Refinement(axes.id, tuple(np.float32(moved).tolist()), before_answers + len(y))
    return Refined(
        dataclasses.replace(profile, refinement=refinement),
        answers=len(y),
        log_loss_before=_log_loss(offset, y),
        log_loss_after=_log_loss(after, y),
        accuracy=float(y.mean()),
        predicted_before=float(_sigmoid(offset).mean()),
        predicted_after=float(_sigmoid(after).mean()),
    )


def measure(
    bundle: Bundle,
    profiles: Sequence[CapabilityProfile],
    instructions: Sequence[Instruction],
    *,
    executor: str = "auto",
    progress: Share | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the router says of some candidates, and where each instruction lies on its axes.

    Args:
        profiles: M >= 1 candidates, with different names.
        instructions: N of them.

    Returns:
        Calibrated logits float64 ``[N, M]`` and axes float64 ``[N, A]``, in calibrated logits.

    Raises:
        BundleError: the router has no axes. Others as `Engine.load` and `Engine.score`.
    """
    from modelsat_engine.runtime.engine import Engine

    axes = require_axes(bundle)
    size = len(axes.prior_variance)
    plain = dataclasses.replace(profiles[0], name="\0", refinement=None)
    probes = [
        dataclasses.replace(plain, name=f"\0{axis}", refinement=Refinement(axes.id, tuple(unit), 0))
        for axis, unit in enumerate(np.eye(size).tolist())
    ]
    logits = np.empty((len(instructions), len(profiles)))
    features = np.empty((len(instructions), size))
    order = np.argsort([len(text) if isinstance(text, str) else 0 for text in instructions], kind="stable")
    with Engine.load(bundle, zoo=[*profiles, plain, *probes], executor=executor, mode="throughput") as engine:
        for start in range(0, len(order), _INSTRUCTIONS_AT_ONCE):
            chosen = order[start : start + _INSTRUCTIONS_AT_ONCE]
            scored = _logit(engine.score([instructions[index] for index in chosen]))
            logits[chosen] = scored[:, : len(profiles)]
            features[chosen] = scored[:, len(profiles) + 1 :] - scored[:, len(profiles), None]
            if progress is not None:
                progress((start + len(chosen)) / len(order))
    return logits, features


def fit(features: np.ndarray, offset: np.ndarray, right: np.ndarray, prior_variance: np.ndarray) -> np.ndarray:
    """The most probable effects of one candidate.

    Args:
        features: float64 ``[N, A]``, a(x).
        offset: float64 ``[N]``, the router's logits.
        right: ``[N]``, 1 or 0.
        prior_variance: float64 ``[A]``.

    Returns:
        theta, float64 ``[A]``.
    """
    return posterior(features, offset, right, prior_variance)[0]


def posterior(
    features: np.ndarray, offset: np.ndarray, right: np.ndarray, prior_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`fit` with its covariance by Laplace's approximation: float64 ``[A]`` and ``[A, A]``."""
    precision = np.diag(1 / prior_variance)
    theta = np.zeros(features.shape[1])
    curvature = precision
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(offset + features @ theta)
        curvature = (features * (p * (1 - p))[:, None]).T @ features + precision
        step = np.linalg.solve(curvature, features.T @ (right - p) - precision @ theta)
        theta = theta + step / max(1.0, float(np.abs(step).max()) / 2)  # a full step can overshoot a flat sigmoid
        if np.abs(step).max() < 1e-8:
            break
    return theta, np.linalg.inv(curvature)


def require_axes(bundle: Bundle) -> Axes:
    """The router's axes.

    Raises:
        BundleError: it has none.
    """
    axes = Axes.of(bundle.config)
    if axes is None:
        raise BundleError(
            f"the router {bundle.label} has no axes to refine candidates on; train one with refinement_axes, "
            "or use the shipped one"
        )
    return axes


def _logit(P: np.ndarray) -> np.ndarray:
    clipped = np.clip(P.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    logits: np.ndarray = np.log(clipped) - np.log1p(-clipped)
    return logits


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))


def _log_loss(logits: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logits) - right * logits))
