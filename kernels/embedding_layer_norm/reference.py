"""Specification of embedding and LayerNorm, in torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def embedding_layer_norm_reference(
    token_ids: Tensor,
    positions: Tensor,
    word: Tensor,
    word_scale: Tensor,
    position: Tensor,
    position_scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
) -> Tensor:
    """``LayerNorm(word[token] * word_scale[token] + position[pos] * position_scale[pos])`` of packed tokens.

    Args:
        token_ids, positions: int ``[T]``; a position is the place of a token in its own instruction.
        word: ``[V, D]``, int8 with one scale per row, or float with scales of 1; position: likewise ``[P, D]``.
        weight, bias: ``[D]``, of the dtype to compute in, like the scales.

    Returns:
        ``[T, D]``.
    """
    tokens, places = token_ids.long(), positions.long()
    rows = word[tokens].to(weight.dtype) * word_scale[tokens, None]  # [T, D]
    rows = rows + position[places].to(weight.dtype) * position_scale[places, None]
    return F.layer_norm(rows, weight.shape, weight, bias, epsilon)
