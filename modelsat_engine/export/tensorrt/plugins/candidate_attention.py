"""Candidate attention as a plugin.

TensorRT reads the annotations of these functions as they stand, so this module has no ``from __future__ import``.
"""

import math
from typing import Any

from modelsat_engine.export.tensorrt.plugin_graph import ATTENTION, ATTENTION_WITH_MEMORY, DOMAIN
from modelsat_engine.export.tensorrt.plugins.ptx import DTYPES, compile_plugin
from modelsat_engine.kernels.candidate_attention.launch import CandidateAttentionShape
from modelsat_engine.kernels.configs import nearest_target
from modelsat_engine.kernels.specialization import Specialization


def attention_form(
    dtype: str, width: int, heads: int, same_query: bool, capability: int, memory_rows: int = 0
) -> Specialization:
    """The kernel for padded instructions, every tensor contiguous.

    Its parameters are, in this order: query, own key and own value ``[B or 1, C, D]``, memory key and memory value
    ``[C, K, D]`` for K > 0, prefix key and prefix value ``[B, S, D]``, bounds int32 ``[B, 2]``, C, and the output
    ``[B, C, D]``; C counts candidates times views.

    Args:
        dtype: TensorRT's name. width: D. memory_rows: K.
        same_query: whether the first three are the same for every instruction.
        capability: of the GPU, ten times the major number plus the minor one.
    """
    shape = CandidateAttentionShape(
        heads=heads,
        key_heads=heads,
        head_width=width // heads,
        inquiry_rows=1,
        memory_rows=memory_rows,
        dtype=DTYPES[dtype],
        same_query=same_query,
        split_keys=0,
        row_stride=width,
        prefix_stride=width,
        memory_stride=memory_rows * width,
        out_stride=width,
        padded=True,
    )
    chosen = shape.specialize(nearest_target(*divmod(capability, 10)))
    return chosen.with_constants(chunks=1, scale_log2=math.log2(math.e) / math.sqrt(width // heads))


#: Entry, PTX, launch parameters, integers.
_Kernel = tuple[str, str, Any, Any]


def register(capability: int) -> None:
    """Register both forms, with and without memory, for a GPU."""
    import tensorrt.plugin as trtp

    def output(query: trtp.TensorDesc, prefix_key: trtp.TensorDesc, width: int) -> trtp.TensorDesc:
        return trtp.from_shape_expr((prefix_key.shape_expr[0], query.shape_expr[1], width), query.dtype)

    def launch(form: Specialization, query: trtp.TensorDesc, prefix_key: trtp.TensorDesc, heads: int) -> _Kernel:
        kernel = compile_plugin(form, capability)
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = trtp.cdiv(query.shape_expr[1], form.constants["BLOCK_ROWS"])
        parameters.grid_y = prefix_key.shape_expr[0] * heads
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
        width: int,
        heads: int,
        same_query: int,
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
        width: int,
        heads: int,
        same_query: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        form = attention_form(query.dtype.name, width, heads, bool(same_query), capability)
        return launch(form, query, prefix_key, heads)

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
        width: int,
        heads: int,
        same_query: int,
        memory_rows: int,
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
        width: int,
        heads: int,
        same_query: int,
        memory_rows: int,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        form = attention_form(query.dtype.name, width, heads, bool(same_query), capability, memory_rows)
        return launch(form, query, prefix_key, heads)
