"""The network as two ONNX graphs whose weights lie in the bundle's one safetensors file."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from modelsat_engine.errors import BundleError, MissingExtraError

try:
    import onnx
    import torch
    from onnxscript import opset20 as op
    from torch import Tensor, nn
    from torch.export import Dim
except ImportError:
    raise MissingExtraError("exporting a bundle", "export") from None

from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork

#: ONNX Runtime takes it since 1.17, TensorRT 10.14 to 11 as well. It has Gelu and LayerNormalization, and not yet the
#: Attention operator, whose masks providers read differently.
OPSET = 20
WEIGHTS_FILE = "weights.safetensors"


class RouterGraph(nn.Module):
    """``router.onnx``: instructions and the candidate table to probabilities."""

    def __init__(self, network: ModelSatNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, inquiry_start: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.network(input_ids, attention_mask, inquiry_start, memory)


class CapabilityGraph(nn.Module):
    """``capability.onnx``: capability representations to rows of the candidate table."""

    def __init__(self, network: ModelSatNetwork) -> None:
        super().__init__()
        self.network = network
        self.connect = (
            network.connect_text if network.config.capability_encoder.kind == "text" else network.connect_counts
        )

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        zoo: ConnectedZoo = self.connect(*inputs)
        if zoo.memory_start is None:
            return zoo.inquiry_start
        # an expanded view would be exported as a constant of the example's size
        start = zoo.inquiry_start + 0
        if self.network.config.layout == "capability_first":
            return start, zoo.memory_start
        return start, self.network.memory_keys_values(zoo.memory_start)


def memory_shape(config: NetworkConfig) -> tuple[int, ...] | None:
    """What follows ``[M, R]`` in the shape of the router's input ``memory``; None for a router without memory rows."""
    if not config.memory_rows:
        return None
    rows = (config.memory_rows, config.trunk.hidden)
    return rows if config.layout == "capability_first" else (config.late_layers, 2, *rows)


def trace_router(network: ModelSatNetwork, fold: bool = False) -> onnx.ModelProto:
    """The router as a graph of plain operators, its weights inside, every axis that may vary symbolic.

    Args:
        fold: compute what depends on constants alone; int8 weights would become float32 ones.

    Raises:
        BundleError: an axis that must be dynamic came out fixed.
    """
    config = network.config
    batch, tokens, zoo = Dim("batch", min=1), Dim("tokens", min=1, max=config.trunk.max_positions), Dim("zoo", min=1)
    ids = torch.randint(1, config.trunk.vocab, (3, 11))
    mask = torch.arange(11)[None] < torch.tensor([11, 7, 4])[:, None]
    inputs: dict[str, Tensor] = {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "inquiry_start": torch.randn(5, config.views, config.trunk.hidden + config.evidence_size),
    }
    axes: dict[str, dict[int, Any]] = {
        "input_ids": {0: batch, 1: tokens},
        "attention_mask": {0: batch, 1: tokens},
        "inquiry_start": {0: zoo},
    }
    recalled = memory_shape(config)
    if recalled is not None:
        inputs["memory"] = torch.randn(5, config.views, *recalled)
        axes["memory"] = {0: zoo}
    outputs: dict[str, tuple[str, ...]] = {"probability": ("batch", "zoo"), "instruction_embedding": ("batch",)}
    return _trace(RouterGraph(network), inputs, axes, outputs, fold=fold)


def export_router(network: ModelSatNetwork, directory: Path) -> Path:
    """Writes ``router.onnx`` next to ``weights.safetensors``, which must hold the network's tensors.

    Raises:
        BundleError: an axis that must be dynamic came out fixed, or a tensor is of another size in the weights file.
    """
    return _write_beside_weights(trace_router(network), directory / "router.onnx")


def export_capability(network: ModelSatNetwork, directory: Path) -> Path:
    """Writes ``capability.onnx``; arguments and errors as for `export_router`."""
    config = network.config
    zoo = Dim("zoo", min=1)
    if config.capability_encoder.kind == "text":
        tokens = Dim("tokens", min=1, max=config.trunk.max_positions)
        ids = torch.randint(1, config.trunk.vocab, (5, config.views, 13))
        inputs = {"capability_ids": ids, "capability_mask": torch.ones_like(ids)}
        axes: dict[str, dict[int, Any]] = {name: {0: zoo, 2: tokens} for name in inputs}
    else:
        note_tokens = Dim("note_tokens", min=1, max=config.trunk.max_positions)
        counts = torch.randint(0, 21, (5, config.capability_encoder.tasks)).float()
        ids = torch.randint(1, config.trunk.vocab, (5, 7))
        inputs = {
            "correct": counts,
            "total": torch.full_like(counts, 20),
            "note_ids": ids,
            "note_mask": torch.ones_like(ids),
        }
        axes = {"correct": {0: zoo}, "total": {0: zoo}}
        axes |= {name: {0: zoo, 1: note_tokens} for name in ("note_ids", "note_mask")}
    names = ("inquiry_start", "memory") if config.memory_rows else ("inquiry_start",)
    outputs: dict[str, tuple[str, ...]] = dict.fromkeys(names, ("zoo",))
    model = _trace(CapabilityGraph(network), inputs, axes, outputs, positional=True)
    return _write_beside_weights(model, directory / "capability.onnx")


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Scaled dot product attention in four operators that every provider runs alike; the parameters are PyTorch's.

    PyTorch's own translation is twenty operators, which compute at run time what the graph knows.
    """
    if is_causal or dropout_p or enable_gqa or scale is not None:
        raise NotImplementedError("the network attends bidirectionally, over whole heads, at the usual scale")
    scaled = op.Mul(query, op.Constant(value_float=float(query.shape[-1] ** -0.5)))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        scores = op.Where(attn_mask, scores, op.Constant(value_float=float("-inf")))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _trace(
    graph: nn.Module,
    inputs: dict[str, Tensor],
    axes: dict[str, dict[int, Any]],
    outputs: dict[str, tuple[str, ...]],
    positional: bool = False,
    fold: bool = False,
) -> onnx.ModelProto:
    """The graph of a module; ``fold`` computes what depends on constants alone, int8 weights included."""
    graph.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(tuple(axes.values()),) if positional else tuple(axes.values()),
            opset_version=OPSET,
            dynamo=True,
            optimize=fold,
            verbose=False,
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
        )
    assert program is not None  # it is None only for the exporter before torch.export
    model: onnx.ModelProto = program.model_proto
    _check_axes(model, {name: list(dims.values()) for name, dims in axes.items()}, outputs)
    del model.metadata_props[:]
    for node in model.graph.node:  # names of the exporter's Python frames, and paths of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


def _write_beside_weights(model: onnx.ModelProto, path: Path) -> Path:
    _refer_to_weights(model, path.parent / WEIGHTS_FILE)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return path


def _check_axes(model: onnx.ModelProto, inputs: dict[str, list[Any]], outputs: dict[str, tuple[str, ...]]) -> None:
    """Every declared axis must be symbolic, and under its own name."""
    wanted = {name: [dim.__name__ for dim in dims] for name, dims in inputs.items()}
    wanted |= {name: list(dims) for name, dims in outputs.items()}
    for value in (*model.graph.input, *model.graph.output):
        symbolic = [dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        if symbolic != wanted[value.name]:
            raise BundleError(f"{value.name} came out with dynamic axes {symbolic}, not {wanted[value.name]}")


def _refer_to_weights(model: onnx.ModelProto, weights: Path) -> None:
    """Points every initializer that the safetensors file holds at its bytes there; the others are small constants."""
    places = tensor_places(weights)
    for initializer in model.graph.initializer:
        name = initializer.name.removeprefix("network.")
        if name not in places:
            if onnx.numpy_helper.to_array(initializer).size > 1024:
                raise BundleError(f"the graph holds a large constant {initializer.name} that {weights.name} lacks")
            continue
        offset, length = places[name]
        if len(onnx.numpy_helper.to_array(initializer).tobytes()) != length:
            raise BundleError(f"{initializer.name} has another size in the graph than in {weights.name}")
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "external_data"):
            initializer.ClearField(field)
        initializer.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", weights.name), ("offset", str(offset)), ("length", str(length))):
            entry = initializer.external_data.add()
            entry.key, entry.value = key, text


def tensor_places(weights: Path) -> dict[str, tuple[int, int]]:
    """Offset and length in bytes of every tensor of a safetensors file."""
    with open(weights, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: (8 + size + tensor["data_offsets"][0], tensor["data_offsets"][1] - tensor["data_offsets"][0])
        for name, tensor in header.items()
    }
