"""Specification of candidate attention, in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_attention_reference(
    query: Tensor,
    self_key: Tensor,
    self_value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    prefix_mask: Tensor | None = None,
    memory_key: Tensor | None = None,
    memory_value: Tensor | None = None,
) -> Tensor:
    """Each inquiry row attends to itself, to its candidate's memory and to the shared instruction.

    For inquiry row m of instruction b, with ``d`` the head dimension and ``||`` concatenation::

        keys   = self_key[b, m] || memory_key[m, 0..K) || prefix_key[b, 0..S)
        output = softmax(query[b, m] . keys / sqrt(d)) . values

    No inquiry row sees another one, which is why a whole zoo can share one pass.

    Args:
        query: ``[B or 1, M, H, d]``; a leading 1 means the same query for every instruction.
        self_key, self_value: like ``query``.
        prefix_key, prefix_value: ``[B, S, H, d]``, the instruction's rows.
        prefix_mask: bool ``[B, S]``, true at real tokens; None when nothing is padded.
        memory_key, memory_value: ``[M, K, H, d]``, K >= 1, or None for K = 0.

    Returns:
        ``[B, M, H, d]``, the dtype of ``query``.
    """
    scale = query.shape[-1] ** -0.5
    q = query.transpose(1, 2) * scale  # [B or 1, H, M, d]
    own = (q * self_key.transpose(1, 2)).sum(-1, keepdim=True)  # [B or 1, H, M, 1]
    prefix = q @ prefix_key.permute(0, 2, 3, 1)  # [B, H, M, S]
    if prefix_mask is not None:
        prefix = prefix.masked_fill(~prefix_mask[:, None, None, :], float("-inf"))
    # logsumexp of the three parts, merged without a concatenation of keys
    peak = torch.maximum(own, prefix.amax(-1, keepdim=True))
    recalled = None
    if memory_key is not None:
        # [B or 1, H, M, 1, d] x [H, M, d, K] -> [B or 1, H, M, K]
        recalled = (q.unsqueeze(-2) @ memory_key.permute(2, 0, 3, 1)).squeeze(-2)
        peak = torch.maximum(peak, recalled.amax(-1, keepdim=True))
    own_weight = (own - peak).exp()  # [B, H, M, 1]
    prefix_weight = (prefix - peak).exp()  # [B, H, M, S]
    total = own_weight + prefix_weight.sum(-1, keepdim=True)
    output = own_weight * self_value.transpose(1, 2) + prefix_weight @ prefix_value.transpose(1, 2)
    if recalled is not None and memory_value is not None:
        memory_weight = (recalled - peak).exp()  # [B, H, M, K]
        total = total + memory_weight.sum(-1, keepdim=True)
        output = output + (memory_weight.unsqueeze(-2) @ memory_value.permute(2, 0, 1, 3)).squeeze(-2)
    return (output / total).transpose(1, 2)


def packed_candidate_attention_reference(
    query: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    cu_seqlens: Tensor,
    memory_key: Tensor | None = None,
    memory_value: Tensor | None = None,
) -> Tensor:
    """The same over a packed batch, with grouped heads and several inquiry rows, one (instruction, candidate) a time.

    For inquiry row p of candidate c and instruction b, with ``||`` concatenation::

        keys   = own_key[b, c, 0..p] || memory_key[c, 0..K) || prefix_key[instruction b]
        output = softmax(query[b, c, p] . keys / sqrt(d)) . values

    Args:
        query: ``[B or 1, C, P, H, d]``; a leading 1 means the same rows for every instruction.
        own_key, own_value: ``[B or 1, C, P, G, d]``; each of the G key heads serves H / G query heads.
        prefix_key, prefix_value: ``[T, G, d]``, packed rows of all instructions.
        cu_seqlens: int ``[B + 1]``; instruction b has the rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1]``.
        memory_key, memory_value: ``[C, K, G, d]``, or None for K = 0.

    Returns:
        ``[B, C, P, H, d]``, the dtype of ``query``.
    """
    bounds = cu_seqlens.tolist()
    batch, (candidates, rows, heads, width) = len(bounds) - 1, query.shape[1:]
    key_heads = own_key.shape[3]
    query, own_key, own_value = (x.expand(batch, *x.shape[1:]) for x in (query, own_key, own_value))
    nothing = prefix_key.new_empty(candidates, 0, key_heads, width)
    memory_key = nothing if memory_key is None else memory_key
    memory_value = nothing if memory_value is None else memory_value
    # who sees whom among a candidate's inquiry rows; everything behind them is seen by all of them
    later = torch.ones(rows, rows, dtype=torch.bool, device=query.device).triu(1)  # [P, P]
    output = torch.empty_like(query)
    for b in range(batch):
        prefix = slice(bounds[b], bounds[b + 1])
        for c in range(candidates):
            keys = torch.cat([own_key[b, c], memory_key[c], prefix_key[prefix]])  # [N, G, d]
            values = torch.cat([own_value[b, c], memory_value[c], prefix_value[prefix]])
            keys, values = (x.repeat_interleave(heads // key_heads, 1) for x in (keys, values))  # [N, H, d]
            scores = torch.einsum("phd,nhd->hpn", query[b, c], keys) * width**-0.5  # [H, P, N]
            scores[..., :rows] = scores[..., :rows].masked_fill(later, float("-inf"))
            output[b, c] = torch.einsum("hpn,nhd->phd", scores.softmax(-1), values)
    return output
