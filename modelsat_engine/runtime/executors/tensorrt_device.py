"""Is TensorRT usable here, on which GPU, and which engine is there for a bundle? Asked before anything is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.cache import EngineCache
from modelsat_engine.export.tensorrt.engine_file import Device, EngineFile, build_command, version_numbers
from modelsat_engine.runtime.executors.cuda_device import device_reason

#: Names the engine file to use; by default the newest one that was built for the bundle.
ENGINE_VARIABLE = "MODELSAT_TENSORRT_ENGINE"
LEAST_TENSORRT = (10, 14)
_PACKAGES = {"tensorrt": "tensorrt", "cuda-bindings": "cuda.bindings"}
_INSTALL = "pip install 'modelsat-engine[tensorrt]'"


def unavailable_reason() -> str | None:
    """Why the TensorRT executor cannot be used on this machine, or None.

    Takes milliseconds where a package or a GPU is missing; where both are there, TensorRT's library is loaded.
    """
    device, install = device_reason(), missing_packages()
    if device is not None or install is not None:
        return "; ".join(reason for reason in (device, install) if reason is not None)
    return library_reason()


def missing_packages() -> str | None:
    """Which packages are not installed and how to get them, or None."""
    missing = [package for package, module in _PACKAGES.items() if not _is_installed(module)]
    return f"{' and '.join(missing)} not installed ({_INSTALL})" if missing else None


def library_reason() -> str | None:
    """Why TensorRT's own library cannot be used, or None. Loads it."""
    try:
        import tensorrt
    except Exception as error:  # the wheel's loader raises ImportError, OSError and FileNotFoundError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"TensorRT is installed but its library cannot be loaded ({reason}); {_INSTALL} --force-reinstall"
    version = str(tensorrt.__version__)
    if version_numbers(version)[:2] < LEAST_TENSORRT:
        return f"TensorRT {version} is too old, {'.'.join(map(str, LEAST_TENSORRT))} is needed; {_INSTALL} --upgrade"
    return None


def unsupported_reason(bundle: Bundle) -> str | None:
    """Why the TensorRT executor cannot score for a bundle, whatever the GPU: its layout, or no engine; or None."""
    if bundle.config.get("layout") != "shared":
        return f"it runs the layout 'shared', not {bundle.config.get('layout')!r}"
    try:
        find_engine(bundle)
    except ExecutorError as error:
        return str(error)
    return None


def find_engine(bundle: Bundle, here: Device | None = None) -> EngineFile:
    """The engine for a bundle: the one that ``MODELSAT_TENSORRT_ENGINE`` names, else the newest that fits. Builds none.

    Args:
        here: the GPU and TensorRT to run it; None asks for the bundle alone.

    Raises:
        ExecutorError: there is none, or those that are there belong to another router, GPU or version; the message
            names what they were built for and the command that builds one here.
    """
    named = os.environ.get(ENGINE_VARIABLE)
    if named:
        engine = EngineFile.open(Path(named))
        reason = engine.identity.refusal(bundle, here)
        if reason is not None:
            raise ExecutorError(f"{named}: {reason}")
        return engine
    of_bundle = [engine for engine in EngineCache().engines() if engine.identity.bundle_hash == bundle.hash]
    reasons = [engine.identity.refusal(bundle, here) for engine in of_bundle]
    for engine, reason in zip(of_bundle, reasons, strict=True):
        if reason is None:
            return engine
    if reasons:
        raise ExecutorError(str(reasons[0]))
    raise ExecutorError(f"no engine is built for {bundle.label}; build one here: {build_command(bundle)}")


def this_device() -> Device:
    """The first visible GPU and the TensorRT that is installed.

    Raises:
        ExecutorError: TensorRT cannot be used here; the message says why.
    """
    reason = unavailable_reason()
    if reason is not None:
        raise ExecutorError(f"TensorRT cannot be used: {reason}")
    import tensorrt

    from modelsat_engine.runtime.executors.cuda_host import CudaError, device_properties

    try:
        name, (major, minor) = device_properties(0)
    except CudaError as error:
        raise ExecutorError(f"the GPU does not answer ({error}); look at what nvidia-smi says") from error
    version = ".".join(map(str, version_numbers(str(tensorrt.__version__))))
    return Device(name, f"{major}.{minor}", version)


def installed_version() -> str | None:
    """The version of the package, without loading it, or None."""
    owners = importlib.metadata.packages_distributions().get("tensorrt", [])
    return importlib.metadata.version(owners[0]) if owners else None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
