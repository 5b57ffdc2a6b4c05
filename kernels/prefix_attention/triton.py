"""Attention of a packed batch's instruction rows on the GPU."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def prefix_attention_kernel(
    query,
    key,
    value,
    cu_seqlens,
    scale_log2,
    out,
    ROW_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """``out_i = sum_j softmax_j(q_i . k_j / sqrt d) v_j`` over the rows j of i's own instruction (j <= i where CAUSAL).

    Online softmax (Milakov and Gimelshein 2018) over blocks of keys, in powers of two: `scale_log2` is
    ``log2(e) / sqrt d``.

    Args:
        query: ``[T, H, HEAD_WIDTH]``; key, value: ``[T, H / GROUP, HEAD_WIDTH]``; the three with rows ROW_STRIDE apart
            (parts of one projection) and heads side by side. cu_seqlens: int32 ``[B + 1]``.
        out: ``[T, H, HEAD_WIDTH]``, rows OUT_STRIDE apart.
    """
    request = tl.program_id(2)
    head = tl.program_id(1)
    first = tl.load(cu_seqlens + request)
    length = tl.load(cu_seqlens + request + 1) - first
    start = tl.program_id(0) * BLOCK_QUERIES
    if start >= length:  # the grid is made for the longest instruction that may come
        return
    row = start + tl.arange(0, BLOCK_QUERIES)
    column = tl.arange(0, BLOCK_WIDTH)
    inside = column < HEAD_WIDTH
    there = row < length
    place = (first + row).to(tl.int64)
    q = tl.load(
        query + place[:, None] * ROW_STRIDE + head * HEAD_WIDTH + column[None, :],
        mask=there[:, None] & inside[None, :],
        other=0.0,
    )
    shared = (head // GROUP) * HEAD_WIDTH
    peak = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((BLOCK_QUERIES,), tl.float32)
    total = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    end = length
    if CAUSAL:
        end = tl.minimum(length, start + BLOCK_QUERIES)
    for begin in range(0, end, BLOCK_KEYS):
        key_row = begin + tl.arange(0, BLOCK_KEYS)
        known = key_row < length
        source = (first + key_row).to(tl.int64)
        k = tl.load(
            key + source[None, :] * ROW_STRIDE + shared + column[:, None],
            mask=known[None, :] & inside[:, None],
            other=0.0,
        )
        score = tl.dot(q, k, input_precision="ieee") * scale_log2
        seen = known[None, :]
        if CAUSAL:
            seen = seen & (key_row[None, :] <= row[:, None])
        score = tl.where(seen, score, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(score, 1))
        fade = tl.exp2(peak - new_peak)
        weight = tl.exp2(score - new_peak[:, None])
        weight_sum = weight_sum * fade + tl.sum(weight, 1)
        v = tl.load(
            value + source[:, None] * ROW_STRIDE + shared + column[None, :],
            mask=known[:, None] & inside[None, :],
            other=0.0,
        )
        total = tl.dot(weight.to(v.dtype), v, total * fade[:, None], input_precision="ieee")
        peak = new_peak
    tl.store(
        out + place[:, None] * OUT_STRIDE + head * HEAD_WIDTH + column[None, :],
        (total / weight_sum[:, None]).to(out.dtype.element_ty),
        mask=there[:, None] & inside[None, :],
    )
