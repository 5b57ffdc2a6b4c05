"""Launch of the mean over each instruction's rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.kernels.checks import FLOATS, check_tensor
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.mean_pool.triton import mean_pool_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, tiles


@dataclass(frozen=True)
class MeanPoolShape:
    """What is compiled in: the width D, the dtype of the rows and that of the result."""

    width: int
    dtype: torch.dtype
    out_dtype: torch.dtype

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        chosen = tile("mean_pool", self.dtype, str(self.width), target)
        return Specialization(
            kernel="mean_pool",
            function=mean_pool_kernel,
            arguments={
                "rows": pointer(self.dtype),
                "cu_seqlens": "*i32",
                "center": "*fp32",
                "scale": "*fp32",
                "out": pointer(self.out_dtype),
            },
            constants={
                "WIDTH": self.width,
                "BLOCK_COLUMNS": chosen["block_columns"],
                "BLOCK_ROWS": chosen["block_rows"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=str(self.width),
        )


def mean_pool(rows: Tensor, cu_seqlens: Tensor, center: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Standardised means, see `reference.mean_pool_reference`.

    Args:
        rows: fp16, bf16 or fp32 ``[T, D]``; cu_seqlens: int32 ``[B + 1]``, rising, within T; center, scale: fp32
            ``[D]``.
        out: fp16, bf16 or fp32 ``[B, D]``.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("rows", rows, (None, None), FLOATS, rows)
    width = rows.shape[1]
    check_tensor("cu_seqlens", cu_seqlens, (None,), torch.int32, rows)
    check_tensor("center", center, (width,), torch.float32, rows)
    check_tensor("scale", scale, (width,), torch.float32, rows)
    batch = cu_seqlens.shape[0] - 1
    check_tensor("out", out, (batch, width), FLOATS, rows)
    chosen = MeanPoolShape(width, rows.dtype, out.dtype).specialize(target_of(rows.device))
    grid = (batch, tiles(width, chosen.constants["BLOCK_COLUMNS"]))
    chosen.launch(grid, rows=rows, cu_seqlens=cu_seqlens, center=center, scale=scale, out=out)
    return out
