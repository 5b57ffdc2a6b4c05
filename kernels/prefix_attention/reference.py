"""Specification of the attention of instruction rows, in torch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def prefix_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, causal: bool = False
) -> Tensor:
    """Rows attend to the rows of their own instruction, in a decoder (`causal`) to those up to themselves.

    Args:
        query: ``[T, H, d]``; key, value: ``[T, G, d]``, each shared by H / G query heads.
        cu_seqlens: int ``[B + 1]``; instruction b has the rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1]``.

    Returns:
        ``[T, H, d]``.
    """
    group = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    bounds = cu_seqlens.tolist()
    for begin, end in pairwise(bounds):
        keys = key[begin:end].repeat_interleave(group, 1)  # [S, H, d]
        values = value[begin:end].repeat_interleave(group, 1)
        scores = torch.einsum("nhd,khd->hnk", query[begin:end], keys) * query.shape[-1] ** -0.5  # [H, S, S]
        if causal:
            later = torch.ones(end - begin, end - begin, dtype=torch.bool, device=query.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        out[begin:end] = torch.einsum("hnk,khd->nhd", scores.softmax(-1), values)
    return out
