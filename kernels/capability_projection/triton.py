"""Capability projection on the GPU: normalise, connector, bias and cast in one pass over the representations."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def capability_projection_kernel(
    representation,
    weight,
    bias,
    rows,
    table,
    IN_FEATURES: tl.constexpr,
    OUT_FEATURES: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    TABLE_STRIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``table[n, :] = (W x_n) / max(|x_n|, 1e-12) + b``; the norm is summed up while the product is.

    Args:
        representation: ``[rows, IN_FEATURES]``, rows ROW_STRIDE apart; weight: ``[OUT_FEATURES, IN_FEATURES]`` of the
            same dtype; bias: fp32 ``[OUT_FEATURES]``.
        table: ``[rows, OUT_FEATURES]``, any float dtype, rows TABLE_STRIDE apart.
    """
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    k = tl.arange(0, BLOCK_K)
    there = row < rows
    row = row.to(tl.int64)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    square = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in range(0, IN_FEATURES, BLOCK_K):
        inside = start + k < IN_FEATURES
        x = tl.load(
            representation + row[:, None] * ROW_STRIDE + start + k[None, :],
            mask=there[:, None] & inside[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + column[None, :] * IN_FEATURES + start + k[:, None],
            mask=inside[:, None] & (column < OUT_FEATURES)[None, :],
            other=0.0,
        )
        total = tl.dot(x, w, total, input_precision="ieee")
        wide = x.to(tl.float32)
        square += tl.sum(wide * wide, 1)
    length = tl.maximum(tl.sqrt(square), 1e-12)
    b = tl.load(bias + column, mask=column < OUT_FEATURES, other=0.0).to(tl.float32)
    connected = total / length[:, None] + b[None, :]
    tl.store(
        table + row[:, None] * TABLE_STRIDE + column[None, :],
        connected.to(table.dtype.element_ty),
        mask=there[:, None] & (column < OUT_FEATURES)[None, :],
    )
