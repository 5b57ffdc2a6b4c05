"""Engine identities for tests: of a bundle, on a GPU that no machine here needs to have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.engine_file import Device, EngineIdentity
from modelsat_engine.export.tensorrt.profiles import RouterSizes, standard_profiles

H100 = Device("NVIDIA H100 80GB HBM3", "9.0", "11.4.0.106")


def identity_of(bundle: Bundle, **changed: Any) -> EngineIdentity:
    """An engine of a bundle on `H100`, in fp16, without plugins."""
    made = EngineIdentity(
        bundle_hash=bundle.hash,
        bundle_name="mini",
        onnx_sha256="ab" * 32,
        precision="fp16",
        device=H100,
        profiles=standard_profiles(RouterSizes.of(bundle.config)),
    )
    return replace(made, **changed)
