"""Candidate attention as a plugin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelsat_engine.export.tensorrt.plugin_graph import ATTENTION, ATTENTION_WITH_MEMORY
from modelsat_engine.export.tensorrt.plugins.ptx import DTYPES, compile_plugin
from modelsat_engine.kernels.candidate_attention.launch import CandidateAttentionShape
from modelsat_engine.kernels.configs import nearest_target
from modelsat_engine.kernels.specialization import Specialization

_OWN, _MEMORY = ("query", "own_key", "own_value"), ("memory_key", "memory_value")
_PREFIX = ("prefix_key", "prefix_value", "bounds")


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
    memory_rows: int = 0


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


def register(capability: int) -> None:
    """Register both forms, with and without memory, for a GPU."""
    import tensorrt.plugin as trtp

    from modelsat_engine.export.tensorrt.plugins.declaration import Launch, Numbers, Tensors, Whole, declare

    def output(inputs: Tensors, numbers: Numbers) -> trtp.TensorDesc:
        query: trtp.TensorDesc = inputs["query"]
        prefix: trtp.TensorDesc = inputs["prefix_key"]
        shape = (prefix.shape_expr[0], query.shape_expr[1], int(numbers["width"]))
        return trtp.from_shape_expr(shape, query.dtype)

    def launch(inputs: Tensors, numbers: Numbers) -> Launch:
        query: trtp.TensorDesc = inputs["query"]
        prefix: trtp.TensorDesc = inputs["prefix_key"]
        sizes = AttentionSizes(
            query.dtype.name,
            int(numbers["width"]),
            int(numbers["heads"]),
            bool(numbers["same_query"]),
            int(numbers.get("memory_rows", 0)),
        )
        form, candidates = attention_form(sizes, capability), query.shape_expr[1]
        blocks = trtp.cdiv(candidates, form.constants["BLOCK_ROWS"])
        return Launch(compile_plugin(form, capability), blocks, prefix.shape_expr[0] * sizes.heads, candidates)

    numbers = {"width": Whole, "heads": Whole, "same_query": Whole}
    declare(ATTENTION, (*_OWN, *_PREFIX), numbers, output, launch)
    declare(ATTENTION_WITH_MEMORY, (*_OWN, *_MEMORY, *_PREFIX), {**numbers, "memory_rows": Whole}, output, launch)
