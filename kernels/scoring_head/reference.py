"""Specification of the scoring head, in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def scoring_head_reference(
    state: Tensor, weight: Tensor, bias: Tensor, temperature: Tensor, calibration_bias: Tensor
) -> Tensor:
    """P(Yes) of each candidate, equation (4) of Model-SAT, calibrated and averaged over the views::

        logit = state . weight + bias                  weight = w_yes - w_no for the two-row head
        P     = mean over views of sigmoid(logit / temperature + calibration_bias)

    Args:
        state: last hidden state of the inquiry rows, ``[B, M, R, D]``.
        weight: ``[D]``; bias: scalar.
        temperature, calibration_bias: scalars fitted on validation outcomes.

    Returns:
        Probabilities ``[B, M]``.
    """
    logit = state @ weight + bias  # [B, M, R]
    return torch.sigmoid(logit / temperature + calibration_bias).mean(-1)
