"""Models with a history: their graded answers to the training questions refine them, as a gateway's own would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.mixed_effects import fit
from modelsat_engine.runtime.refinement import measure, require_axes


def refined_profiles(
    bundle: Bundle,
    profiles: Mapping[int, CapabilityProfile],
    data: OutcomeData,
    columns: np.ndarray,
    *,
    executor: str = "auto",
    progress: Callable[[float], object] | None = None,
) -> dict[int, CapabilityProfile]:
    """The profiles, each refined by what its model answered; those without an answer stay as they are.

    Each by itself, without a shared part: the router was trained on these questions, and what all models share there
    is that it knows them by heart.

    Args:
        profiles: model row -> profile.
        columns: int64 ``[N]``, the questions whose outcomes may be looked at.
        executor, progress: as for `runtime.refinement.measure`.

    Raises:
        BundleError: the router has no axes.
    """
    axes = require_axes(bundle)
    rows = list(profiles)
    texts = [data.questions.instruction[column] for column in columns.tolist()]
    offset, features = measure(bundle, list(profiles.values()), texts, executor=executor, progress=progress)
    refined = {}
    for number, row in enumerate(rows):
        outcomes = data.Y[row, columns]
        known = outcomes >= 0
        refined[row] = profiles[row]
        if known.any():
            theta = fit(features[known], offset[known, number], outcomes[known], axes.prior_variance)
            refinement = Refinement(axes.id, tuple(np.float32(theta).tolist()), int(known.sum()))
            refined[row] = dataclasses.replace(profiles[row], refinement=refinement)
    return refined
