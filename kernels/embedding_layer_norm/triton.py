"""Embedding of packed tokens on the GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from modelsat_engine.kernels.normalization import normalize_rows


@triton.jit(do_not_specialize=["rows"])
def embedding_layer_norm_kernel(
    token_ids,
    positions,
    word,
    word_scale,
    position,
    position_scale,
    weight,
    bias,
    rows,
    epsilon,
    out,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """``out_t = LayerNorm(word[token_t] * word_scale[token_t] + position[pos_t] * position_scale[pos_t])``.

    Args:
        token_ids, positions: int32 ``[rows]``, within the tables: the caller has checked them.
        word: int8 or float ``[V, WIDTH]``; position: likewise ``[P, WIDTH]``; word_scale, position_scale: fp32, one per
            row; weight, bias: fp32 ``[WIDTH]``.
        out: ``[rows, WIDTH]``, contiguous.
    """
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_WIDTH)
    there = row < rows
    mask = there[:, None] & (column < WIDTH)[None, :]
    token = tl.load(token_ids + row, mask=there, other=0).to(tl.int64)
    place = tl.load(positions + row, mask=there, other=0).to(tl.int64)
    x = tl.load(word + token[:, None] * WIDTH + column[None, :], mask=mask, other=0).to(tl.float32)
    x *= tl.load(word_scale + token, mask=there, other=0.0)[:, None]
    p = tl.load(position + place[:, None] * WIDTH + column[None, :], mask=mask, other=0).to(tl.float32)
    x += p * tl.load(position_scale + place, mask=there, other=0.0)[:, None]
    normal = normalize_rows(x, weight, bias, epsilon, WIDTH, BLOCK_WIDTH, False)
    tl.store(out + row.to(tl.int64)[:, None] * WIDTH + column[None, :], normal.to(out.dtype.element_ty), mask=mask)
