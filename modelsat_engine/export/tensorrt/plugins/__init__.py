"""Our kernels as ahead-of-time TensorRT plugins: their machine code goes into the engine, no Python into its use."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from modelsat_engine.errors import KernelError, MissingExtraError

_registered_for: int | None = None


def unavailable_reason() -> str | None:
    """Why the plugins cannot be built into an engine here, or None; the plain graph does without them."""
    import importlib.util

    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (pip install 'modelsat-engine[gpu]')"
    import tensorrt

    if not hasattr(tensorrt, "QuickPluginCreationRequest"):
        return f"TensorRT {tensorrt.__version__} has no ahead-of-time plugins; 10.14 has"
    return None


def register_plugins(capability: int) -> None:
    """Make the plugins known to TensorRT in this process.

    Args:
        capability: of the GPU to compile for, ten times the major number plus the minor one.

    Raises:
        MissingExtraError: Triton is missing.
        KernelError: they were registered for another GPU before, which TensorRT does not undo.
    """
    global _registered_for
    if _registered_for is None:
        try:
            from modelsat_engine.export.tensorrt.plugins import candidate_attention, scoring_head
        except ImportError as error:
            raise MissingExtraError("building our kernels into an engine", "gpu") from error
        candidate_attention.register(capability)
        scoring_head.register(capability)
        _registered_for = capability
    elif _registered_for != capability:
        raise KernelError(
            f"this process has compiled plugins for sm_{_registered_for}; start another one for sm_{capability}"
        )


def plugins_sha256() -> str:
    """What identifies the embedded kernels: their sources, their tiles, and the Triton that compiles them.

    Raises:
        MissingExtraError: Triton is missing.
    """
    try:
        import triton

        from modelsat_engine.kernels import compilation, normalization, specialization
        from modelsat_engine.kernels.candidate_attention import launch as attention_launch
        from modelsat_engine.kernels.candidate_attention import triton as attention_kernel
        from modelsat_engine.kernels.configs import TABLE_FILE
        from modelsat_engine.kernels.scoring_head import launch as head_launch
        from modelsat_engine.kernels.scoring_head import triton as head_kernel
    except ImportError as error:
        raise MissingExtraError("building our kernels into an engine", "gpu") from error
    modules = (
        *(compilation, normalization, specialization),
        *(attention_launch, attention_kernel, head_launch, head_kernel),
    )
    ours = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(triton.__version__.encode())
    for path in (TABLE_FILE, *ours):
        digest.update(path.read_bytes())
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()
