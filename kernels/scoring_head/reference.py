"""Specification of the scoring head, in torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scoring_head_reference(
    state: Tensor,
    weight: Tensor,
    bias: Tensor,
    temperature: Tensor,
    calibration_bias: Tensor,
    weighed: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """P(Yes) of each candidate, equation (4) of Model-SAT, calibrated and averaged over the views::

        logit = state . weight + bias + relevance . evidence         weight = w_yes - w_no for the two-row head
        P     = mean over views of sigmoid(logit / temperature + calibration_bias)

    Args:
        state: last hidden state of the inquiry rows, ``[B, M, R, D]``.
        weight: ``[D]``; bias: scalar.
        temperature, calibration_bias: scalars fitted on validation outcomes.
        weighed: relevance ``[B, E]`` of the instructions and evidence ``[M, R, E]`` of the candidates; None adds
            nothing.

    Returns:
        Probabilities ``[B, M]``.
    """
    logit = state @ weight + bias  # [B, M, R]
    if weighed is not None:
        logit = logit + torch.einsum("be,mre->bmr", *weighed)
    return torch.sigmoid(logit / temperature + calibration_bias).mean(-1)


def normalized_states_reference(
    state: Tensor, residual: Tensor | None, norm: str, weight: Tensor, bias: Tensor, epsilon: float
) -> Tensor:
    """What the head reads where the trunk's last step is left to it: ``norm(state + residual)``.

    Args:
        state, residual: ``[..., D]``; None adds nothing.
        norm: "none", "layer" (Ba, Kiros and Hinton 2016) or "rms" (Zhang and Sennrich 2019, without a bias).
        weight, bias: ``[D]``.

    Returns:
        ``[..., D]``.
    """
    rows = state if residual is None else state + residual
    if norm == "layer":
        return F.layer_norm(rows, weight.shape, weight, bias, epsilon)
    if norm == "rms":
        return rows * (rows.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight
    return rows


def best_candidates_reference(
    probability: Tensor, top: int, value: float = 1.0, price: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The `top` columns of largest ``value * P - price``, the earlier column among equals.

    Args:
        probability: ``[B, M]``.
        value: US dollars for a correct answer.
        price: US dollars for one request, ``[M]``, NaN where unknown; None for 0 everywhere.

    Returns:
        Columns int32 ``[B, top]`` and their utilities ``[B, top]``. A candidate of unknown price or probability is
        never among them; where candidates run out, the column is -1 and the utility -inf.
    """
    utility = value * probability - (0.0 if price is None else price)  # [B, M]
    columns = torch.full((len(utility), top), -1, dtype=torch.int32)
    utilities = torch.full((len(utility), top), -math.inf, dtype=utility.dtype)
    for b, row in enumerate(utility.tolist()):
        known = [column for column, gain in enumerate(row) if not math.isnan(gain)]
        for rank, column in enumerate(sorted(known, key=lambda column: (-row[column], column))[:top]):
            columns[b, rank], utilities[b, rank] = column, row[column]
    return columns, utilities
