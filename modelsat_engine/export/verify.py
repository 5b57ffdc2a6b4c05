"""Does ONNX Runtime say what the network says? Compared on unlike shapes, before a bundle is written and on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.calibration_texts import calibration_instructions
from modelsat_engine.export.low_precision import rounded_to
from modelsat_engine.export.network import network_of
from modelsat_engine.export.precision import load_export
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.runtime.onnx_session import open_session, session_of_model

#: (batch, tokens, zoo) of the three comparisons: one of everything, odd sizes, and long with a large zoo.
SHAPES = ((1, 1, 1), (5, 37, 13), (2, 128, 101))
#: The same for an exported file; instructions are no longer than the router reads.
FILE_SHAPES = ((1, 3, 1), (1, 16, 10), (3, 37, 13), (17, 23, 3), (7, 5, 101), (1, 128, 7), (2, 101, 50), (13, 64, 10))
#: precision -> the largest and the mean difference of a probability, and the share of equal choices, that a file of the
#: shipped router keeps; `modelsat export --verify` fails beyond them.
BOUNDS: dict[str, dict[str, float]] = {
    "fp32": {"max_abs_dp": 1e-4, "mean_abs_dp": 1e-5, "route_agreement": 1.0},
    "fp16": {"max_abs_dp": 2e-3, "mean_abs_dp": 2e-4, "route_agreement": 0.99},
    "bf16": {"max_abs_dp": 2e-2, "mean_abs_dp": 2e-3, "route_agreement": 0.97},
    "int8": {"max_abs_dp": 1e-1, "mean_abs_dp": 2e-2, "route_agreement": 0.9},
}
_EMULATED = "float32 with every bf16 value rounded: ONNX Runtime has no bf16 products on the CPU"


def verify_file(
    bundle: Bundle, path: Path, shapes: tuple[tuple[int, int, int], ...] = FILE_SHAPES, seed: int = 0
) -> dict[str, Any]:
    """Compares an exported file with the network in PyTorch, float32, on instructions and candidates made for it.

    Instructions are pieces of the package's own texts, candidates are drawn around the bundle's.

    Returns:
        ``ran`` (what computed the file's side), one row a shape under ``shapes``, ``max_abs_dp``, ``mean_abs_dp``,
        ``route_agreement`` over all of them, ``bounds``, and ``holds``: whether all three bounds are kept.

    Raises:
        BundleError: the file is of another router, or of no router of ours.
        ExecutorError: ONNX Runtime refuses it.
    """
    model, facts = load_export(bundle, path)
    network = network_of(bundle)
    emulated = facts["precision"] == "bf16"
    session = session_of_model(rounded_to(model), threads=1) if emulated else open_session(path, threads=1)
    rows, differences, equal = [], [], []
    for feeds in _feeds(bundle, network, shapes, seed):
        (probability,) = session.run(["probability"], feeds)
        with torch.inference_mode():
            expected = network(*(torch.from_numpy(array.copy()) for array in feeds.values()))[0].numpy()
        difference = np.abs(probability - expected)
        same = probability.argmax(1) == expected.argmax(1)
        differences.append(difference.ravel())
        equal.append(same)
        rows.append(
            {
                **dict(zip(("batch", "tokens"), feeds["input_ids"].shape, strict=True)),
                "zoo": probability.shape[1],
                "max_abs_dp": float(difference.max()),
                "mean_abs_dp": float(difference.mean()),
                "route_agreement": float(same.mean()),
            }
        )
    found = {
        "max_abs_dp": float(np.concatenate(differences).max()),
        "mean_abs_dp": float(np.concatenate(differences).mean()),
        "route_agreement": float(np.concatenate(equal).mean()),
    }
    bounds = BOUNDS[facts["precision"]]
    holds = found["route_agreement"] >= bounds["route_agreement"] and all(
        found[name] <= bounds[name] for name in ("max_abs_dp", "mean_abs_dp")
    )
    ran = _EMULATED if emulated else "ONNX Runtime, " + ", ".join(session.get_providers())
    return {"ran": ran, "shapes": rows, **found, "bounds": bounds, "holds": holds}


def _feeds(
    bundle: Bundle, network: ModelSatNetwork, shapes: tuple[tuple[int, int, int], ...], seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """The graph's inputs at each shape, rows of unlike lengths, the first as long as the shape says."""
    limit = int(bundle.config["tokenizer"]["max_instruction_tokens"])
    tokenizer = InstructionTokenizer.from_file(bundle.file("tokenizer.json"), limit)
    encoder = CapabilityEncoder(bundle, tokenizer)
    tokens = [tokenizer.tokenise(text).token_ids for text in calibration_instructions(bundle.aptitude_test)]
    for number, (batch, longest, zoo) in enumerate(shapes):
        rng = np.random.default_rng((seed, number))
        stream = np.concatenate([tokens[index] for index in rng.permutation(len(tokens))])
        lengths = rng.integers(1, min(longest, limit) + 1, batch)
        lengths[0] = min(longest, limit)
        mask = np.arange(lengths[0]) < lengths[:, None]  # [B, S]
        starts = rng.integers(0, max(1, len(stream) - lengths[0]), batch)
        ids = np.stack([np.resize(stream[start:], lengths[0]) for start in starts]).astype(np.int64)
        candidates = encoder.encode_together(_drawn_profiles(bundle, zoo, rng))
        feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "inquiry_start": candidates.inquiry_start}
        yield feeds if candidates.memory is None else {**feeds, "memory": candidates.memory}


def _drawn_profiles(bundle: Bundle, count: int, rng: np.random.Generator) -> list[CapabilityProfile]:
    """Candidates that answered as one of the zoo would, question by question; where there is none, anyhow."""
    profiles = []
    test = bundle.aptitude_test
    for number in range(count):
        total = np.array([len(task.item_ids) for task in test.tasks])
        share = rng.random(len(total))
        if bundle.zoo:
            correct, answered = bundle.zoo[int(rng.integers(len(bundle.zoo)))].counts(test)
            share = (correct + 0.5) / (answered + 1)
        drawn = rng.binomial(total, share).tolist()
        names = [task.name for task in test.tasks]
        profiles.append(
            CapabilityProfile(
                f"drawn {number}",
                dict(zip(names, drawn, strict=True)),
                dict(zip(names, total.tolist(), strict=True)),
                test_id=test.id,
            )
        )
    return profiles


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
