"""Specification of the mean over an instruction's rows, in torch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def mean_pool_reference(rows: Tensor, cu_seqlens: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """``(mean of the rows of instruction b - center) * scale``; an instruction without rows has the mean 0.

    Args:
        rows: ``[T, D]``, packed; instruction b has the rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1]``.
        cu_seqlens: int ``[B + 1]``; center, scale: ``[D]``.

    Returns:
        ``[B, D]``.
    """
    bounds = cu_seqlens.tolist()
    means = [rows[begin:end].sum(0) / max(end - begin, 1) for begin, end in pairwise(bounds)]
    return (torch.stack(means) - center) * scale
