"""Objectives over the logits of one pass: every candidate of the batch for every question of the batch.

All functions take logits ``[B, M]``, labels ``[B, M]`` (1 right, 0 wrong; any value where unknown), known ``[B, M]``
bool, and the candidates' weights ``[M]``; all return a scalar, and zero (with a gradient of zero) where no pair counts.

With a teacher a label lies between 0 and 1 (`training.samples`): it counts as right by as much,
and as wrong by the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """``-y log P - (1 - y) log(1 - P)``, the proper score behind a calibrated P(Yes)."""
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return _weighted_mean(loss, known * weights)


def squared_error(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """``(P - y)^2``, for the regression head."""
    return _weighted_mean((torch.sigmoid(logits) - labels).square(), known * weights)


def in_batch_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Equation (5) of Model-SAT: for one candidate, one positive instruction against the batch's negative ones::

    -log( exp(s+) / (exp(s+) + sum over negatives of exp(s-)) )      mean over the positives of every candidate
    """
    positive, negative = known * labels, known * (1 - labels)
    share = torch.where(negative > 0, negative, 1.0).log()
    against = torch.logsumexp((logits + share).masked_fill(negative <= 0, float("-inf")), 0)  # [M]
    loss = F.softplus(against - logits)  # log(1 + sum exp(s-) / exp(s+))
    counted = positive * (negative > 0).any(0)
    return _weighted_mean(torch.where(counted > 0, loss, 0.0), counted * weights)


def choice(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """The choice inside a zoo: for one instruction, a candidate that is right against all that are wrong.

    Pairwise logistic loss, mean over the (right, wrong) pairs of each instruction, then over the instructions that
    have both; the candidates' weights do not enter, for the order has no favourites.
    """
    right, wrong = known * labels, known * (1 - labels)
    different = ~torch.eye(logits.shape[1], dtype=torch.bool)
    pairs = right[:, :, None] * wrong[:, None, :] * different  # [B, M, M]
    loss = F.softplus(logits[:, None, :] - logits[:, :, None]) * pairs
    count = pairs.sum((1, 2))
    return (loss.sum((1, 2)) / torch.where(count > 0, count, 1.0)).sum() / (count > 0).sum().clamp(min=1)


OBJECTIVES = {
    "binary_cross_entropy": binary_cross_entropy,
    "in_batch_cross_entropy": in_batch_cross_entropy,
    "choice": choice,
    "squared_error": squared_error,
}


def _weighted_mean(loss: Tensor, weights: Tensor) -> Tensor:
    return (loss * weights).sum() / weights.sum().clamp(min=1e-6)
