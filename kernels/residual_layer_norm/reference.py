"""Specification of residual addition and LayerNorm, in torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def residual_layer_norm_reference(
    branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float
) -> Tensor:
    """``LayerNorm(residual + branch)`` (Ba, Kiros and Hinton 2016), the end of both halves of a post-norm layer.

    Args:
        branch, residual: ``[rows, D]``; weight, bias: ``[D]``.

    Returns:
        ``[rows, D]``.
    """
    return F.layer_norm(residual + branch, weight.shape, weight, bias, epsilon)
