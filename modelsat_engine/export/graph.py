"""A graph whose nodes can be replaced: what passes over an exported router share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Node = onnx.NodeProto


class Graph:
    """A copy of an ONNX model as nodes in order and constants by name; `model` gives it back as one.

    Attributes:
        nodes: in an order in which they can run.
        constants: initializers and values of Constant nodes.
        types: ``TensorProto`` element type of every value that is known; what a pass adds, it enters.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes: list[Node] = []
        for node in map(_copy, model.graph.node):
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in self.constants.items()}
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        del self._model.graph.node[:], self._model.graph.initializer[:], self._model.graph.value_info[:]
        self._fold_transposes()

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [value.name for value in self._model.graph.output]

    def add_constant(self, name: str, array: np.ndarray, element_type: int | None = None) -> str:
        """A constant under that name; ``element_type`` where the array's own is not ONNX's name for it."""
        self.constants[name] = array
        self.types[name] = element_type or helper.np_dtype_to_tensor_dtype(array.dtype)
        return name

    def consumers(self) -> dict[str, list[Node]]:
        """Value -> the nodes that read it."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return readers

    def name_constants(self, named: Mapping[str, np.ndarray]) -> None:
        """Gives constants the names of parameters that they equal, or are the transpose of.

        Folding leaves numbers for names; a reader of the file, and whoever refits an engine, wants the parameter's.
        """
        wanted = {_digest(array): name for name, array in named.items()}
        wanted |= {_digest(array.T): name for name, array in named.items() if array.ndim == 2}
        renamed: dict[str, str] = {}
        for name, array in self.constants.items():
            parameter = wanted.get(_digest(array)) if array.ndim else None
            if parameter is not None and parameter not in self.constants and parameter not in renamed.values():
                renamed[name] = parameter
        self._rename(renamed)

    def model(self) -> onnx.ModelProto:
        """The graph as it is now, without constants that nobody reads."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        used = {name for node in self.nodes for name in node.input}
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(
            _tensor(name, self.constants[name]) for name in sorted(used & set(self.constants))
        )
        return model

    def _fold_transposes(self) -> None:
        """Weights lie as their products read them, ``[in, out]``."""
        kept = []
        for node in self.nodes:
            if node.op_type == "Transpose" and node.input[0] in self.constants:
                (permutation,) = (helper.get_attribute_value(attribute) for attribute in node.attribute)
                self.add_constant(node.output[0], self.constants[node.input[0]].transpose(permutation))
            else:
                kept.append(node)
        self.nodes = kept
        used = {name for node in kept for name in node.input}
        self.constants = {name: array for name, array in self.constants.items() if name in used}

    def _rename(self, renamed: Mapping[str, str]) -> None:
        for old, new in renamed.items():
            self.constants[new] = self.constants.pop(old)
            self.types[new] = self.types.pop(old)
        for node in self.nodes:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)


def _copy(node: Node) -> Node:
    copy = Node()
    copy.CopyFrom(node)
    return copy


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).digest()


def _tensor(name: str, array: np.ndarray) -> TensorProto:
    tensor: TensorProto = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    return tensor
