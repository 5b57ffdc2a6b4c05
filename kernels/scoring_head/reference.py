"""Specification of the scoring head, in torch."""

from __future__ import annotations

import torch
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
