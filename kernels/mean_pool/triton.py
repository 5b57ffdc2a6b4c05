"""Mean of each instruction's packed rows on the GPU."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mean_pool_kernel(
    rows,
    cu_seqlens,
    center,
    scale,
    out,
    WIDTH: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """``out_b = (mean of rows[cu_seqlens[b] : cu_seqlens[b + 1]] - center) * scale``; an empty instruction has mean 0.

    Rows are summed up in fp32 in an order that depends on the instruction's own length alone.

    Args:
        rows: ``[T, WIDTH]``, contiguous; cu_seqlens: int32 ``[B + 1]``; center, scale: fp32 ``[WIDTH]``.
        out: ``[B, WIDTH]``, contiguous, any float dtype.
    """
    request = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = column < WIDTH
    first = tl.load(cu_seqlens + request)
    length = tl.load(cu_seqlens + request + 1) - first
    sums = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, length, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        place = (first + row).to(tl.int64)[:, None] * WIDTH + column[None, :]
        sums += tl.load(rows + place, mask=(row < length)[:, None] & inside[None, :], other=0.0).to(tl.float32)
    mean = tl.sum(sums, 0) / tl.maximum(length, 1).to(tl.float32)
    c = tl.load(center + column, mask=inside, other=0.0)
    s = tl.load(scale + column, mask=inside, other=0.0)
    pooled = (mean - c) * s
    tl.store(out + request.to(tl.int64) * WIDTH + column, pooled.to(out.dtype.element_ty), mask=inside)
