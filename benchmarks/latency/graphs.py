"""The bundle's router.onnx for runtimes that want plain float32 weights, and the same graph in dynamic int8."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Attributes = dict[str, Any]

# What lies between a stored int8 weight and the product that uses it.
_FOLDED: dict[str, Callable[[list[np.ndarray], Attributes], np.ndarray]] = {
    "Cast": lambda inputs, attributes: inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"])),
    "Unsqueeze": lambda inputs, _: np.expand_dims(inputs[0], tuple(np.atleast_1d(inputs[1]).tolist())),
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes["perm"]),
}


def write_float32_graph(source: Path, target: Path) -> None:
    """``source`` with every dequantised weight stored as the float32 matrix that its product reads.

    Two more changes that keep the result: the word embedding stays int8, since rows are dequantised after they are
    looked up; and a product with a vector becomes one with a matrix of one column, because OpenVINO cannot compile
    the head otherwise.
    """
    model = onnx.load(str(source))
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type in _FOLDED and all(name in known for name in node.input):
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            folded = _FOLDED[node.op_type]([known[name] for name in node.input], attributes)
            known[node.output[0]] = np.ascontiguousarray(folded)
        else:
            nodes.append(node)
    column = np.array([-1])
    for index in reversed([i for i, node in enumerate(nodes) if _multiplies_a_vector(node, nodes, known)]):
        (rows, vector), (result,) = nodes[index].input, nodes[index].output
        known["last_axis"] = column
        nodes[index : index + 1] = [
            helper.make_node("Unsqueeze", [vector, "last_axis"], [f"{vector}_column"]),
            helper.make_node("MatMul", [rows, f"{vector}_column"], [f"{result}_column"]),
            helper.make_node("Squeeze", [f"{result}_column", "last_axis"], [result]),
        ]
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in known.items() if name in used and name not in made
    )
    onnx.save(model, str(target))


def write_int8_graph(float32_graph: Path, target: Path) -> None:
    """ONNX Runtime's own dynamic quantisation: int8 weights per channel, uint8 activations per tensor at run time."""
    from onnxruntime.quantization import quantize_dynamic

    logging.disable(logging.WARNING)  # it advises a pre-processing step that changes nothing for this graph
    try:
        quantize_dynamic(str(float32_graph), str(target), per_channel=True, op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(logging.NOTSET)


def _multiplies_a_vector(node: onnx.NodeProto, nodes: list[onnx.NodeProto], known: dict[str, np.ndarray]) -> bool:
    """Whether this is the head: a product whose second argument is the difference of two rows of a weight."""
    if node.op_type != "MatMul":
        return False
    if node.input[1] in known:
        return bool(known[node.input[1]].ndim == 1)
    makers = [other for other in nodes if node.input[1] in other.output]
    return bool(makers) and makers[0].op_type == "Sub"
