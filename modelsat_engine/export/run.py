"""`modelsat export`: a trained checkpoint becomes a bundle, checked against the network it came from."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelsat_engine.errors import BundleError, DataError
from modelsat_engine.evaluation.scenarios import SCENARIO_NAMES
from modelsat_engine.export.bundle import FORMAT_VERSION, Bundle, write_manifest
from modelsat_engine.export.onnx import WEIGHTS_FILE, export_capability, export_router
from modelsat_engine.export.quantization import SCHEME, quantize_network
from modelsat_engine.export.verify import compare_with_onnxruntime
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.training.inputs import MAX_NOTE_TOKENS

LARGEST_DIFFERENCE = 1e-4
_COPIED = ("tokenizer.json", "aptitude.json", "zoo.json")


def export(
    checkpoint: str | Path,
    output: str | Path,
    max_instruction_tokens: int | None = None,
    quality: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a bundle; nothing stays behind when it fails.

    Args:
        checkpoint: directory that `modelsat train` wrote.
        output: directory of the bundle; an older bundle there is replaced.
        max_instruction_tokens: longest instruction; by default what the router was trained on.
        quality: measured results to record in router.json.

    Returns:
        ``{"bundle", "hash", "bytes", "largest_difference"}``, the last one between torch and ONNX Runtime.

    Raises:
        DataError: the checkpoint is incomplete. BundleError: torch and ONNX Runtime disagree, or `output` holds
            something that is not a bundle.
    """
    source, target = Path(checkpoint), Path(output)
    network, run = load_checkpoint(source)
    if target.exists() and not (target / "MANIFEST.json").is_file():
        raise BundleError(f"{target} exists and is not a bundle; give another output directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        directory = Path(scratch) / "bundle"
        directory.mkdir()
        quantize_network(network)
        _save_weights(network, directory / WEIGHTS_FILE)
        for name in _COPIED:
            shutil.copyfile(source / name, directory / name)
        limit = max_instruction_tokens or run["recipe"]["samples"]["max_tokens"]
        router = _router_json(network.config, run, limit, quality)
        (directory / "router.json").write_text(json.dumps(router, indent=1) + "\n", encoding="utf-8")
        export_router(network, directory)
        export_capability(network, directory)
        difference = compare_with_onnxruntime(network, directory)
        if difference > LARGEST_DIFFERENCE:
            raise BundleError(f"torch and ONNX Runtime differ by {difference:.2e}, more than {LARGEST_DIFFERENCE:.0e}")
        write_manifest(directory)
        bundle = Bundle.load(directory)
        size = sum(file.stat().st_size for file in directory.iterdir())
        if target.exists():
            os.replace(target, Path(scratch) / "replaced")
        os.replace(directory, target)
    return {"bundle": str(target), "hash": bundle.hash, "bytes": size, "largest_difference": difference}


def load_checkpoint(directory: Path) -> tuple[ModelSatNetwork, dict[str, Any]]:
    """The trained network (float32, evaluation mode) and run.json of a checkpoint.

    Raises:
        DataError: a file is missing or does not fit the recipe.
    """
    from safetensors.torch import load_file

    for name in ("run.json", "network.safetensors", *_COPIED):
        if not (directory / name).is_file():
            raise DataError(f"{directory} is not a finished training run: {name} is missing")
    run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    network = ModelSatNetwork(NetworkConfig.from_json(run["recipe"]["network"]))
    try:
        network.load_state_dict(load_file(directory / "network.safetensors"))
    except RuntimeError as error:
        raise DataError(f"{directory}: the weights do not fit the recipe in run.json: {error}") from None
    return network.eval().requires_grad_(False), run


def _save_weights(network: ModelSatNetwork, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    path.chmod(0o644)  # the library writes it for its owner alone


def _router_json(
    config: NetworkConfig, run: dict[str, Any], max_instruction_tokens: int, quality: dict[str, Any] | None
) -> dict[str, Any]:
    recipe = dict(run["recipe"])
    recipe.pop("network")
    return {
        "format_version": FORMAT_VERSION,
        "name": recipe["name"],
        "license": "Apache-2.0",
        **config.to_json(),
        "evidence_size": config.evidence_size,
        **({"refinement": run["refinement"]} if config.refinement_axes else {}),
        "tokenizer": {"max_instruction_tokens": max_instruction_tokens, "max_note_tokens": MAX_NOTE_TOKENS},
        "aptitude_test_id": run["aptitude_test_id"],
        "calibration": run["calibration"],
        "quantization": SCHEME,
        "training": {
            "recipe": recipe,
            "base_weights": run["base_weights"],
            "data": run["data"],
            "teacher": run.get("teacher"),
            "steps": run["steps"],
            "best_step": run["best_step"],
            "split": run["split"],
            "torch": version("torch").partition("+")[0],
        },
        "quality": _in_short(quality or {}),
    }


def _in_short(quality: dict[str, Any]) -> dict[str, Any]:
    """Of what `modelsat evaluate` measured: models the router knows, models it does not, data it does not."""
    scenarios = quality.get("scenarios")
    if not isinstance(scenarios, dict):
        return quality
    told = ("models", "questions", "predictions", "zoos")
    return {
        "settings": quality.get("settings", {}),
        "scenarios": {
            name: {key: value for key, value in scenarios[name].items() if key in told}
            for name in SCENARIO_NAMES
            if name in scenarios
        },
    }
