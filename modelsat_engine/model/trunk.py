"""The trunk: a BERT-family encoder whose layers can be run for some rows against other rows' keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsat_engine.errors import BundleError
from modelsat_engine.kernels.candidate_attention.reference import candidate_attention_reference
from modelsat_engine.model.config import TrunkConfig


class Embeddings(nn.Module):
    """Token plus position embedding, then LayerNorm. The constant token type 0 is folded into the positions."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab, config.hidden)
        self.position = nn.Embedding(config.max_positions, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """``input_ids`` int64 ``[B, S]`` -> ``[B, S, D]``."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.norm(self.word(input_ids) + self.position(positions))


class EncoderLayer(nn.Module):
    """One post-norm transformer layer, in the three pieces that the one-pass layout recombines."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        d = config.hidden
        self.heads = config.heads
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.attention_output = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.up = nn.Linear(d, config.intermediate)
        self.down = nn.Linear(config.intermediate, d)
        self.output_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)  # on both residual branches; a training schedule raises it

    def split_heads(self, rows: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., H, d]``."""
        return rows.unflatten(-1, (self.heads, -1))

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``rows`` ``[..., D]``, each ``[..., H, d]``."""
        return self.split_heads(self.key(rows)), self.split_heads(self.value(rows))

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residuals, norms and feed-forward. Both arguments ``[..., D]``."""
        rows = self.attention_norm(rows + self.dropout(self.attention_output(attended)))
        return self.output_norm(rows + self.dropout(self.down(F.gelu(self.up(rows)))))

    def forward(self, rows: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Rows attend to all ``keys`` bidirectionally.

        Args:
            rows: ``[B, S, D]``.
            keys, values: ``[B, S, H, d]``, from `keys_values`.
            mask: bool ``[B, S]`` (true at real rows) or ``[B, S, S]`` (row, key), or None.
        """
        query = self.split_heads(self.query(rows)).transpose(1, 2)  # [B, H, S, d]
        if mask is not None:
            mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
        attended = F.scaled_dot_product_attention(query, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask)
        return self.finish(rows, attended.transpose(1, 2).flatten(2))

    def inquire(
        self,
        rows: Tensor,
        prefix: tuple[Tensor, Tensor],
        prefix_mask: Tensor | None,
        memory: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Inquiry rows ``[B or 1, M, D]`` attend to themselves, their memory and the instruction -> ``[B, M, D]``.

        Args:
            prefix: keys and values of the instruction, each ``[B, S, H, d]``.
            prefix_mask: bool ``[B, S]`` or None.
            memory: cached keys and values, each ``[M, K, H, d]``, or None.
        """
        own_key, own_value = self.keys_values(rows)
        query = self.split_heads(self.query(rows))
        memory_key, memory_value = memory if memory is not None else (None, None)
        attended = candidate_attention_reference(
            query, own_key, own_value, *prefix, prefix_mask, memory_key, memory_value
        )
        return self.finish(rows, attended.flatten(2))


class EncoderTrunk(nn.Module):
    """Embeddings and layers; how rows pass them is the network's business."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, mask: Tensor | None, layers: int | None = None) -> Tensor:
        """Instruction rows through the first ``layers`` layers (all by default) -> ``[B, S, D]``."""
        return self.run_layers(self.embeddings(input_ids), mask, 0, layers)

    def between(self, first: int, last: int | None = None) -> list[EncoderLayer]:
        """The layers from ``first`` up to, not including, ``last``."""
        return cast("list[EncoderLayer]", list(self.layers)[first:last])

    def run_layers(self, rows: Tensor, mask: Tensor | None, first: int, last: int | None) -> Tensor:
        """Rows ``[B, S, D]`` that left layer ``first - 1`` through the layers up to, not including, ``last``."""
        for layer in self.between(first, last):
            rows = layer(rows, *layer.keys_values(rows), mask)
        return rows

    def set_dropout(self, probability: float) -> None:
        """Dropout of every layer's residual branches; acts in training mode only."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    def load_pretrained(self, directory: str | Path) -> None:
        """Takes the weights of a Hugging Face BERT-family checkpoint (``model.safetensors``).

        Raises:
            BundleError: a tensor is missing or has another shape.
        """
        from safetensors.torch import load_file

        file = Path(directory) / "model.safetensors"
        if not file.is_file():
            raise BundleError(f"base weights not found: {file} (see the README on how to fetch them)")
        source = {name.removeprefix("bert."): tensor for name, tensor in load_file(file).items()}
        state = {}
        for name in self.state_dict():
            wanted = _pretrained_name(name)
            if wanted not in source:
                raise BundleError(f"base weights {file} lack the tensor {wanted}")
            state[name] = source[wanted]
        state["embeddings.position.weight"] = (
            state["embeddings.position.weight"] + source["embeddings.token_type_embeddings.weight"][0]
        )
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise BundleError(f"base weights {file} are of another shape: {error}") from None


_PRETRAINED = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}


def _pretrained_name(name: str) -> str:
    """``layers.3.up.weight`` -> ``encoder.layer.3.intermediate.dense.weight``."""
    stem, leaf = name.rsplit(".", 1)
    if stem.startswith("layers."):
        _, index, part = stem.split(".")
        return f"encoder.layer.{index}.{_PRETRAINED[part]}.{leaf}"
    return f"{_PRETRAINED[stem]}.{leaf}"
