"""What TensorRT's ONNX parser takes of the operators in our graphs, and a check of a graph against it.

Source: the table "Operator Support Matrix" in docs/operators.md of the parser, onnx/onnx-tensorrt, of TensorRT 10.15,
and NVIDIA's ONNX opset guide of TensorRT 11 (opsets 9 to 25). The rows below are those of the operators that our
exports hold; types that no graph of ours uses are left out. TensorRT 10.14's parser takes the same of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelsat_engine.export.graph import Graph, Node

#: Opsets that TensorRT 10.14 to 11 all take.
OPSETS = range(9, 25)

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBERS | {TensorProto.BOOL}

#: Operator -> element types of its first input.
TYPES: dict[str, frozenset[int]] = {
    "Add": _NUMBERS,
    "Cast": _ANY,
    "Clip": _FLOATS,
    "Concat": _ANY,
    "DequantizeLinear": frozenset({TensorProto.INT8}),
    "Div": _NUMBERS,
    "Einsum": _FLOATS,
    "Exp": _FLOATS,
    "Expand": _ANY,
    "Gather": _ANY,
    "Gelu": _FLOATS,
    "Gemm": _FLOATS,
    "Greater": _NUMBERS,
    "LayerNormalization": _FLOATS,
    "MatMul": _FLOATS,
    "Max": _NUMBERS,
    "Mul": _NUMBERS,
    "Not": frozenset({TensorProto.BOOL}),
    "QuantizeLinear": _FLOATS,
    "Range": _NUMBERS,
    "ReduceMax": _NUMBERS,
    "ReduceMean": _NUMBERS,
    "ReduceSum": _NUMBERS,
    "Reshape": _ANY,
    "Shape": _ANY,
    "Sigmoid": _FLOATS,
    "Slice": _ANY,
    "Softmax": _FLOATS,
    "Split": _ANY,
    "Squeeze": _ANY,
    "Sub": _NUMBERS,
    "Transpose": _ANY,
    "Unsqueeze": _ANY,
    "Where": _ANY,
}
# Input that must be known when the network is built, by operator
_CONSTANT_INPUT = {"ReduceMax": 1, "ReduceMean": 1, "ReduceSum": 1, "Squeeze": 1, "Unsqueeze": 1}
# Operators whose operands a strongly typed network wants in one type, from the given input on
_ONE_TYPE = {"Add": 0, "Div": 0, "Max": 0, "Mul": 0, "Sub": 0, "MatMul": 0, "Gemm": 0, "Where": 1, "Concat": 0}


def unsupported(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 10.14 to 11 would refuse in a graph, a sentence each; empty when there is nothing.

    Args:
        model: with its weights; any ONNX model.
    """
    findings = [
        f"opset {opset.version} of {opset.domain or 'ai.onnx'}; TensorRT takes {OPSETS.start} to {OPSETS.stop - 1}"
        for opset in model.opset_import
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS
    ]
    graph = Graph(model)
    for node in graph.nodes:
        findings += [f"{node.op_type} {node.name or node.output[0]}: {finding}" for finding in _faults(graph, node)]
    return findings


def _faults(graph: Graph, node: Node) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in TYPES:
        yield "the operator is not in the table of those that TensorRT takes"
        return
    types = [graph.types.get(name) for name in node.input if name]
    if types and types[0] not in TYPES[node.op_type]:
        yield f"its input is {_named(types[0])}"
    start = _ONE_TYPE.get(node.op_type)
    if start is not None and len(set(types[start:])) > 1:
        yield f"its operands are of unlike types: {', '.join(map(_named, types[start:]))}"
    constant = _CONSTANT_INPUT.get(node.op_type)
    if constant is not None and len(node.input) > constant and node.input[constant] not in graph.constants:
        yield "its axes are computed"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        yield from _faults_of_quantisation(graph, node)
    if node.op_type == "Cast":
        (to,) = (attribute.i for attribute in node.attribute if attribute.name == "to")
        if to not in _ANY:
            yield f"it casts to {_named(to)}"
    if node.op_type == "LayerNormalization" and len(node.output) > 1:
        yield "only its first output is supported"


def _faults_of_quantisation(graph: Graph, node: Node) -> Iterator[str]:
    scale, zero = (graph.constants.get(name) for name in node.input[1:3])
    if scale is None or not (np.asarray(scale) > 0).all():
        yield "its scale is no positive constant"
    if zero is None or np.any(zero):
        yield "its zero point is not 0"
    elif zero.dtype != np.int8:
        yield f"it quantises to {zero.dtype}"
    if node.op_type == "QuantizeLinear" and scale is not None and scale.ndim:
        yield "an activation has more than one scale"


def _named(element_type: int | None) -> str:
    return "of no known type" if element_type is None else helper.tensor_dtype_to_string(element_type).split(".")[-1]
