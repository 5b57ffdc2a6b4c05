"""Launch of a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.kernels.checks import FLOATS, check_tensor, row_stride
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.linear.triton import linear_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, tiles


@dataclass(frozen=True)
class LinearShape:
    """What is compiled in.

    Attributes:
        out_features, in_features: sizes of the weight.
        dtype: of rows and weight; out_dtype: of the result.
        gelu: whether GELU follows.
        x_stride, out_stride: elements from row to row; 0 for side by side.
    """

    out_features: int
    in_features: int
    dtype: torch.dtype
    out_dtype: torch.dtype
    gelu: bool = False
    x_stride: int = 0
    out_stride: int = 0

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        sizes = f"{self.out_features}x{self.in_features}"
        chosen = tile("linear", self.dtype, sizes, target)
        return Specialization(
            kernel="linear",
            function=linear_kernel,
            arguments={
                "x": pointer(self.dtype),
                "weight": pointer(self.dtype),
                "bias": "*fp32",
                "rows": "i32",
                "out": pointer(self.out_dtype),
            },
            constants={
                "IN_FEATURES": self.in_features,
                "OUT_FEATURES": self.out_features,
                "ROW_STRIDE": self.x_stride or self.in_features,
                "OUT_STRIDE": self.out_stride or self.out_features,
                "GELU": self.gelu,
                "BLOCK_ROWS": chosen["block_rows"],
                "BLOCK_COLUMNS": chosen["block_columns"],
                "BLOCK_K": chosen["block_k"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=sizes,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor, gelu: bool = False) -> Tensor:
    """``out = f(x W' + b)``, see `reference.linear_reference`.

    Args:
        x: fp16, bf16 or fp32 ``[rows, K]``; rows may be apart, as in a part of a wider tensor.
        weight: ``[N, K]``, contiguous, the dtype of `x`; bias: fp32 ``[N]``.
        out: ``[rows, N]``, any float dtype; rows may be apart.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("x", x, (None, None), FLOATS, x, contiguous=False)
    rows, in_features = x.shape
    check_tensor("weight", weight, (None, in_features), x.dtype, x)
    out_features = weight.shape[0]
    check_tensor("bias", bias, (out_features,), torch.float32, x)
    check_tensor("out", out, (rows, out_features), FLOATS, x, contiguous=False)
    shape = LinearShape(
        out_features,
        in_features,
        x.dtype,
        out.dtype,
        gelu,
        row_stride("x", x, in_features),
        row_stride("out", out, out_features),
    )
    chosen = shape.specialize(target_of(x.device))
    grid = (
        tiles(out_features, chosen.constants["BLOCK_COLUMNS"]),
        tiles(rows, chosen.constants["BLOCK_ROWS"]),
    )
    chosen.launch(grid, x=x, weight=weight, bias=bias, rows=rows, out=out)
    return out
