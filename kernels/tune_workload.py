"""What tiles are measured on: each kernel at the shipped router's sizes, for one short request and for a full batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.kernels.candidate_attention.launch import candidate_attention
from modelsat_engine.kernels.embedding_layer_norm.launch import embedding_layer_norm
from modelsat_engine.kernels.linear.launch import linear
from modelsat_engine.kernels.prefix_attention.launch import prefix_attention
from modelsat_engine.kernels.residual_layer_norm.launch import residual_layer_norm
from modelsat_engine.kernels.scoring_head.launch import Head, scoring_head
from modelsat_engine.model.config import NetworkConfig

#: Instructions, tokens of each, candidates.
BATCHES = ((1, 64, 16), (64, 128, 16))
_DTYPE = torch.float16


@dataclass(frozen=True)
class Workload:
    """One kernel at one size of weights; `runs` has a call for each of :data:`BATCHES`."""

    kernel: str
    sizes: str
    runs: tuple[Callable[[], object], ...]


def workloads(device: torch.device) -> Iterator[Workload]:
    """Everything that is tuned, over random tensors on a device."""
    config = NetworkConfig.from_json(dict(Bundle.load().config))
    trunk = config.trunk
    width, wide, head = trunk.hidden, trunk.intermediate, trunk.hidden // trunk.heads
    for outputs, inputs, gelu in (
        (3 * width, width, False),
        (2 * width, width, False),
        (width, width, False),
        (wide, width, True),
        (width, wide, False),
    ):
        runs = tuple(_linear(device, _rows(batch), outputs, inputs, gelu) for batch in BATCHES)
        yield Workload("linear", f"{outputs}x{inputs}", runs)
    yield Workload("prefix_attention", str(head), tuple(_prefix(device, batch, trunk.heads, head) for batch in BATCHES))
    yield Workload(
        "candidate_attention", str(head), tuple(_candidates(device, batch, trunk.heads, head) for batch in BATCHES)
    )
    yield Workload("residual_layer_norm", str(width), tuple(_norm(device, _rows(batch), width) for batch in BATCHES))
    yield Workload("embedding_layer_norm", str(width), tuple(_embedding(device, batch, width) for batch in BATCHES))
    yield Workload("scoring_head", str(width), tuple(_head(device, batch, width, config) for batch in BATCHES))


def _rows(batch: tuple[int, int, int]) -> int:
    requests, tokens, candidates = batch
    return requests * (tokens + candidates)


def _random(device: torch.device, *shape: int, dtype: torch.dtype = _DTYPE) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)


def _linear(device: torch.device, rows: int, outputs: int, inputs: int, gelu: bool) -> Callable[[], object]:
    x, weight = _random(device, rows, inputs), _random(device, outputs, inputs)
    bias, out = _random(device, outputs, dtype=torch.float32), _random(device, rows, outputs)
    return lambda: linear(x, weight, bias, out, gelu)


def _lengths(device: torch.device, requests: int, tokens: int) -> Tensor:
    return torch.arange(requests + 1, dtype=torch.int32, device=device) * tokens


def _prefix(device: torch.device, batch: tuple[int, int, int], heads: int, head: int) -> Callable[[], object]:
    requests, tokens, _ = batch
    query, key, value = _random(device, requests * tokens, 3, heads, head).unbind(1)
    lengths, out = _lengths(device, requests, tokens), _random(device, requests * tokens, heads, head)
    return lambda: prefix_attention(query, key, value, lengths, tokens, out)


def _candidates(device: torch.device, batch: tuple[int, int, int], heads: int, head: int) -> Callable[[], object]:
    requests, tokens, candidates = batch
    own = _random(device, requests, candidates, 1, 3, heads, head).unbind(3)
    _, key, value = _random(device, requests * tokens, 3, heads, head).unbind(1)
    lengths, out = _lengths(device, requests, tokens), _random(device, requests, candidates, 1, heads, head)
    return lambda: candidate_attention(*own, key, value, lengths, tokens, out)


def _norm(device: torch.device, rows: int, width: int) -> Callable[[], object]:
    branch, residual, out = (_random(device, rows, width) for _ in range(3))
    weight, bias = (_random(device, width, dtype=torch.float32) for _ in range(2))
    return lambda: residual_layer_norm(branch, residual, weight, bias, 1e-12, out)


def _embedding(device: torch.device, batch: tuple[int, int, int], width: int) -> Callable[[], object]:
    requests, tokens, _ = batch
    vocabulary = 30000
    word = torch.randint(-127, 128, (vocabulary, width), dtype=torch.int8, device=device)
    position = torch.randint(-127, 128, (tokens, width), dtype=torch.int8, device=device)
    scales = (torch.rand(vocabulary, device=device), torch.rand(tokens, device=device))
    ids = torch.randint(0, vocabulary, (requests * tokens,), dtype=torch.int32, device=device)
    places = torch.arange(tokens, dtype=torch.int32, device=device).repeat(requests)
    norm = [_random(device, width, dtype=torch.float32) for _ in range(2)]
    out = _random(device, requests * tokens, width)
    return lambda: embedding_layer_norm(ids, places, word, scales[0], position, scales[1], *norm, 1e-12, out)


def _head(device: torch.device, batch: tuple[int, int, int], width: int, config: NetworkConfig) -> Callable[[], object]:
    requests, _, candidates = batch
    floats = {"dtype": torch.float32}
    state, residual = (_random(device, requests, candidates, config.views, width) for _ in range(2))
    norm = [_random(device, width, **floats) for _ in range(2)]
    head = Head(_random(device, 2, width, **floats), _random(device, 2, **floats), 1.0, 0.0, "layer", *norm, 1e-12)
    weighed = None
    if config.evidence_size:
        evidence = _random(device, candidates, config.views, config.evidence_size, **floats)
        weighed = _random(device, requests, config.evidence_size, **floats), evidence
    probability = torch.empty(requests, candidates, device=device)
    return lambda: scoring_head(state, residual, head, weighed, probability)
