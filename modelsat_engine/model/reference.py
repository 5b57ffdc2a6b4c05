"""The network stated one (instruction, candidate) pair at a time: one sequence, one explicit mask, nothing cached."""

from __future__ import annotations

import torch
from torch import Tensor

from modelsat_engine.model.network import ModelSatNetwork


def attention_mask(memory_rows: int, tokens: int, layout: str) -> Tensor:
    """Who sees whom in the sequence memory, instruction, inquiry: bool ``[N, N]``, (row, key), N = K + S + 1.

    "shared" cuts every edge but those that lead to the inquiry row; "capability_first" cuts none.
    """
    rows = memory_rows + tokens + 1
    if layout == "capability_first":
        return torch.ones(rows, rows, dtype=torch.bool)
    mask = torch.zeros(rows, rows, dtype=torch.bool)
    mask[:memory_rows, :memory_rows] = True
    mask[memory_rows:-1, memory_rows:-1] = True
    mask[-1, :] = True
    return mask


def score_pair(
    network: ModelSatNetwork, input_ids: Tensor, inquiry_start: Tensor, memory_start: Tensor | None
) -> Tensor:
    """Uncalibrated logit of one view of one candidate for one instruction.

    Args:
        input_ids: int64 ``[S]``, unpadded.
        inquiry_start: ``[D + E]``; memory_start: ``[K, D]`` or None.

    Returns:
        A scalar.
    """
    config = network.config
    inquiry_start, evidence = inquiry_start.split([config.trunk.hidden, config.evidence_size])
    memory = inquiry_start.new_empty(0, config.trunk.hidden) if memory_start is None else memory_start
    instruction = network.trunk(input_ids[None], None, layers=config.inject_at)[0]  # [S, D]
    rows = torch.cat([memory, instruction, inquiry_start[None]])  # [K + S + 1, D]
    mask = attention_mask(len(memory), len(instruction), config.layout)
    embedding = rows.new_zeros(config.trunk.hidden)
    for layer in network.trunk.between(config.inject_at):
        embedding = rows[len(memory) : -1].mean(0)  # what the last layer starts from stays
        query, (key, value) = layer.split_heads(layer.query(rows)), layer.keys_values(rows)  # [N, H, d]
        scores = torch.einsum("nhd,khd->hnk", query, key) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        rows = layer.finish(rows, torch.einsum("hnk,khd->nhd", weights, value).flatten(1))
    logit = network.logits(rows[-1])
    return logit if network.relevance is None else logit + network.relevance(embedding[None])[0] @ evidence
