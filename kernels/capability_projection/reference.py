"""Specification of the capability projection, in torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def capability_projection_reference(representation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The connector: ``e_c = W psi(c) / ||psi(c)|| + b``, equation (2) of Model-SAT.

    Args:
        representation: psi(c), float ``[..., E]``, not yet normalised.
        weight: W, ``[D, E]``.
        bias: b, ``[D]``.

    Returns:
        Rows in the trunk's embedding space, ``[..., D]``.
    """
    return F.linear(F.normalize(representation, dim=-1), weight, bias)
