"""A linear layer on the GPU, bias and GELU in its epilogue."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def linear_kernel(
    x,
    weight,
    bias,
    rows,
    out,
    IN_FEATURES: tl.constexpr,
    OUT_FEATURES: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    GELU: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``out = f(x W' + b)`` with ``f(z) = z (1 + erf(z / sqrt 2)) / 2`` where GELU is set, else ``f(z) = z``.

    Products are summed over IN_FEATURES from left to right in fp32, whatever `rows` is: a row's result does not
    depend on the rows beside it.

    Args:
        x: ``[rows, IN_FEATURES]``, rows ROW_STRIDE apart; weight: ``[OUT_FEATURES, IN_FEATURES]``, the dtype of x;
            bias: fp32 ``[OUT_FEATURES]``.
        out: ``[rows, OUT_FEATURES]``, any float dtype, rows OUT_STRIDE apart.
    """
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    k = tl.arange(0, BLOCK_K)
    there = row < rows
    known = column < OUT_FEATURES
    row = row.to(tl.int64)
    x_tile = x + row[:, None] * ROW_STRIDE + k[None, :]
    weight_tile = weight + column[None, :] * IN_FEATURES + k[:, None]
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, IN_FEATURES, BLOCK_K):
        if IN_FEATURES % BLOCK_K == 0:
            a = tl.load(x_tile + start, mask=there[:, None], other=0.0)
            b = tl.load(weight_tile + start, mask=known[None, :], other=0.0)
        else:
            inside = start + k < IN_FEATURES
            a = tl.load(x_tile + start, mask=there[:, None] & inside[None, :], other=0.0)
            b = tl.load(weight_tile + start, mask=inside[:, None] & known[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    total += tl.load(bias + column, mask=known, other=0.0)[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    tl.store(
        out + row[:, None] * OUT_STRIDE + column[None, :],
        total.to(out.dtype.element_ty),
        mask=there[:, None] & known[None, :],
    )
