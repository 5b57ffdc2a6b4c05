"""The ONNX graph that an engine is built from: whose it is, and its bytes with all weights inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.precision import Precision, load_export, router_model


@dataclass(frozen=True, eq=False)
class Graph:
    """One router's graph.

    Attributes:
        model: with all weights inside.
        precision: such as ``fp16``.
    """

    model: onnx.ModelProto
    precision: str

    def serialize(self) -> bytes:
        """The bytes that TensorRT parses; equal graphs have equal bytes."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data


def open_graph(bundle: Bundle, precision: Precision = "fp32", path: Path | None = None) -> Graph:
    """A bundle's graph, made anew or read from a file.

    Args:
        precision: of the graph that is made; a file has its own.
        path: what ``modelsat export --to onnx`` wrote earlier.

    Raises:
        BundleError: the file is of another bundle, or no graph of a router.
        DataError: the file cannot be read.
    """
    if path is None:
        return Graph(router_model(bundle, precision), precision)
    model, facts = load_export(bundle, path)
    return Graph(model, facts["precision"])


def sha256_of(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
