"""Launch of embedding and LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.kernels.checks import FLOATS, check_tensor
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.embedding_layer_norm.triton import embedding_layer_norm_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, power_of_two, tiles


@dataclass(frozen=True)
class EmbeddingLayerNormShape:
    """What is compiled in: the width D, the dtype of the two tables and that of the result."""

    width: int
    table_dtype: torch.dtype
    out_dtype: torch.dtype

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        chosen = tile("embedding_layer_norm", self.out_dtype, str(self.width), target)
        return Specialization(
            kernel="embedding_layer_norm",
            function=embedding_layer_norm_kernel,
            arguments={
                "token_ids": "*i32",
                "positions": "*i32",
                "word": pointer(self.table_dtype),
                "word_scale": "*fp32",
                "position": pointer(self.table_dtype),
                "position_scale": "*fp32",
                "weight": "*fp32",
                "bias": "*fp32",
                "rows": "i32",
                "epsilon": "fp32",
                "out": pointer(self.out_dtype),
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


def embedding_layer_norm(
    token_ids: Tensor,
    positions: Tensor,
    word: Tensor,
    word_scale: Tensor,
    position: Tensor,
    position_scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    out: Tensor,
) -> Tensor:
    """Rows of packed tokens, see `reference.embedding_layer_norm_reference`.

    Args:
        token_ids: int32 ``[T]``, each from 0 to V - 1; positions: int32 ``[T]``, each from 0 to P - 1. To look at them
            would make the host wait for the device: the caller checks them before they are copied there.
        word, position: int8 or float ``[V, D]`` and ``[P, D]``, of one dtype; word_scale, position_scale: fp32 ``[V]``
            and ``[P]``; weight, bias: fp32 ``[D]``.
        out: fp16, bf16 or fp32 ``[T, D]``.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("token_ids", token_ids, (None,), torch.int32, word)
    rows = token_ids.shape[0]
    check_tensor("positions", positions, (rows,), torch.int32, word)
    check_tensor("word", word, (None, None), (*FLOATS, torch.int8), word)
    vocabulary, width = word.shape
    check_tensor("word_scale", word_scale, (vocabulary,), torch.float32, word)
    check_tensor("position", position, (None, width), word.dtype, word)
    check_tensor("position_scale", position_scale, (position.shape[0],), torch.float32, word)
    check_tensor("weight", weight, (width,), torch.float32, word)
    check_tensor("bias", bias, (width,), torch.float32, word)
    check_tensor("out", out, (rows, width), FLOATS, word)
    chosen = EmbeddingLayerNormShape(width, word.dtype, out.dtype).specialize(target_of(word.device))
    chosen.launch(
        (tiles(rows, chosen.constants["BLOCK_ROWS"]),),
        token_ids=token_ids,
        positions=positions,
        word=word,
        word_scale=word_scale,
        position=position,
        position_scale=position_scale,
        weight=weight,
        bias=bias,
        rows=rows,
        epsilon=epsilon,
        out=out,
    )
    return out
