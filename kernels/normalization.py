"""LayerNorm and RMSNorm of a tile of rows, for the kernels that end in one or begin with one."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalize_rows(
    rows,
    weight,
    bias,
    epsilon,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    RMS: tl.constexpr,
):
    """``(x - mean) / sqrt(var + epsilon) * weight + bias`` of each row, or ``x / sqrt(mean(x^2) + epsilon) * weight``.

    Args:
        rows: fp32 tile ``[N, BLOCK_WIDTH]``, zeros beyond WIDTH.
        weight, bias: pointers to ``[WIDTH]``; the bias is not read for RMS.

    Returns:
        fp32 tile ``[N, BLOCK_WIDTH]``, zeros beyond WIDTH.
    """
    column = tl.arange(0, BLOCK_WIDTH)
    inside = column < WIDTH
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if RMS:
        mean_square = tl.sum(rows * rows, 1) / WIDTH
        normal = rows * tl.rsqrt(mean_square + epsilon)[:, None] * w[None, :]
    else:
        mean = tl.sum(rows, 1) / WIDTH
        # the second pass over registers costs nothing and keeps the digits that E[x^2] - mean^2 would lose
        centered = tl.where(inside[None, :], rows - mean[:, None], 0.0)
        variance = tl.sum(centered * centered, 1) / WIDTH
        b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        normal = centered * tl.rsqrt(variance + epsilon)[:, None] * w[None, :] + b[None, :]
    return normal
