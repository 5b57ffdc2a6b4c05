"""Does ONNX Runtime say what the network says? Compared on unlike shapes before a bundle is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork
from modelsat_engine.runtime.onnx_session import open_session

#: (batch, tokens, zoo) of the three comparisons: one of everything, odd sizes, and long with a large zoo.
SHAPES = ((1, 1, 1), (5, 37, 13), (2, 128, 101))


def compare_with_onnxruntime(
    network: ModelSatNetwork, directory: Path, shapes: tuple[tuple[int, int, int], ...] = SHAPES
) -> float:
    """Largest difference of a probability between torch and ONNX Runtime, both graphs in a row.

    Args:
        network: with the weights that ``directory/weights.safetensors`` holds.
        directory: holds ``router.onnx`` and ``capability.onnx``.
        shapes: (batch, tokens, zoo) to compare on; random tokens, lengths and profiles of a fixed seed.
    """
    sessions = [open_session(directory / name, threads=1) for name in ("capability.onnx", "router.onnx")]
    largest = 0.0
    for number, (batch, tokens, zoo) in enumerate(shapes):
        rng = np.random.default_rng(number)
        tokens = min(tokens, network.config.trunk.max_positions)
        profiles = _random_profiles(network, zoo, rng)
        lengths = rng.integers(1, tokens + 1, batch)
        lengths[0] = tokens
        ids = rng.integers(1, network.config.trunk.vocab, (batch, tokens))
        mask = (np.arange(tokens)[None] < lengths[:, None]).astype(np.int64)
        rows = sessions[0].run(None, profiles)
        names = ("inquiry_start", "memory")[: len(rows)]
        table = dict(zip(names, rows, strict=True))
        (probability,) = sessions[1].run(["probability"], {"input_ids": ids, "attention_mask": mask, **table})
        with torch.inference_mode():
            connected = _connect(network, profiles)
            expected = network.score_zoo(torch.from_numpy(ids), torch.from_numpy(mask), connected).numpy()
        largest = max(largest, float(np.abs(probability - expected).max()))
    return largest


def _connect(network: ModelSatNetwork, profiles: dict[str, np.ndarray]) -> ConnectedZoo:
    tensors = [torch.from_numpy(value) for value in profiles.values()]
    if network.config.capability_encoder.kind == "text":
        return network.connect_text(*tensors)
    return network.connect_counts(*tensors)


def _random_profiles(network: ModelSatNetwork, zoo: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    config = network.config
    if config.capability_encoder.kind == "text":
        ids = rng.integers(1, config.trunk.vocab, (zoo, config.views, 29))
        return {"capability_ids": ids, "capability_mask": np.ones_like(ids)}
    total = rng.integers(0, 21, (zoo, config.capability_encoder.tasks)).astype(np.float32)
    ids = rng.integers(1, config.trunk.vocab, (zoo, 6))
    return {
        "correct": np.floor(total * rng.random(total.shape, np.float32)),
        "total": total,
        "note_ids": ids,
        "note_mask": (np.arange(6)[None] < rng.integers(0, 7, zoo)[:, None]).astype(np.int64),
    }
