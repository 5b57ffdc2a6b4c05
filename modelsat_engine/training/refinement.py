"""Gives a trained router axes on which graded answers can refine its candidates.

The axes are a constant and the first principal components of the relevance head's hidden layer over the training
questions: rows of the head's second layer that no training touches. How far candidates lie apart on each of them is
learned from the training models by expectation maximisation over their posteriors (empirical Bayes, Morris 1983). A
tenth of that is the prior: a router knows its training questions better than others, so that what explains answers to
them explains fewer elsewhere (docs/quality.md). What `runtime.refinement` does later is the same for any candidate.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.model.relevance import RelevanceHead
from modelsat_engine.runtime.mixed_effects import posterior
from modelsat_engine.training.preparation import Prepared

_QUESTIONS_AT_ONCE = 32
_FIRST_VARIANCE = 2e-3
_EXPECTATIONS = 8
#: Of the variance on training questions, what is believed elsewhere; of 1, .3, .1 and .03 by validation questions.
PRIOR_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class DescribedAxes:
    """The axes of a router.

    Attributes:
        id: names them.
        prior_variance: float64 ``[A]``.
    """

    id: str
    prior_variance: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """What router.json says of them."""
        return {"axes": self.id, "prior_variance": self.prior_variance.tolist()}


def describe_axes(prepared: Prepared) -> DescribedAxes | None:
    """Sets the axes in the calibrated network; None where it has none."""
    network = prepared.network
    head, size = network.relevance, network.config.refinement_axes
    if head is None or not size:
        return None
    columns, rows = prepared.split.train, prepared.split.seen_rows
    hidden, logits = _pass(prepared, head, columns, rows)
    weight, bias = principal_axes(hidden, size)
    with torch.no_grad():
        head.tasks.weight[-size:] = weight
        head.tasks.bias[-size:] = bias
    temperature = float(network.temperature)
    features = (hidden.double() @ weight.double().T + bias.double()).numpy() / temperature
    offset = logits / temperature + float(network.calibration_bias)
    variance = population_variance(features, offset, prepared.data.Y[np.ix_(rows, columns)].T)
    return DescribedAxes(_id(head), PRIOR_SHARE * variance)


def principal_axes(hidden: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Weight ``[A, H]`` and bias ``[A]`` of a constant and of A - 1 standardised principal components.

    Args:
        hidden: ``[N, H]``.
        size: A, 2 to H.
    """
    states = hidden.double()
    mean = states.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(states.T))  # ascending
    components = vectors[:, -(size - 1) :].flip(1).T  # [A - 1, H], the widest first
    peak = components.abs().argmax(1, keepdim=True)
    components = components * components.gather(1, peak).sign()  # the same axes whatever the solver's signs
    spread = values[-(size - 1) :].flip(0).clamp(min=1e-9 * float(values[-1]) + 1e-30).sqrt()
    rows = components / spread[:, None]
    weight = torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
    bias = torch.cat([rows.new_ones(1), -rows @ mean])
    return weight.float(), bias.float()


def population_variance(features: np.ndarray, offset: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """How far models lie apart on each axis: the variance that their posteriors agree on, float64 ``[A]``.

    Args:
        features: float64 ``[N, A]``. offset: float64 ``[N, M]``, calibrated logits.
        outcomes: int8 ``[N, M]``, 1 right, 0 wrong, -1 not known.
    """
    variance = np.full(features.shape[1], _FIRST_VARIANCE)
    for _ in range(_EXPECTATIONS):
        second = np.zeros_like(variance)
        for model in range(outcomes.shape[1]):
            known = outcomes[:, model] >= 0
            theta, covariance = posterior(features[known], offset[known, model], outcomes[known, model], variance)
            second += theta**2 + np.diag(covariance)
        variance = second / outcomes.shape[1]
    return variance


def _pass(prepared: Prepared, head: RelevanceHead, columns: np.ndarray, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Hidden layer of the relevance head ``[N, H]``, and uncalibrated logits float64 ``[N, M]``."""
    network, inputs = prepared.network, prepared.inputs
    candidates = prepared.answers.profiles(rows, [prepared.notes[row] for row in rows])
    order = np.argsort([len(inputs.tokens[column]) for column in columns], kind="stable")
    hidden = torch.empty(len(columns), head.hidden.out_features)
    logits = np.empty((len(columns), len(rows)))
    with torch.inference_mode():
        zoo = inputs.connect(network, candidates)
        for start in range(0, len(order), _QUESTIONS_AT_ONCE):
            chosen = order[start : start + _QUESTIONS_AT_ONCE]
            prefix, mask = inputs.prefix(network, columns[chosen])
            scored, pooled = network.zoo_logits_and_embedding(prefix, mask, zoo)
            hidden[torch.from_numpy(chosen)] = head.hidden_states(pooled)
            logits[chosen] = scored.mean(-1).double().numpy()
    return hidden, logits


def _id(head: RelevanceHead) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(head.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
