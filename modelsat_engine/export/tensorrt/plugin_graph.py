"""Puts our own operations into a router's ONNX graph: candidate attention and the scoring head as one node each.

The plain graph spells both out in a hundred small operators. Here they are found by the names of the weights around
them, cut out, and replaced by nodes that the plugins of `plugins/` run. Everything else stays as it was exported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modelsat_engine.errors import KernelError, MissingExtraError
from modelsat_engine.model.config import NetworkConfig

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    raise MissingExtraError("building a TensorRT engine", "export") from None

#: Namespace of the plugins, and domain of the nodes.
DOMAIN = "modelsat"
ATTENTION, ATTENTION_WITH_MEMORY = "CandidateAttention", "CandidateAttentionWithMemory"
HEAD, HEAD_WITH_EVIDENCE = "ScoringHead", "ScoringHeadWithEvidence"

_PASSED = ("Identity", "Cast", "CastLike", "DequantizeLinear", "QuantizeLinear")
_FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def with_plugins(model: Any, config: NetworkConfig, weights: Mapping[str, np.ndarray]) -> Any:
    """A copy of a router's graph in which plugin nodes do the candidates' work.

    Args:
        model: onnx.ModelProto with all weights inside, in any precision that `modelsat export --to onnx` writes.
        config: the router's.
        weights: of the network by name; read are those of the last norm, the head and the calibration, which lie in the
            graph folded into each other.

    Raises:
        KernelError: the graph is of another kind than expected, or the kernels do not take its sizes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    surgery = _Surgery(copy, config, weights)
    bounds = surgery.bounds()
    for index in range(config.inject_at, config.trunk.layers):
        surgery.replace_attention(index, bounds)
    surgery.replace_head()
    surgery.remove_unused()
    copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return copy


class _Surgery:
    """One graph under the knife.

    Args:
        model: changed in place.
    """

    def __init__(self, model: Any, config: NetworkConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.graph, self.config, self.weights = model.graph, config, weights
        self.made_by = {name: node for node in self.graph.node for name in node.output}
        self.constants = {value.name for value in self.graph.initializer}
        # without the plugin nodes' outputs, of which onnx knows nothing
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.dtypes = {value.name: value.type.tensor_type.elem_type for value in values}
        self.dtypes |= {value.name: value.data_type for value in self.graph.initializer}
        self.candidates_side = self._reached_from("inquiry_start")
        self.first = 0  # where new nodes that depend on inputs only are put

    # -- what is where ------------------------------------------------------------------------------------------------

    def _reached_from(self, name: str) -> set[str]:
        """Values that the numbers of an input reach; a shape is no number."""
        reached = {name}
        for node in self.graph.node:  # in topological order
            if node.op_type not in ("Shape", "Size", "CastLike") and reached.intersection(node.input):
                reached.update(node.output)
        return reached

    def _origin(self, name: str) -> str:
        """The value behind casts and the like."""
        while name in self.made_by and self.made_by[name].op_type in _PASSED:
            name = self.made_by[name].input[0]
        return name

    def _bearing(self, weight: str) -> Iterator[Any]:
        """The nodes that read a weight, through casts or not."""
        for node in self.graph.node:
            if node.op_type not in _PASSED and any(_is(self._origin(name), weight) for name in node.input):
                yield node

    def linear(self, layer: int, part: str, of_candidates: bool) -> str:
        """What a linear layer gives on one of the two sides, with its bias."""
        weight = f"trunk.layers.{layer}.{part}.bias"
        found = [node.output[0] for node in self._bearing(weight)]
        merged = [node for node in self.graph.node if node.op_type == "Split"]  # see `qdq.merge_layers`
        named = [(node.name.partition(" of ")[0].split(), node.output) for node in merged]
        found += [outputs[names.index(weight)] for names, outputs in named if weight in names]
        found = [str(name) for name in found if (name in self.candidates_side) == of_candidates]
        if len(found) != 1:
            side = "candidates'" if of_candidates else "instructions'"
            raise KernelError(f"the graph adds {weight} {len(found)} times on the {side} side, not once")
        return found[0]

    def input_of_linear(self, layer: int, part: str) -> str:
        """What a linear layer of the candidates multiplies, before it is centered and quantised."""
        node = self.made_by[self.linear(layer, part, of_candidates=True)]
        while node.op_type != "MatMul":
            name = next((name for name in node.input if name in self.candidates_side), None)
            if name is None or name not in self.made_by:
                raise KernelError(f"the graph has no product before trunk.layers.{layer}.{part}.bias")
            node = self.made_by[name]
        return self._unquantised(node.input[0])

    def _unquantised(self, name: str) -> str:
        made = self.made_by.get(name)
        if made is None or made.op_type != "DequantizeLinear":
            return name
        centered = self.made_by[self.made_by[made.input[0]].input[0]]  # Sub, Q, DQ
        return str(centered.input[0])

    # -- what is put in -----------------------------------------------------------------------------------------------

    def bounds(self) -> str:
        """int32 ``[B, 2]``: where the rows of each instruction begin and end in ``[B * S]`` rows."""
        self._constant("modelsat.axis_1", np.array([1], np.int64))
        self._constant("modelsat.zero", np.array(0, np.int64))
        self._constant("modelsat.one", np.array(1, np.int64))
        made = [
            helper.make_node("ReduceSum", ["attention_mask", "modelsat.axis_1"], ["modelsat.lengths"], keepdims=0),
            helper.make_node("Shape", ["attention_mask"], ["modelsat.shape"]),
            helper.make_node("Gather", ["modelsat.shape", "modelsat.zero"], ["modelsat.batch"], axis=0),
            helper.make_node("Gather", ["modelsat.shape", "modelsat.one"], ["modelsat.tokens"], axis=0),
            helper.make_node("Range", ["modelsat.zero", "modelsat.batch", "modelsat.one"], ["modelsat.index"]),
            helper.make_node("Mul", ["modelsat.index", "modelsat.tokens"], ["modelsat.begin"]),
            helper.make_node("Add", ["modelsat.begin", "modelsat.lengths"], ["modelsat.end"]),
            helper.make_node("Unsqueeze", ["modelsat.begin", "modelsat.axis_1"], ["modelsat.begins"]),
            helper.make_node("Unsqueeze", ["modelsat.end", "modelsat.axis_1"], ["modelsat.ends"]),
            helper.make_node("Concat", ["modelsat.begins", "modelsat.ends"], ["modelsat.bounds_64"], axis=1),
            helper.make_node("Cast", ["modelsat.bounds_64"], ["modelsat.bounds"], to=TensorProto.INT32),
        ]
        self._insert_first(made)
        return "modelsat.bounds"

    def replace_attention(self, layer: int, bounds: str) -> None:
        """Candidate attention of one late layer becomes one node."""
        own = [self.linear(layer, part, of_candidates=True) for part in ("query", "key", "value")]
        prefix = [self.linear(layer, part, of_candidates=False) for part in ("key", "value")]
        out = self.input_of_linear(layer, "attention_output")
        dtype = self._common_dtype([*own, *prefix, out], f"candidate attention of layer {layer}")
        memory = self._memory(layer, dtype) if self.config.memory_rows else []
        trunk = self.config.trunk
        self._replace(
            out,
            ATTENTION_WITH_MEMORY if memory else ATTENTION,
            [*own, *memory, *prefix, bounds],
            width=trunk.hidden,
            heads=trunk.heads,
            same_query=int(layer == self.config.inject_at),
            **({"memory_rows": self.config.memory_rows} if memory else {}),
        )

    def replace_head(self) -> None:
        """Last norm, head, evidence, calibration and the mean over views become one node."""
        config, layer = self.config, self.config.trunk.layers - 1
        norms = list(self._bearing(f"trunk.layers.{layer}.output_norm.weight"))
        norms = [node for node in norms if node.output[0] in self.candidates_side]
        if len(norms) != 1 or norms[0].op_type != "LayerNormalization":
            raise KernelError("the graph does not end in one LayerNormalization of the candidates' rows")
        state = norms[0].input[0]
        self._common_dtype([state], "the scoring head")
        inputs = [state, *self._fp32_weights(layer)]
        name = HEAD
        if config.evidence_size:
            name = HEAD_WITH_EVIDENCE
            inputs += [self._as_float(self._relevance()), self._evidence()]
        self._replace(
            "probability",
            name,
            inputs,
            width=config.trunk.hidden,
            views=config.views,
            epsilon=config.trunk.layer_norm_eps,
            temperature=float(self._weight("temperature")),
            calibration_bias=float(self._weight("calibration_bias")),
            **({"evidence_size": config.evidence_size} if config.evidence_size else {}),
        )

    def remove_unused(self) -> None:
        """Drop every node and weight that no output depends on."""
        needed = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        weights = [value for value in self.graph.initializer if value.name in needed]
        del self.graph.initializer[:]
        self.graph.initializer.extend(weights)
        del self.graph.value_info[:]

    # -- parts --------------------------------------------------------------------------------------------------------

    def _fp32_weights(self, layer: int) -> list[str]:
        """What the head's kernel reads: last norm's weight and bias ``[D]``, rows of Yes and No ``[2, D]``, ``[2]``."""
        width = self.config.trunk.hidden
        arrays = {
            "norm_weight": self._weight(f"trunk.layers.{layer}.output_norm.weight"),
            "norm_bias": self._weight(f"trunk.layers.{layer}.output_norm.bias"),
        }
        if self.config.head == "yes_no":
            arrays |= {"rows": self._weight("head.rows.weight"), "row_bias": self._weight("head.rows.bias")}
        else:  # a head of one row has zeros for No
            row, bias = self._weight("head.weight"), self._weight("head.bias")
            arrays |= {"rows": np.stack([row, np.zeros(width)]), "row_bias": np.stack([bias, np.zeros(())])}
        return [self._constant(f"modelsat.{name}", value.astype(np.float32)) for name, value in arrays.items()]

    def _weight(self, name: str) -> np.ndarray:
        if name not in self.weights:
            raise KernelError(f"the router's weights lack {name}")
        return np.asarray(self.weights[name])

    def _relevance(self) -> str:
        """``[B, E]``, what the relevance head gives."""
        found = list(self._bearing("relevance.tasks.bias"))
        if len(found) != 1:
            raise KernelError(f"the graph adds relevance.tasks.bias {len(found)} times, not once")
        return str(found[0].output[0])

    def _evidence(self) -> str:
        """fp32 ``[M, R, E]``, the numbers behind an inquiry start."""
        width = self.config.trunk.hidden
        parts = {"starts": width, "ends": width + self.config.evidence_size, "axes": 2}
        names = [self._constant(f"modelsat.evidence_{key}", np.array([at], np.int64)) for key, at in parts.items()]
        start = self._as_float("inquiry_start", first=True)
        self._insert_first([helper.make_node("Slice", [start, *names], ["modelsat.evidence"])])
        return "modelsat.evidence"

    def _memory(self, layer: int, dtype: int) -> list[str]:
        """Keys and values ``[M * R, K, D]`` of one late layer's memory."""
        config, at = self.config, layer - self.config.inject_at
        shape = np.array([-1, config.late_layers, 2, config.memory_rows, config.trunk.hidden], np.int64)
        made = [
            helper.make_node(
                "Reshape", ["memory", self._constant("modelsat.memory_shape", shape)], [f"modelsat.memory_{layer}"]
            ),
            helper.make_node(
                "Gather",
                [f"modelsat.memory_{layer}", self._constant(f"modelsat.layer_{at}", np.array(at, np.int64))],
                [f"modelsat.memory_{layer}_both"],
                axis=1,
            ),
        ]
        names = []
        for part, name in enumerate(("key", "value")):
            place = self._constant(f"modelsat.part_{part}", np.array(part, np.int64))
            wide, out = f"modelsat.memory_{layer}_{name}_wide", f"modelsat.memory_{layer}_{name}"
            made += [
                helper.make_node("Gather", [f"modelsat.memory_{layer}_both", place], [wide], axis=1),
                helper.make_node("Cast", [wide], [out], to=dtype),
            ]
            names.append(out)
        self._insert_first(made)
        return names

    def _as_float(self, name: str, first: bool = False) -> str:
        """The value in fp32."""
        if self.dtypes.get(name) == TensorProto.FLOAT:
            return name
        out = f"{name}.fp32"
        node = helper.make_node("Cast", [name], [out], to=TensorProto.FLOAT)
        if first:
            self._insert_first([node])
        else:
            self._insert_after(name, node)
        return out

    def _common_dtype(self, names: list[str], what: str) -> int:
        dtypes = {self.dtypes.get(name, 0) for name in names}
        if len(dtypes) != 1 or not dtypes <= set(_FLOATS):
            raise KernelError(f"{what} has values of several dtypes {sorted(dtypes)}; the kernel takes one")
        return int(dtypes.pop())

    # -- the list of nodes --------------------------------------------------------------------------------------------

    def _constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.constants:
            self.graph.initializer.append(numpy_helper.from_array(value, name))
            self.constants.add(name)
        return name

    def _insert_first(self, nodes: list[Any]) -> None:
        for node in nodes:
            self.graph.node.insert(self.first, node)
            self.first += 1

    def _insert_after(self, name: str, node: Any) -> None:
        place = next(index for index, other in enumerate(self.graph.node) if name in other.output)
        self.graph.node.insert(place + 1, node)

    def _replace(self, out: str, op_type: str, inputs: list[str], **attributes: int | float) -> None:
        """A plugin node gives the value `out` instead of the node that gave it.

        Each attribute is a list of one number: TensorRT 10.14 reads the first number of a list only, and before 11 no
        number by itself with NumPy 2.4 and later.
        """
        old = next(index for index, node in enumerate(self.graph.node) if out in node.output)
        node = helper.make_node(op_type, inputs, [out], name=out, domain=DOMAIN)
        facts: dict[str, Any] = {"plugin_namespace": DOMAIN, "aot": 1}
        facts |= {key: [number] for key, number in attributes.items()}
        node.attribute.extend(helper.make_attribute(key, fact) for key, fact in facts.items())
        del self.graph.node[old]
        self.graph.node.insert(old, node)


def _is(name: str, weight: str) -> bool:
    """Whether a value is a weight of the network; an exporter puts a module before the name, a precision behind it."""
    bare = name.removeprefix("network.")
    return bare == weight or bare.startswith(f"{weight}_")
