"""The network of a bundle, back in PyTorch: the one definition that every export starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelsat_engine.errors import BundleError, MissingExtraError
from modelsat_engine.export.bundle import Bundle

try:
    from safetensors.torch import load_file
except ImportError:
    raise MissingExtraError("exporting a router", "export") from None

from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.network import ModelSatNetwork

# What a network without a relevance head leaves out of the bundle's weights.
_OF_THE_RELEVANCE_HEAD = ("relevance.", "capability.note_evidence.")


def network_of(bundle: Bundle, **config: Any) -> ModelSatNetwork:
    """The bundle's network in evaluation mode, its int8 weights dequantised to float32.

    Args:
        bundle: any router whose weights are the parameters of `ModelSatNetwork`.
        config: fields of the network's configuration that replace the bundle's.

    Raises:
        BundleError: the weights are not those of the network that router.json describes.
    """
    try:
        stored = load_file(bundle.file("weights.safetensors"))
        state = {
            name: tensor.float() * stored[f"{name}_scale"][:, None] if f"{name}_scale" in stored else tensor
            for name, tensor in stored.items()
            if not name.endswith("weight_scale")
        }
        network = ModelSatNetwork(replace(NetworkConfig.from_json(dict(bundle.config)), **config))
        if network.relevance is None:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(_OF_THE_RELEVANCE_HEAD)}
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise BundleError(
            f"bundle {bundle.path}: the weights are not those of the network in router.json "
            f"({' '.join(str(error).split())[:200]}); export the bundle again"
        ) from error
    return network.eval().requires_grad_(False)
