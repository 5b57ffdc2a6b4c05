"""What `modelsat doctor` says of TensorRT: usable for this bundle, or exactly why not, with the command that helps."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from modelsat_engine.errors import ModelSatError


def examine_tensorrt(bundle: Path | None) -> dict[str, Any]:
    """Packages, library, GPU and engines, JSON-able; looked at in this order, and the first that fails is the reason.

    Returns:
        ``usable``, ``reason`` (None where usable), ``tensorrt`` and ``cuda_bindings`` (versions, None where missing),
        ``gpu`` (why none can be used, or None), ``engines`` (those built for the bundle, each with why it does not fit
        this machine, or None) and ``build``, the command that builds one here.
    """
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.export.tensorrt.cache import EngineCache
    from modelsat_engine.export.tensorrt.engine_file import build_command
    from modelsat_engine.runtime.executors import tensorrt_device
    from modelsat_engine.runtime.executors.cuda_device import device_reason

    found: dict[str, Any] = {
        "usable": False,
        "reason": tensorrt_device.unavailable_reason(),
        "tensorrt": tensorrt_device.installed_version(),
        "cuda_bindings": _version("cuda-bindings"),
        "gpu": device_reason(),
        "engines": [],
        "build": None,
    }
    try:
        opened = Bundle.load(bundle)
    except ModelSatError as error:
        return {**found, "reason": found["reason"] or str(error)}
    found["build"] = build_command(opened)
    try:
        here = tensorrt_device.this_device() if found["reason"] is None else None
        if here is not None:
            tensorrt_device.find_engine(opened, here)
    except ModelSatError as error:
        here, found["reason"] = None, str(error)
    found["engines"] = [
        {
            "path": str(engine.path),
            "precision": engine.identity.precision,
            "plugins": bool(engine.identity.plugins_sha256),
            "built_on": str(engine.identity.device),
            "does_not_fit": None if here is None else engine.identity.refusal(opened, here),
        }
        for engine in EngineCache().engines()
        if engine.identity.bundle_hash == opened.hash
    ]
    return {**found, "usable": found["reason"] is None}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
