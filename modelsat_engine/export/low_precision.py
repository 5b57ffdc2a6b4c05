"""fp16 and bf16 graphs: matrix products and what moves their operands in 16 bits, everything else in float32.

LayerNorm, softmax, GELU, the residual stream, pooling, the relevance head and the scoring head stay float32: they are a
few per cent of the arithmetic, and a sum or an exponential in 16 bits is what costs quality. Every change of type is a
Cast in the graph, so that a strongly typed builder has nothing to decide.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelsat_engine.errors import BundleError
from modelsat_engine.export.graph import Graph, Node

_FLOAT = TensorProto.FLOAT
# Operators that run in 16 bits when their first operand is of that type already: they cost no precision, or little.
_FOLLOWING = frozenset({"Add", "Mul", "Reshape", "Transpose"})


def lower(graph: Graph, element_type: int, products: bool = True) -> None:
    """Turns the embeddings and products of a float32 graph into 16-bit ones, in place.

    Args:
        element_type: ``TensorProto.FLOAT16`` or ``TensorProto.BFLOAT16``.
        products: False for the embeddings alone.

    Raises:
        BundleError: a weight is too large for the type.
    """
    _Lowering(graph, element_type, products).run()


class _Lowering:
    def __init__(self, graph: Graph, element_type: int, products: bool) -> None:
        self._graph, self._type, self._products = graph, element_type, products
        self._suffix = TensorProto.DataType.Name(element_type).lower()
        self._nodes: list[Node] = []
        self._casts: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        for node in self._graph.nodes:
            if node.op_type == "Gather" and self._graph.types[node.output[0]] == _FLOAT:
                self._emit_lowered(node, operands=1)
            elif self._runs_in_16_bits(node):
                self._emit_lowered(node, operands=2 if node.op_type in ("MatMul", "Add", "Mul") else 1)
            else:
                for index, name in enumerate(node.input):
                    if self._graph.types.get(name) == self._type:
                        node.input[index] = self._cast(name, _FLOAT)
                self._nodes.append(node)
        self._graph.nodes = self._nodes

    def _runs_in_16_bits(self, node: Node) -> bool:
        types, constants = self._graph.types, self._graph.constants
        if not self._products:
            return False
        if node.op_type == "MatMul":  # not the scoring head, whose right operand is a vector
            right = constants.get(node.input[1])
            return right is None or right.ndim > 1
        if node.op_type not in _FOLLOWING or types.get(node.input[0]) != self._type:
            return False
        # a bias or the scale of attention; two computed operands are the residual stream or the merge of softmaxes
        return node.op_type in ("Reshape", "Transpose") or node.input[1] in constants

    def _emit_lowered(self, node: Node, operands: int) -> None:
        for index in range(operands):
            node.input[index] = self._cast(node.input[index], self._type)
        self._nodes.append(node)
        for name in node.output:
            self._graph.types[name] = self._type

    def _cast(self, name: str, element_type: int) -> str:
        """The value in a type: itself, a converted constant, or the output of a Cast, one for all its readers."""
        if self._graph.types[name] == element_type:
            return name
        key = (name, element_type)
        if key not in self._casts:
            cast = f"{name}_{TensorProto.DataType.Name(element_type).lower()}"
            constant = self._graph.constants.get(name)
            if constant is None:
                self._nodes.append(helper.make_node("Cast", [name], [cast], to=element_type))
                self._graph.types[cast] = element_type
            else:
                self._graph.add_constant(cast, self._converted(name, constant, element_type), element_type)
            self._casts[key] = cast
        return self._casts[key]

    def _converted(self, name: str, array: np.ndarray, element_type: int) -> np.ndarray:
        with np.errstate(over="ignore"):
            converted: np.ndarray = array.astype(helper.tensor_dtype_to_np_dtype(element_type))
        if not np.isfinite(converted.astype(np.float32)).all():
            raise BundleError(f"{name} holds numbers that {self._suffix} does not; export it as bf16 or fp32")
        return converted


def rounded_to(model: onnx.ModelProto) -> onnx.ModelProto:
    """A bf16 model as float32 arithmetic that rounds wherever the model's values are bf16.

    This is what a device does that multiplies bf16 and sums in float32. ONNX Runtime has no bf16 products on the CPU;
    it runs this instead.
    """
    graph = Graph(model)
    nodes: list[Node] = []
    types = dict(graph.types)
    for name, array in list(graph.constants.items()):
        if types[name] == TensorProto.BFLOAT16:
            graph.constants[name] = array.astype(np.float32)
    for node in graph.nodes:
        nodes.append(node)
        low = [name for name in node.output if types.get(name) == TensorProto.BFLOAT16]
        if node.op_type == "Cast":
            (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
            to.i = _FLOAT if to.i == TensorProto.BFLOAT16 else to.i
        if node.op_type in ("Reshape", "Transpose", "Gather"):  # move what is rounded already
            continue
        for name in low:
            exact = f"{name}_exact"
            node.output[list(node.output).index(name)] = exact
            nodes += [
                helper.make_node("Cast", [exact], [f"{name}_rounded"], to=TensorProto.BFLOAT16),
                helper.make_node("Cast", [f"{name}_rounded"], [name], to=_FLOAT),
            ]
    graph.nodes = nodes
    return graph.model()
