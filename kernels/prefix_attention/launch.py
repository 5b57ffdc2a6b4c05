"""Launch of the attention of instruction rows.

Ours and not a library's: the same call must serve fp32, run from a captured graph with a batch whose lengths are known
to the device alone, and give a row the same bits whatever is beside it; libraries choose their splits by the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.checks import FLOATS, check_tensor, row_stride
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.prefix_attention.triton import prefix_attention_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, power_of_two, tiles


@dataclass(frozen=True)
class PrefixAttentionShape:
    """What is compiled in.

    Attributes:
        heads, key_heads: query heads and key heads; the first is a multiple of the second.
        head_width: d.
        dtype: of everything.
        causal: whether the trunk is a decoder.
        x_stride, out_stride: elements from row to row of query, key and value, and of the result.
    """

    heads: int
    key_heads: int
    head_width: int
    dtype: torch.dtype
    causal: bool
    x_stride: int
    out_stride: int

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        chosen = tile("prefix_attention", self.dtype, str(self.head_width), target)
        rows = pointer(self.dtype)
        return Specialization(
            kernel="prefix_attention",
            function=prefix_attention_kernel,
            arguments={
                "query": rows,
                "key": rows,
                "value": rows,
                "cu_seqlens": "*i32",
                "scale_log2": "fp32",
                "out": rows,
            },
            constants={
                "ROW_STRIDE": self.x_stride,
                "OUT_STRIDE": self.out_stride,
                "GROUP": self.heads // self.key_heads,
                "HEAD_WIDTH": self.head_width,
                "CAUSAL": self.causal,
                "BLOCK_WIDTH": power_of_two(self.head_width),
                "BLOCK_QUERIES": chosen["block_queries"],
                "BLOCK_KEYS": chosen["block_keys"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=str(self.head_width),
        )


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int, out: Tensor, causal: bool = False
) -> Tensor:
    """Attention within each instruction, see `reference.prefix_attention_reference`.

    Args:
        query: fp16, bf16 or fp32 ``[T, H, d]``; key, value: ``[T, G, d]``. The three have the same distance from row to
            row, as parts of one projection have.
        cu_seqlens: int32 ``[B + 1]``, rising, within T.
        longest: rows of the longest instruction, or a bound of it: the host must not ask the device for it.
        out: ``[T, H, d]``; rows of no instruction are not written.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("query", query, (None, None, None), FLOATS, query, contiguous=False)
    rows, heads, width = query.shape
    check_tensor("key", key, (rows, None, width), query.dtype, query, contiguous=False)
    key_heads = key.shape[1]
    check_tensor("value", value, (rows, key_heads, width), query.dtype, query, contiguous=False)
    check_tensor("cu_seqlens", cu_seqlens, (None,), torch.int32, query)
    check_tensor("out", out, (rows, heads, width), query.dtype, query, contiguous=False)
    if not key_heads or heads % key_heads:
        raise KernelError(f"{heads} query heads cannot share {key_heads} key heads evenly")
    if longest < 0:
        raise KernelError(f"longest must be 0 or more, not {longest}")
    strides = {
        row_stride("query", query, heads * width),
        row_stride("key", key, key_heads * width),
        row_stride("value", value, key_heads * width),
    }
    if rows > 1 and len(strides) > 1:
        raise KernelError("query, key and value differ in their distance from row to row; pass parts of one tensor")
    shape = PrefixAttentionShape(
        heads, key_heads, width, query.dtype, causal, max(strides), row_stride("out", out, heads * width)
    )
    chosen = shape.specialize(target_of(query.device))
    grid = (tiles(longest, chosen.constants["BLOCK_QUERIES"]), heads, cu_seqlens.shape[0] - 1)
    scale_log2 = math.log2(math.e) / math.sqrt(width)
    chosen.launch(grid, query=query, key=key, value=value, cu_seqlens=cu_seqlens, scale_log2=scale_log2, out=out)
    return out
