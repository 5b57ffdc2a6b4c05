"""int8 graphs: the trunk's linear layers between QuantizeLinear and DequantizeLinear, the way TensorRT reads them.

Weights are int8 with a scale per output channel, the bundle's own. Activations are int8 with one static scale per
layer input and zero point 0, which is all that TensorRT takes. Many inputs are far from symmetric around 0 (GELU never
goes below -0.17; LayerNorm has a few columns with a mean of their own), so the middle c of every column is taken off
before quantisation and given back by the bias, which changes nothing in exact arithmetic::

    W x + b  =  W (x - c) + (b + W c)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from onnx import helper

from modelsat_engine.errors import BundleError
from modelsat_engine.export.calibration import Observed
from modelsat_engine.export.graph import Graph, Node
from modelsat_engine.export.quantization import quantize_rows


def linear_layers(graph: Graph) -> list[Node]:
    """The products of rows with a weight matrix, ``[..., in] x [in, out]``, in the trunk."""
    return [
        node
        for node in graph.nodes
        if node.op_type == "MatMul" and node.input[1] in graph.constants and graph.constants[node.input[1]].ndim == 2
    ]


def linear_inputs(graph: Graph) -> list[str]:
    """The values that `linear_layers` read, each once."""
    return list(dict.fromkeys(node.input[0] for node in linear_layers(graph)))


def merge_layers(graph: Graph) -> None:
    """Makes one product of all that read the same rows, such as query, key and value, in place.

    ONNX Runtime on x86 turns int8 activations into uint8 where one product reads them; where several do, it would
    multiply in float32.
    """
    biased = _bias_of_each(graph)
    groups: dict[str, list[Node]] = {}
    for node in linear_layers(graph):
        groups.setdefault(node.input[0], []).append(node)
    merged: dict[int, list[Node]] = {}  # first product of a group -> what takes its place
    gone: set[int] = set()
    for value, products in groups.items():
        if len(products) == 1:
            continue
        gone |= {id(node) for product in products for node in (product, biased[product.output[0]][0])}
        first = products[0]
        products.sort(key=lambda node: node.input[1])
        weights = [graph.constants[node.input[1]] for node in products]  # [in, out_i]
        adds = [biased[node.output[0]] for node in products]
        # stored once where the same layer reads other rows as well
        name = "+".join(node.input[1].removesuffix(".weight") for node in products)
        weight = graph.add_constant(f"{name}.weight", np.concatenate(weights, 1))
        bias = graph.add_constant(f"{name}.bias", np.concatenate([graph.constants[bias] for _, bias in adds]))
        sizes = graph.add_constant(f"{name}.sizes", np.array([array.shape[1] for array in weights]))
        product, total = f"{value}_products", f"{value}_layers"
        graph.types |= {product: graph.types[value], total: graph.types[value]}
        merged[id(first)] = [
            helper.make_node("MatMul", [value, weight], [product]),
            helper.make_node("Add", [product, bias], [total]),
            # its name says whose bias each output has: TensorRT's plugins are put in by that
            helper.make_node(
                "Split",
                [total, sizes],
                [add.output[0] for add, _ in adds],
                f"{' '.join(bias for _, bias in adds)} of {value}",
                axis=-1,
            ),
        ]
    graph.nodes = [new for node in graph.nodes for new in merged.get(id(node), [] if id(node) in gone else [node])]


def quantise(graph: Graph, observed: Mapping[str, Observed]) -> None:
    """Puts the linear layers of a float32 graph between Q and DQ, in place.

    Args:
        observed: every value of `linear_inputs`.
    """
    merge_layers(graph)
    layers = {id(node) for node in linear_layers(graph)}
    biased = _bias_of_each(graph)
    nodes: list[Node] = []
    inputs: dict[str, tuple[list[str], np.ndarray]] = {}
    for node in graph.nodes:
        if id(node) in layers:
            value, weight_name = node.input
            if value not in inputs:
                inputs[value] = _quantise_input(graph, nodes, value, observed[value])
            quantised, middle = inputs[value]
            restored = f"{node.output[0]}_rows"
            nodes.append(helper.make_node("DequantizeLinear", quantised, [restored]))
            weight, matrix = _quantise_weight(graph, nodes, weight_name, node.output[0])
            node.input[:] = [restored, weight]
            add, bias_name = biased[node.output[0]]
            bias = graph.constants[bias_name] + middle @ matrix
            shifted = graph.add_constant(f"{bias_name}_at_{value}", bias.astype(np.float32))
            add.input[list(add.input).index(bias_name)] = shifted
        nodes.append(node)
    graph.nodes = nodes


def _bias_of_each(graph: Graph) -> dict[str, tuple[Node, str]]:
    """Output of a linear product -> the Add that follows, and its bias."""
    readers = graph.consumers()
    found = {}
    for node in linear_layers(graph):
        following = readers.get(node.output[0], [])
        biases = [name for add in following if add.op_type == "Add" for name in add.input if name in graph.constants]
        if len(following) != 1 or len(biases) != 1:
            raise BundleError(
                f"the linear layer {node.input[1]} is not followed by its bias; this is a fault of the export"
            )
        found[node.output[0]] = following[0], biases[0]
    return found


def _quantise_input(graph: Graph, nodes: list[Node], value: str, seen: Observed) -> tuple[list[str], np.ndarray]:
    """Sub and Q of a layer's input; what DQ reads (int8 rows, scale, zero point), and c.

    The scale covers all that was seen: clipping to the scale of least squared error chose 94 % of the float32
    candidates where this chooses 98 %, since the few large values carry much.
    """
    middle = (seen.low + seen.high) / 2  # [D]
    reach = float((seen.high - middle).max())
    scale = reach / 127 if reach > 0 else 1.0
    names = {part: f"{value}_{part}" for part in ("middle", "scale", "centered", "int8")}
    graph.add_constant(names["middle"], middle.astype(np.float32))
    graph.add_constant(names["scale"], np.array(scale, np.float32))
    zero = graph.add_constant("int8_zero", np.array(0, np.int8))
    nodes += [
        helper.make_node("Sub", [value, names["middle"]], [names["centered"]]),
        helper.make_node("QuantizeLinear", [names["centered"], names["scale"], zero], [names["int8"]]),
    ]
    return [names["int8"], names["scale"], zero], middle


def _quantise_weight(graph: Graph, nodes: list[Node], name: str, product: str) -> tuple[str, np.ndarray]:
    """DQ of an int8 weight, one a product; its name, and the weight ``[in, out]`` that it stands for."""
    int8, scale, zero = f"{name}_int8", f"{name}_scale", f"{name}_zero"
    if int8 not in graph.constants:
        quantised, scales = quantize_rows(torch.from_numpy(graph.constants[name].T.copy()))
        graph.add_constant(int8, np.ascontiguousarray(quantised.numpy().T))
        graph.add_constant(scale, scales.numpy())
        graph.add_constant(zero, np.zeros(len(scales), np.int8))
    output = f"{product}_weight"
    nodes.append(helper.make_node("DequantizeLinear", [int8, scale, zero], [output], axis=1))
    return output, graph.constants[int8].astype(np.float32) * graph.constants[scale]
