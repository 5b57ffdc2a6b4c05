"""Launch of the capability projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.capability_projection.triton import capability_projection_kernel
from modelsat_engine.kernels.checks import FLOATS, check_tensor, row_stride
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.specialization import Specialization, pointer, tiles


@dataclass(frozen=True)
class CapabilityProjectionShape:
    """What is compiled in.

    Attributes:
        out_features, in_features: D and E, the sizes of the connector.
        dtype: of representations and connector; table_dtype: of the candidate table.
        table_stride: elements from row to row of the table.
    """

    out_features: int
    in_features: int
    dtype: torch.dtype
    table_dtype: torch.dtype
    table_stride: int

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        sizes = f"{self.out_features}x{self.in_features}"
        chosen = tile("capability_projection", self.dtype, sizes, target)
        return Specialization(
            kernel="capability_projection",
            function=capability_projection_kernel,
            arguments={
                "representation": pointer(self.dtype),
                "weight": pointer(self.dtype),
                "bias": "*fp32",
                "rows": "i32",
                "table": pointer(self.table_dtype),
            },
            constants={
                "IN_FEATURES": self.in_features,
                "OUT_FEATURES": self.out_features,
                "ROW_STRIDE": self.in_features,
                "TABLE_STRIDE": self.table_stride,
                "BLOCK_ROWS": chosen["block_rows"],
                "BLOCK_COLUMNS": chosen["block_columns"],
                "BLOCK_K": chosen["block_k"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=sizes,
        )


def capability_projection(
    representation: Tensor, weight: Tensor, bias: Tensor, table: Tensor, first_row: int = 0
) -> Tensor:
    """Equation (2) of many candidates, written into the candidate table; see `reference`.

    Args:
        representation: psi(c), fp16, bf16 or fp32 ``[N, E]``.
        weight: W, ``[D, E]``, the dtype of `representation`; bias: fp32 ``[D]``.
        table: fp16, bf16 or fp32 ``[rows, D]``; rows may be apart, as where something else stands behind them.
        first_row: where the first representation goes; the others follow it. Every other row stays as it is.

    Returns:
        `table`.

    Raises:
        KernelError: the table is too small, or an argument has another shape, dtype, device or layout.
    """
    check_tensor("representation", representation, (None, None), FLOATS, representation)
    rows, in_features = representation.shape
    check_tensor("weight", weight, (None, in_features), representation.dtype, representation)
    out_features = weight.shape[0]
    check_tensor("bias", bias, (out_features,), torch.float32, representation)
    check_tensor("table", table, (None, out_features), FLOATS, representation, contiguous=False)
    if not 0 <= first_row <= table.shape[0] - rows:
        raise KernelError(
            f"rows {first_row} to {first_row + rows} do not fit a candidate table of {table.shape[0]} rows; "
            "make a larger table"
        )
    stride = row_stride("table", table, out_features)
    shape = CapabilityProjectionShape(out_features, in_features, representation.dtype, table.dtype, stride)
    chosen = shape.specialize(target_of(representation.device))
    grid = (
        tiles(out_features, chosen.constants["BLOCK_COLUMNS"]),
        tiles(rows, chosen.constants["BLOCK_ROWS"]),
    )
    chosen.launch(grid, representation=representation, weight=weight, bias=bias, rows=rows, table=table[first_row:])
    return table
