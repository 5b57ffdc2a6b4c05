"""Candidate attention as a plugin.

TensorRT reads the annotations of these functions as they stand, so this module has no ``from __future__ import``.
"""

import math
from dataclasses import dataclass
from typing import Any

from modelsat_engine.export.tensorrt.plugin_graph import ATTENTION, ATTENTION_WITH_MEMORY, DOMAIN
from modelsat_engine.export.tensorrt.plugins.ptx import DTYPES, Whole, compile_plugin
from modelsat_engine.kernels.candidate_attention.launch import CandidateAttentionShape
from modelsat_engine.kernels.configs import nearest_target
from modelsat_engine.kernels.specialization import Specialization


@dataclass(frozen=True)
class AttentionSizes:
    """What is compiled into the kernel.

    Attributes:
        dtype: TensorRT's name of every value's dtype.
        width: D. heads: H. memory_rows: K.
        same_query: whether query, own key and own value are the same for every instruction.
    """

    dtype: str
    width: int
    heads: int
    same_query: bool
    memory_rows: int

    @classmethod
    def of(cls, dtype: str, *numbers: Whole) -> "AttentionSizes":
        """From the node's attributes: width, heads, same_query and, with memory, memory_rows."""
        width, heads, same_query, *memory_rows = (int(number[0]) for number in numbers)
        return cls(dtype, width, heads, bool(same_query), *(memory_rows or [0]))


def attention_form(sizes: AttentionSizes, capability: int) -> Specialization:
    """The kernel for padded instructions, every tensor contiguous.

    Its parameters are, in this order: query, own key and own value ``[B or 1, C, D]``, memory key and memory value
    ``[C, K, D]`` for K > 0, prefix key and prefix value ``[B, S, D]``, bounds int32 ``[B, 2]``, C, and the output
    ``[B, C, D]``; C counts candidates times views.

    Args:
        capability: of the GPU, ten times the major number plus the minor one.
    """
    width, head_width = sizes.width, sizes.width // sizes.heads
    shape = CandidateAttentionShape(
        heads=sizes.heads,
        key_heads=sizes.heads,
        head_width=head_width,
        inquiry_rows=1,
        memory_rows=sizes.memory_rows,
        dtype=DTYPES[sizes.dtype],
        same_query=sizes.same_query,
        split_keys=0,
        row_stride=width,
        prefix_stride=width,
        memory_stride=sizes.memory_rows * width,
        out_stride=width,
        padded=True,
    )
    chosen = shape.specialize(nearest_target(*divmod(capability, 10)))
    return chosen.with_constants(chunks=1, scale_log2=math.log2(math.e) / math.sqrt(head_width))


#: Entry, PTX, launch parameters, integers.
_Kernel = tuple[str, str, Any, Any]


def register(capability: int) -> None:
    """Register both forms, with and without memory, for a GPU."""
    import tensorrt.plugin as trtp

    def output(query: trtp.TensorDesc, prefix_key: trtp.TensorDesc, width: Whole) -> trtp.TensorDesc:
        return trtp.from_shape_expr((prefix_key.shape_expr[0], query.shape_expr[1], int(width[0])), query.dtype)

    def launch(sizes: AttentionSizes, query: trtp.TensorDesc, prefix_key: trtp.TensorDesc) -> _Kernel:
        form = attention_form(sizes, capability)
        kernel = compile_plugin(form, capability)
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = trtp.cdiv(query.shape_expr[1], form.constants["BLOCK_ROWS"])
        parameters.grid_y = prefix_key.shape_expr[0] * sizes.heads
        parameters.block_x = kernel.threads
        parameters.shared_mem = kernel.shared_bytes
        integers = trtp.SymIntExprs(1)
        integers[0] = trtp.SymInt32(query.shape_expr[1])
        return kernel.entry, kernel.ptx, parameters, integers

    @trtp.register(f"{DOMAIN}::{ATTENTION}")
    def describe(
        query: trtp.TensorDesc,
        own_key: trtp.TensorDesc,
        own_value: trtp.TensorDesc,
        prefix_key: trtp.TensorDesc,
        prefix_value: trtp.TensorDesc,
        bounds: trtp.TensorDesc,
        width: Whole,
        heads: Whole,
        same_query: Whole,
    ) -> trtp.TensorDesc:
        return output(query, prefix_key, width)

    @trtp.aot_impl(f"{DOMAIN}::{ATTENTION}")
    def implement(
        query: trtp.TensorDesc,
        own_key: trtp.TensorDesc,
        own_value: trtp.TensorDesc,
        prefix_key: trtp.TensorDesc,
        prefix_value: trtp.TensorDesc,
        bounds: trtp.TensorDesc,
        width: Whole,
        heads: Whole,
        same_query: Whole,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return launch(AttentionSizes.of(query.dtype.name, width, heads, same_query), query, prefix_key)

    @trtp.register(f"{DOMAIN}::{ATTENTION_WITH_MEMORY}")
    def describe_with_memory(
        query: trtp.TensorDesc,
        own_key: trtp.TensorDesc,
        own_value: trtp.TensorDesc,
        memory_key: trtp.TensorDesc,
        memory_value: trtp.TensorDesc,
        prefix_key: trtp.TensorDesc,
        prefix_value: trtp.TensorDesc,
        bounds: trtp.TensorDesc,
        width: Whole,
        heads: Whole,
        same_query: Whole,
        memory_rows: Whole,
    ) -> trtp.TensorDesc:
        return output(query, prefix_key, width)

    @trtp.aot_impl(f"{DOMAIN}::{ATTENTION_WITH_MEMORY}")
    def implement_with_memory(
        query: trtp.TensorDesc,
        own_key: trtp.TensorDesc,
        own_value: trtp.TensorDesc,
        memory_key: trtp.TensorDesc,
        memory_value: trtp.TensorDesc,
        prefix_key: trtp.TensorDesc,
        prefix_value: trtp.TensorDesc,
        bounds: trtp.TensorDesc,
        width: Whole,
        heads: Whole,
        same_query: Whole,
        memory_rows: Whole,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        sizes = AttentionSizes.of(query.dtype.name, width, heads, same_query, memory_rows)
        return launch(sizes, query, prefix_key)
