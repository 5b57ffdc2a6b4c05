"""Bundles of small random networks: real weights and a real capability graph; router.onnx and tokenizer are toys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.onnx import export_capability
from modelsat_engine.export.quantization import quantize_network
from modelsat_engine.model.network import ModelSatNetwork
from tests.model.random_networks import TRUNK, make_network
from tests.runtime.tiny_bundle import SUBJECTS, tiny_tokenizer, write_tiny_bundle

#: Every kind of router that a graph can be made of: layouts, injection layers, memory rows, views, heads.
KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "entering at the first layer": {"inject_at": 0, "head": "regression"},
    "relevance head": {"relevance_hidden": 13},
    "axes to refine on": {"relevance_hidden": 13, "refinement_axes": 5},
    "one memory row": {"memory_rows": 1},
    "memory row a task": {"memory_rows": len(SUBJECTS) + 1, "inject_at": 3},
    "two views of a text": {"views": 2, "encoder": "text"},
    "uncut": {"layout": "capability_first"},
    "uncut, memory and views": {"layout": "capability_first", "memory_rows": 1, "views": 2, "encoder": "text"},
}


def random_network(seed: int = 3, **kind: Any) -> ModelSatNetwork:
    """A network that reads the toy tokenizer, with logits of about one, so that probabilities differ."""
    network = make_network(seed=seed, vocab=tiny_tokenizer().get_vocab_size(), tasks=len(SUBJECTS), **kind)
    torch.manual_seed(seed)
    for parameter in network.head.parameters():
        parameter.copy_(torch.randn_like(parameter) / math.sqrt(TRUNK.hidden))
    return network


def write_random_bundle(directory: Path, seed: int = 3, **kind: Any) -> Bundle:
    """A bundle around such a network, from which `export_onnx` makes graphs."""
    write_tiny_bundle(directory)
    network = random_network(seed, **kind)
    quantize_network(network)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, directory / "weights.safetensors")
    export_capability(network, directory)
    config = json.loads((directory / "router.json").read_text())
    config |= {**network.config.to_json(), "evidence_size": network.config.evidence_size}
    if axes := network.config.refinement_axes:
        config["refinement"] = {"axes": "sha256:drawn", "prior_variance": [0.5] * axes}
    config["quantization"] = {"weights": "int8"}
    (directory / "router.json").write_text(json.dumps(config))
    write_manifest(directory)
    return Bundle.load(directory)
