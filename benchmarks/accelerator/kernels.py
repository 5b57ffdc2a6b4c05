"""Single kernels beside what a library offers for the same: candidate attention, and the two that only move bytes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from accelerator.timing import DeviceTimer, graph_of
from modelsat_engine.kernels.candidate_attention.launch import candidate_attention
from modelsat_engine.kernels.capability_projection.launch import capability_projection
from modelsat_engine.kernels.scoring_head.launch import Head, scoring_head

#: Instructions, tokens of each, candidates.
ATTENTION_SIZES = ((1, 64, 16), (1, 512, 16), (1, 2048, 16), (1, 8192, 16), (16, 128, 64), (64, 128, 16))
_HEADS, _HEAD_WIDTH = 12, 32


def measure_attention(
    device: torch.device, timer: DeviceTimer, dtype: torch.dtype, flex: bool = True
) -> list[dict[str, Any]]:
    """Device time of candidate attention beside SDPA with a dense mask and FlexAttention, sizes of the mini trunk.

    The libraries get keys that lie one after the other already: their concatenation is not counted.
    """
    return [_attention_row(device, timer, dtype, *size, flex=flex) for size in ATTENTION_SIZES]


def _attention_row(
    device: torch.device,
    timer: DeviceTimer,
    dtype: torch.dtype,
    requests: int,
    tokens: int,
    candidates: int,
    flex: bool,
) -> dict[str, Any]:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    own = random(requests, candidates, 1, 3, _HEADS, _HEAD_WIDTH).unbind(3)
    _, key, value = random(requests * tokens, 3, _HEADS, _HEAD_WIDTH).unbind(1)
    lengths = torch.arange(requests + 1, dtype=torch.int32, device=device) * tokens
    out = torch.empty(requests, candidates, 1, _HEADS, _HEAD_WIDTH, dtype=dtype, device=device)
    row: dict[str, Any] = {"requests": requests, "tokens": tokens, "candidates": candidates}
    ours = graph_of(lambda: candidate_attention(*own, key, value, lengths, tokens, out))
    row["ours_us"] = timer.device_us(ours)["p50_us"]

    def rows_of(tensor: torch.Tensor, per_request: int) -> torch.Tensor:
        return tensor.reshape(requests, per_request, _HEADS, _HEAD_WIDTH).transpose(1, 2)

    query = rows_of(own[0], candidates).contiguous()
    keys = torch.cat([rows_of(own[1], candidates), rows_of(key, tokens)], 2)
    values = torch.cat([rows_of(own[2], candidates), rows_of(value, tokens)], 2)
    itself = torch.eye(candidates, dtype=torch.bool, device=device)
    mask = torch.cat([itself, itself.new_ones(candidates, tokens)], 1)[None, None]
    dense = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    row["largest_difference"] = float((dense.transpose(1, 2)[:, :, None] - out).abs().max())
    row["sdpa_us"] = timer.device_us(
        graph_of(lambda: F.scaled_dot_product_attention(query, keys, values, attn_mask=mask))
    )["p50_us"]
    row["speedup_over_sdpa"] = round(row["sdpa_us"] / row["ours_us"], 2)
    if flex:
        row |= _flex(timer, query, keys, values, candidates, row["ours_us"])
    return row


def _flex(
    timer: DeviceTimer, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, candidates: int, ours_us: float
) -> dict[str, Any]:
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def sees(batch: Any, head: Any, row: Any, column: Any) -> Any:
            return (column >= candidates) | (column == row)

        blocks = create_block_mask(sees, None, None, query.shape[2], keys.shape[2], device=query.device)
        attend: Any = torch.compile(flex_attention, dynamic=False)
        flex_us = timer.device_us(graph_of(lambda: attend(query, keys, values, block_mask=blocks)))["p50_us"]
    except Exception as error:  # a size that this version of PyTorch does not compile: said, not hidden
        return {"flex_us": None, "flex_error": str(error).splitlines()[0][:200]}
    return {"flex_us": flex_us, "speedup_over_flex": round(flex_us / ours_us, 2)}


def measure_bandwidth(
    device: torch.device, timer: DeviceTimer, dtype: torch.dtype, copy_bytes_per_s: float
) -> list[dict[str, Any]]:
    """Bytes that the projection and the head must move, over their time, as a share of a copy's rate."""
    rows, width, inputs = 2**18, 384, 256
    size = torch.finfo(dtype).bits // 8

    def random(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    floats: dict[str, Any] = {"dtype": torch.float32}
    representation, weight, table = random(rows, inputs), random(width, inputs), random(rows, width)
    bias = random(width, **floats)
    projection = graph_of(lambda: capability_projection(representation, weight, bias, table))
    state, residual = random(1, rows, 1, width), random(1, rows, 1, width)
    head = Head(random(2, width, **floats), random(2, **floats), 1.0, 0.0, "layer", bias, bias, 1e-12)
    probability = torch.empty(1, rows, device=device)
    scoring = graph_of(lambda: scoring_head(state, residual, head, None, probability))
    found = []
    for name, call, moved in (
        ("capability_projection", projection, rows * (inputs + width) * size),
        ("scoring_head", scoring, rows * (2 * width * size + 4)),
    ):
        time_us = timer.device_us(call)["p50_us"]
        share = moved / (time_us * 1e-6) / copy_bytes_per_s
        found.append({"kernel": name, "rows": rows, "time_us": time_us, "share_of_copy": round(share, 3)})
    return found
