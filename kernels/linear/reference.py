"""Specification of a linear layer, in torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """``f(x W' + b)``, f the exact GELU ``z (1 + erf(z / sqrt 2)) / 2`` (Hendrycks and Gimpel 2016) or nothing.

    Args:
        x: ``[rows, K]``; weight: ``[N, K]``; bias: ``[N]``.

    Returns:
        ``[rows, N]``.
    """
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out
