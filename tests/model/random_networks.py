"""Small random networks and zoos for the tests of the network."""

from __future__ import annotations

from dataclasses import replace

import torch

from modelsat_engine.model.config import CapabilityEncoderConfig, NetworkConfig, TrunkConfig
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork

TRUNK = TrunkConfig(layers=4, hidden=24, heads=3, intermediate=40, vocab=97, max_positions=64)


def make_network(
    layout: str = "shared",
    inject_at: int = 2,
    memory_rows: int = 0,
    views: int = 1,
    head: str = "yes_no",
    seed: int = 0,
    relevance_hidden: int = 0,
    refinement_axes: int = 0,
    vocab: int = TRUNK.vocab,
    tasks: int = 7,
    encoder: str = "taskwise",
) -> ModelSatNetwork:
    """A random network in evaluation mode; every parameter is drawn, so that nothing cancels by being zero."""
    torch.manual_seed(seed)
    tasks = memory_rows - 1 if memory_rows > 1 else tasks
    config = NetworkConfig(
        trunk=replace(TRUNK, vocab=vocab),
        capability_encoder=CapabilityEncoderConfig(
            kind=encoder,  # type: ignore[arg-type]
            size=TRUNK.hidden if encoder == "text" else 20,
            tasks=tasks,
            keyword_size=11,
        ),
        layout=layout,  # type: ignore[arg-type]
        inject_at=inject_at,
        memory_rows=memory_rows,
        views=views,
        head=head,  # type: ignore[arg-type]
        relevance_hidden=relevance_hidden,
        refinement_axes=refinement_axes,
    )
    network = ModelSatNetwork(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(parameter + 0.2 * torch.randn_like(parameter))
    if network.relevance is not None:
        network.relevance.describe(torch.randn(50, TRUNK.hidden))
    network.temperature.fill_(1.3)
    network.calibration_bias.fill_(-0.2)
    return network


def make_zoo(network: ModelSatNetwork, candidates: int, seed: int = 1) -> ConnectedZoo:
    """Random rows where the connector would have put them."""
    generator = torch.Generator().manual_seed(seed)
    config = network.config
    width = config.trunk.hidden + config.evidence_size
    start = torch.randn(candidates, config.views, width, generator=generator)
    if not config.memory_rows:
        return ConnectedZoo(start)
    shape = (candidates, config.views, config.memory_rows, config.trunk.hidden)
    return ConnectedZoo(start, torch.randn(shape, generator=generator))


def make_batch(lengths: list[int], seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids of the given lengths, padded with a real token id so that a broken mask shows."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, TRUNK.vocab, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return ids, mask.long()
