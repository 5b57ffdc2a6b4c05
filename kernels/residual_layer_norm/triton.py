"""Residual addition and LayerNorm on the GPU."""

from __future__ import annotations

import triton
import triton.language as tl

from modelsat_engine.kernels.normalization import normalize_rows


@triton.jit(do_not_specialize=["rows"])
def residual_layer_norm_kernel(
    branch,
    residual,
    weight,
    bias,
    rows,
    epsilon,
    out,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """``out = LayerNorm(residual + branch)``, sums in fp32; `out` may be `residual`.

    Args:
        branch, residual, out: ``[rows, WIDTH]``, contiguous, one dtype; weight, bias: fp32 ``[WIDTH]``.
    """
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_WIDTH)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    x = tl.load(branch + place, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    normal = normalize_rows(x, weight, bias, epsilon, WIDTH, BLOCK_WIDTH, False)
    tl.store(out + place, normal.to(out.dtype.element_ty), mask=mask)
