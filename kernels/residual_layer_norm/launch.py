"""Launch of residual addition and LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.kernels.checks import FLOATS, check_tensor
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.residual_layer_norm.triton import residual_layer_norm_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, power_of_two, tiles


@dataclass(frozen=True)
class ResidualLayerNormShape:
    """What is compiled in: the width D and the dtype of the rows."""

    width: int
    dtype: torch.dtype

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        chosen = tile("residual_layer_norm", self.dtype, str(self.width), target)
        rows = pointer(self.dtype)
        return Specialization(
            kernel="residual_layer_norm",
            function=residual_layer_norm_kernel,
            arguments={
                "branch": rows,
                "residual": rows,
                "weight": "*fp32",
                "bias": "*fp32",
                "rows": "i32",
                "epsilon": "fp32",
                "out": rows,
            },
            constants={
                "WIDTH": self.width,
                "BLOCK_WIDTH": power_of_two(self.width),
                "BLOCK_ROWS": chosen["block_rows"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=str(self.width),
        )


def residual_layer_norm(
    branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, out: Tensor
) -> Tensor:
    """``out = LayerNorm(residual + branch)``, see `reference.residual_layer_norm_reference`.

    Args:
        branch, residual: fp16, bf16 or fp32 ``[rows, D]``; weight, bias: fp32 ``[D]``.
        out: like `residual`; may be `residual` itself.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("branch", branch, (None, None), FLOATS, branch)
    rows, width = branch.shape
    check_tensor("residual", residual, (rows, width), branch.dtype, branch)
    check_tensor("weight", weight, (width,), torch.float32, branch)
    check_tensor("bias", bias, (width,), torch.float32, branch)
    check_tensor("out", out, (rows, width), branch.dtype, branch)
    chosen = ResidualLayerNormShape(width, branch.dtype).specialize(target_of(branch.device))
    grid = (tiles(rows, chosen.constants["BLOCK_ROWS"]),)
    chosen.launch(grid, branch=branch, residual=residual, weight=weight, bias=bias, rows=rows, epsilon=epsilon, out=out)
    return out
