"""The ONNX graph that an engine is built from: whose it is, and its bytes with all weights inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsat_engine.errors import BundleError, MissingExtraError
from modelsat_engine.export.bundle import Bundle

try:
    import onnx
except ImportError:
    raise MissingExtraError("building a TensorRT engine", "export") from None

#: Keys of `metadata_props` that an exported graph carries.
BUNDLE_KEY = "modelsat.bundle_hash"
PRECISION_KEY = "modelsat.precision"


@dataclass(frozen=True, eq=False)
class Graph:
    """One router's graph.

    Attributes:
        model: with all weights inside.
        precision: such as ``fp16``.
    """

    model: Any
    precision: str

    def serialize(self) -> bytes:
        """The bytes that TensorRT parses; equal graphs have equal bytes."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data


def open_graph(path: Path, bundle: Bundle) -> Graph:
    """Read a graph that was exported from a bundle.

    Args:
        path: the file; weights beside it are read into the graph.

    Raises:
        BundleError: it cannot be read, does not say whose it is, or belongs to another bundle.
    """
    again = "export it again: modelsat export --to onnx"
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, the system and onnx's own checks of external data each have their classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(f"cannot read the ONNX graph {path}: {reason}; {again}") from error
    facts = {entry.key: entry.value for entry in model.metadata_props}
    owner = facts.get(BUNDLE_KEY)
    if owner is None:
        raise BundleError(f"{path} does not say which bundle it is of ({BUNDLE_KEY}); {again}")
    if owner != bundle.hash:
        raise BundleError(
            f"{path} was exported from the bundle {owner}, not from {bundle.label} ({bundle.hash}); {again}, or name "
            "its bundle with --bundle"
        )
    inputs = {value.name for value in model.graph.input}
    wanted = {"input_ids", "attention_mask", "inquiry_start"} | ({"memory"} if bundle.config["memory_rows"] else set())
    if inputs != wanted:
        raise BundleError(f"{path} takes the inputs {sorted(inputs)}, need {sorted(wanted)}; {again}")
    return Graph(model, facts.get(PRECISION_KEY, "fp32"))


def onnx_for(bundle: Bundle, precision: str) -> Path:
    """A graph of the bundle in one precision.

    Raises:
        BundleError: the bundle has no graph of that precision.
    """
    if precision != "fp32":
        raise BundleError(f"{bundle.label} has no graph in {precision}; use --precision fp32")
    return bundle.file("router.onnx")


def sha256_of(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
