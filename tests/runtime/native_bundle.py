"""Bundles of random networks for the native executor, and what their int8 arithmetic should give."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.quantization import QuantizedLinear, quantize_network
from modelsat_engine.model import trunk
from modelsat_engine.model.config import CapabilityEncoderConfig, NetworkConfig, TrunkConfig
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates
from tests.runtime.tiny_bundle import tiny_profile, write_tiny_bundle

VOCAB, POSITIONS = 97, 80
BLOCK = 384  # columns of the feed-forward's middle that share a scale


@dataclass(frozen=True)
class Shape:
    """A small router. Sizes that are no multiple of a vector, on purpose."""

    layers: int = 3
    hidden: int = 24
    heads: int = 3
    intermediate: int = 40
    inject_at: int = 1
    memory_rows: int = 0
    views: int = 1
    head: str = "yes_no"
    relevance_hidden: int = 0
    refinement_axes: int = 0


SHAPES = (
    Shape(),
    Shape(hidden=33, heads=3, intermediate=50, inject_at=0),
    Shape(layers=1, inject_at=0, hidden=16, heads=1, intermediate=16),
    Shape(layers=2, inject_at=1, hidden=72, heads=2, intermediate=129, memory_rows=1),
    Shape(layers=4, inject_at=2, memory_rows=7, views=2),
    Shape(layers=4, inject_at=0, hidden=40, heads=5, memory_rows=18, head="regression"),
    Shape(layers=3, inject_at=2, hidden=96, heads=6, intermediate=200, views=3, head="regression"),
    Shape(layers=2, hidden=32, heads=2, intermediate=2 * BLOCK + 37),
    Shape(relevance_hidden=9),
    Shape(layers=2, inject_at=1, hidden=33, memory_rows=7, views=2, relevance_hidden=21, refinement_axes=11),
)


def random_network(shape: Shape, seed: int) -> ModelSatNetwork:
    """A network with int8 weights in which every parameter is drawn, so that nothing cancels by being zero."""
    torch.manual_seed(seed)
    config = NetworkConfig(
        trunk=TrunkConfig(
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            intermediate=shape.intermediate,
            vocab=VOCAB,
            max_positions=POSITIONS,
        ),
        capability_encoder=CapabilityEncoderConfig(size=20, tasks=max(2, shape.memory_rows - 1), keyword_size=11),
        inject_at=shape.inject_at,
        memory_rows=shape.memory_rows,
        views=shape.views,
        head=shape.head,  # type: ignore[arg-type]
        relevance_hidden=shape.relevance_hidden,
        refinement_axes=shape.refinement_axes,
    )
    network = ModelSatNetwork(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.startswith("head"):
            # logits of about one: probabilities that differ, and an error of the trunk is not magnified
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(shape.hidden))
        else:
            parameter.copy_(parameter + 0.2 * torch.randn_like(parameter))
    if network.relevance is not None:
        pooled = torch.randn(50, shape.hidden) * torch.linspace(0.5, 2, shape.hidden) + 0.3
        network.relevance.describe(pooled)
    network.temperature.fill_(1.3)
    network.calibration_bias.fill_(-0.2)
    quantize_network(network)
    return network


def write_native_bundle(directory: Path, network: ModelSatNetwork) -> Path:
    """A complete bundle around the network's weights; its graphs are toys that belong to other weights."""
    write_tiny_bundle(directory)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, directory / "weights.safetensors")
    config = json.loads((directory / "router.json").read_text())
    config |= {**network.config.to_json(), "evidence_size": network.config.evidence_size}
    if axes := network.config.refinement_axes:
        config["refinement"] = {"axes": "sha256:drawn", "prior_variance": [0.5] * axes}
    config["tokenizer"]["max_instruction_tokens"] = POSITIONS
    config["quantization"] = {"weights": "int8"}
    (directory / "router.json").write_text(json.dumps(config))
    write_manifest(directory)
    return directory


def random_table(bundle: Bundle, network: ModelSatNetwork, candidates: int, seed: int) -> CandidateTable:
    """Candidates whose rows are drawn where the connector would have put them."""
    generator = torch.Generator().manual_seed(seed)
    config = network.config
    start = torch.randn(candidates, config.views, config.trunk.hidden + config.evidence_size, generator=generator)
    memory = None
    if config.memory_rows:
        shape = (candidates, config.views, config.memory_rows, config.trunk.hidden)
        memory = network.memory_keys_values(torch.randn(shape, generator=generator)).numpy()
    profiles = [tiny_profile(f"m{i}", i, bundle.aptitude_test) for i in range(candidates)]
    return CandidateTable(profiles, EncodedCandidates(start.numpy(), memory))


def random_instructions(count: int, seed: int, longest: int = POSITIONS) -> list[np.ndarray]:
    """Token ids int32 ``[S]`` of ``count`` instructions, 1 <= S <= longest; the first has the longest length."""
    rng = np.random.default_rng(seed)
    lengths = [longest, *rng.integers(1, longest + 1, count - 1)]
    return [rng.integers(0, VOCAB, length).astype(np.int32) for length in lengths]


def reference_scores(
    network: ModelSatNetwork, instructions: list[np.ndarray], table: CandidateTable, int8: bool
) -> np.ndarray:
    """Probabilities float32 ``[B, M]`` of the network in PyTorch, one instruction at a time.

    Args:
        int8: whether activations are quantised before every linear layer of the trunk and GELU is a polynomial, as in
            the native executor. Exempt are the inquiry rows' first query, key and value, which belong to the table.
    """
    start = torch.from_numpy(table.inquiry_start.copy())
    inquiry_rows = start[..., : network.config.trunk.hidden].flatten(0, 1)[None]

    def quantise_input(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        if torch.equal(arguments[0], inquiry_rows):
            return arguments
        return (torch.cat([_quantised(block) for block in arguments[0].split(BLOCK, -1)], -1),)

    memory = None if table.memory is None else torch.from_numpy(table.memory.copy())
    rows = []
    with ExitStack() as stack:
        if int8:
            for module in network.trunk.modules():
                if isinstance(module, QuantizedLinear):
                    stack.callback(module.register_forward_pre_hook(quantise_input).remove)
            stack.enter_context(patch.object(trunk, "F", SimpleNamespace(**{**vars(trunk.F), "gelu": _gelu})))
        for ids in instructions:
            token_ids = torch.from_numpy(ids.astype(np.int64))[None]
            rows.append(network(token_ids, torch.ones_like(token_ids), start, memory)[0])
    return torch.cat(rows).numpy()


def _gelu(x: Tensor) -> Tensor:
    """x (1/2 + c p(c^2)) with c = x held within +-4.3: the executor's polynomial for x Phi(x)."""
    coefficients = (
        *(3.986907899e-01, -6.594495475e-02, 9.560904466e-03, -1.030489919e-03, 8.028869343e-05),
        *(-4.346637070e-06, 1.535023273e-07, -3.155339101e-09, 2.848823087e-11),
    )
    c = x.clamp(-4.3, 4.3)
    p = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        p = p * c * c + coefficient
    return x * (0.5 + c * p)


def _quantised(rows: Tensor) -> Tensor:
    """uint8 per row with a zero point; the range holds 0: value = scale (q - z), scale = (high - low) / 255."""
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 255
    inverse = torch.where(scale > 0, 255 / (high - low), torch.zeros_like(scale))
    zero_point = (0.5 - low * inverse).floor()
    quantised = (rows * inverse + zero_point).round().clamp(0, 255)
    return scale * (quantised - zero_point)
