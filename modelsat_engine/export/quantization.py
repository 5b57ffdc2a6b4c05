"""int8 weights with one scale per output channel: the master copy that every executor reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsat_engine.errors import BundleError
from modelsat_engine.model.network import ModelSatNetwork

SCHEME = {"weights": "int8", "scheme": "symmetric, one float32 scale per output channel (per row of an embedding)"}


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 per row: ``weight ~ quantized * scale[:, None]``.

    Args:
        weight: float ``[N, D]``, finite.

    Returns:
        int8 ``[N, D]`` in [-127, 127] and float32 scales ``[N]``; a row of zeros gets scale 1.

    Raises:
        BundleError: a weight is NaN or infinite.
    """
    if not weight.isfinite().all():
        raise BundleError("a weight is NaN or infinite; the checkpoint is damaged or the training diverged")
    peak = weight.abs().amax(1)
    scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak)).float()
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class QuantizedLinear(nn.Module):
    """A linear layer that keeps int8 weights; the product is taken with the dequantised ones."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize_rows(linear.weight.detach())
        self.weight: Tensor
        self.weight_scale: Tensor
        self.register_buffer("weight", weight)  # int8 [out, in]
        self.register_buffer("weight_scale", scale)  # [out]
        bias: Tensor | None = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight.float() * self.weight_scale[:, None], self.bias)


class QuantizedEmbedding(nn.Module):
    """An embedding that keeps int8 rows and dequantises those that are looked up."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight, scale = quantize_rows(embedding.weight.detach())
        self.weight: Tensor
        self.weight_scale: Tensor
        self.register_buffer("weight", weight)  # int8 [V, D]
        self.register_buffer("weight_scale", scale)  # [V]

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float() * F.embedding(ids, self.weight_scale[:, None])


def quantize_network(network: ModelSatNetwork) -> None:
    """Replaces the linear layers and embeddings of trunk, capability encoder and relevance head, in place.

    Connector, head, norms and biases stay float32: they are small, and the connector's output is where every
    candidate starts.
    """
    for root in filter(None, (network.trunk, network.capability, network.relevance)):
        for parent in list(root.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, QuantizedLinear(child))
                elif isinstance(child, nn.Embedding):
                    setattr(parent, name, QuantizedEmbedding(child))
