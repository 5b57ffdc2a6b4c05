"""Refines a zoo by graded answers to any instructions, such as its own traffic: no training, the router stays.

The aptitude test tells a candidate by 50 numbers. What it shows beside them is modelled as random effects, as in a
generalised linear mixed model (GLMix, Zhang et al., KDD 2016)::

    logit P(x, c) = logit P_router(x, c) + a(x) . (shared + own_c)

``a(x)`` are A axes that the relevance head computes beside its task weights: a constant, and the principal components
of its hidden layer. ``shared`` is how the traffic differs from what the router was trained on, for every candidate
alike: it makes probabilities right and never changes whose is highest. ``own_c`` is the candidate's. Both are the most
probable values given the graded answers (`runtime.mixed_effects`), near 0 with few of them. Their sum lies at the end
of the candidate's evidence, so that no executor and no exported graph has to know of it, and a refined candidate costs
nothing more to score.

The axes are read off the executor's own probabilities: ``own = e_k`` moves the logit by exactly ``a_k(x)``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.errors import BundleError, CandidateError, DataError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.instruction import Instruction
from modelsat_engine.runtime.mixed_effects import Answers, Effects, averaged, fit_together, sigmoid

FOLDS = 5
FEWEST_INSTRUCTIONS = 10
#: Prior variance of the shared effects for traffic of another kind: of the constant, in logits squared, for it may well
#: be a logit harder than the router thinks; of every other axis, as a multiple of how far candidates lie apart on it.
SHARED_CONSTANT_VARIANCE = 1.0
SHARED_SPREAD = 10.0
#: Shares of that variance; which of them fits a traffic, its answers tell.
SHARED_SCALES = (1e-3, 1e-2, 0.1, 1.0)
_SMALLEST = 1e-7  # keeps logits of float32 probabilities finite
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
class HeldOut:
    """How graded answers were predicted: without their refinement, and by one fitted to the other folds alone.

    Attributes:
        answers: how many.
        accuracy: share of right ones.
        predicted_before, predicted_after: what was predicted, on average.
        log_loss_before, log_loss_after: mean of -log P(what happened), nats.
        standard_error: of their difference, over the instructions.
    """

    answers: int
    accuracy: float
    predicted_before: float
    predicted_after: float
    log_loss_before: float
    log_loss_after: float
    standard_error: float

    @property
    def better(self) -> bool:
        """Whether the log loss fell by more than its standard error."""
        return self.log_loss_before - self.log_loss_after > self.standard_error

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray, right: np.ndarray, rows: np.ndarray) -> HeldOut:
        """From logits, outcomes and numbers of instructions, each ``[n]``, n >= 1."""
        losses = _losses(before, right), _losses(after, right)
        gains = np.bincount(rows, losses[0] - losses[1])  # of an instruction: its answers go together
        instructions = len(np.unique(rows))
        spread = (gains**2).sum() - len(rows) ** 2 / instructions * float((losses[0] - losses[1]).mean()) ** 2
        return cls(
            len(right),
            float(right.mean()),
            float(sigmoid(before).mean()),
            float(sigmoid(after).mean()),
            float(losses[0].mean()),
            float(losses[1].mean()),
            float(np.sqrt(max(spread, 0.0)) / len(rows)),
        )


@dataclass(frozen=True)
class Refined:
    """A refined zoo, and whether that was worth it.

    Attributes:
        profiles: all candidates in their order, each with its refinement, which replaces one that it had. One without
            an answer has what all share.
        total: how all answers were predicted when they were held out.
        by_candidate: the same of every candidate that has answers.
    """

    profiles: tuple[CapabilityProfile, ...]
    total: HeldOut
    by_candidate: Mapping[str, HeldOut]

    @property
    def helps(self) -> bool:
        """Whether answers that the refinement had not seen were predicted better: `HeldOut.better` of the total."""
        return self.total.better


def refine(
    profiles: Sequence[CapabilityProfile],
    instructions: Sequence[Instruction],
    candidates: Sequence[str],
    right: Sequence[bool] | np.ndarray,
    *,
    bundle: Bundle | None = None,
    executor: str = "auto",
    seed: int = 0,
    progress: Share | None = None,
) -> Refined:
    """Fit a zoo's refinement to graded answers.

    Args:
        profiles: the zoo, all that are routed between. Refinements that they have are forgotten: give all answers that
            are known, old ones too.
        instructions: N texts or conversations, 10 different ones at least. One that several candidates answered comes
            several times.
        candidates: N names, who answered.
        right: ``[N]``, whether each answer was right.
        bundle: the router; None is the shipped one.
        executor: as for `Engine.load`.
        seed: deals the instructions into folds for `HeldOut`.
        progress: called with the share done, 0 to 1.

    Raises:
        DataError: too few different instructions, or not one name and one ``right`` an instruction.
        CandidateError: a name that is not in the zoo, or twice in it.
        BundleError: the router has no axes.
        InstructionError, ProfileError, ExecutorError: as `Engine.load` and `Engine.score`.
    """
    bundle = Bundle.load() if bundle is None else bundle
    axes = require_axes(bundle)
    graded = _Graded.of(profiles, instructions, candidates, right)
    start = [dataclasses.replace(profile, refinement=None) for profile in profiles]
    offset, features = measure(bundle, start, graded.instructions, executor=executor, progress=progress)

    total, by_column = predict_held_out(axes, features, offset, graded.answers, seed)
    effects = fit_axes(axes, features, offset, graded.answers)
    counts = np.bincount(graded.answers.columns, minlength=len(profiles))
    return Refined(
        _refined_by(start, axes, effects, counts),
        total,
        {profiles[column].name: held_out for column, held_out in by_column.items()},
    )


def predict_held_out(
    axes: Axes, features: np.ndarray, offset: np.ndarray, answers: Answers, seed: int = 0
) -> tuple[HeldOut, dict[int, HeldOut]]:
    """How answers are predicted by `fit_axes` of those to other instructions: all, and by candidate's column."""
    before = offset[answers.rows, answers.columns]
    after = np.empty(len(before))
    fold = (np.random.default_rng(seed).permutation(len(offset)) % FOLDS)[answers.rows]
    for number in range(FOLDS):
        held = fold == number
        effects = fit_axes(axes, features, offset, answers[~held])
        after[held] = before[held] + (features[answers.rows[held]] * effects.total[answers.columns[held]]).sum(1)
    parts = before, after, answers.right, answers.rows
    by_column = {
        column: HeldOut.of(*(part[answers.columns == column] for part in parts))
        for column in np.unique(answers.columns).tolist()
    }
    return HeldOut.of(*parts), by_column


def fit_axes(axes: Axes, features: np.ndarray, offset: np.ndarray, answers: Answers) -> Effects:
    """What answers say of the traffic and of the candidates.

    How far the traffic may lie from what the router was trained on is learned from the answers too: the effects are the
    mean over SHARED_SCALES, each weighted by the answers' evidence for it (Bayesian model averaging). Traffic of known
    kinds needs no correction, and gets hardly any.

    Args:
        features: float64 ``[N, A]``. offset: float64 ``[N, M]``, calibrated logits.
    """
    variance = SHARED_SPREAD * axes.prior_variance
    variance[0] = SHARED_CONSTANT_VARIANCE
    return averaged(
        [fit_together(features, offset, answers, axes.prior_variance, scale * variance) for scale in SHARED_SCALES]
    )


def _refined_by(
    profiles: Sequence[CapabilityProfile], axes: Axes, effects: Effects, answers: np.ndarray
) -> tuple[CapabilityProfile, ...]:
    """The profiles with these effects, which were fitted to ``[M]`` answers."""
    shared = tuple(np.float32(effects.shared).tolist())
    return tuple(
        dataclasses.replace(profile, refinement=Refinement(axes.id, tuple(np.float32(own).tolist()), count, shared))
        for profile, own, count in zip(profiles, effects.own, answers.tolist(), strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Graded:
    """The different instructions of a log, and the answers to them."""

    instructions: list[Instruction]
    answers: Answers

    @classmethod
    def of(
        cls,
        profiles: Sequence[CapabilityProfile],
        instructions: Sequence[Instruction],
        candidates: Sequence[str],
        right: Sequence[bool] | np.ndarray,
    ) -> _Graded:
        count = len(instructions)
        try:
            right = np.asarray(right)
        except ValueError as error:  # ragged
            raise DataError(f"need one right (1) or wrong (0) for each of {count} instructions") from error
        if right.shape != (count,) or not np.isin(right, (0, 1)).all():
            raise DataError(f"need one right (1) or wrong (0) for each of {count} instructions")
        if len(candidates) != count:
            raise DataError(f"need one candidate for each of {count} instructions, not {len(candidates)}")
        column_of = {profile.name: column for column, profile in enumerate(profiles)}
        if len(column_of) < len(profiles):
            raise CandidateError("two candidates share a name; give each its own")
        unknown = next((name for name in candidates if name not in column_of), None)
        if unknown is not None:
            raise CandidateError(f"no candidate is called {unknown!r}; leave its answers out, or add it to the zoo")
        row_of: dict[str, int] = {}
        different: list[Instruction] = []
        rows = np.empty(count, np.int64)
        for number, instruction in enumerate(instructions):
            key = instruction if isinstance(instruction, str) else json.dumps(instruction, default=str)
            row = row_of.setdefault(key, len(different))
            if row == len(different):
                different.append(instruction)
            rows[number] = row
        if len(different) < FEWEST_INSTRUCTIONS:
            raise DataError(
                f"answers to {len(different)} different instructions are too few to learn from; give at least "
                f"{FEWEST_INSTRUCTIONS}"
            )
        columns = np.array([column_of[name] for name in candidates], np.int64)
        return cls(different, Answers(rows, columns, right.astype(np.int8)))


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


def _losses(logits: np.ndarray, right: np.ndarray) -> np.ndarray:
    """-log P(what happened), nats."""
    return np.asarray(np.logaddexp(0, logits) - right * logits)
