"""A router's graph with plugin nodes: the kernels, called as TensorRT will call them, give what the network gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from modelsat_engine.errors import KernelError
from modelsat_engine.export.calibration import observe
from modelsat_engine.export.low_precision import lower
from modelsat_engine.export.precision import named_graph
from modelsat_engine.export.qdq import linear_inputs, quantise
from modelsat_engine.export.tensorrt.plugin_graph import DOMAIN, with_plugins
from modelsat_engine.export.tensorrt.plugins.candidate_attention import AttentionSizes, attention_form
from modelsat_engine.export.tensorrt.plugins.scoring_head import HeadSizes, head_form
from modelsat_engine.kernels.specialization import Specialization, tiles
from modelsat_engine.model.network import ModelSatNetwork
from tests.runtime.native_bundle import VOCAB, Shape, random_network

CAPABILITY = 90
# With and without memory, views and evidence, both heads, from the first layer on and from a later one
PLUGGED = (
    Shape(relevance_hidden=9),
    Shape(layers=1, inject_at=0, hidden=16, heads=1, intermediate=16),
    Shape(layers=4, inject_at=2, memory_rows=7, views=2),
    Shape(layers=3, inject_at=0, hidden=40, heads=5, memory_rows=18, head="regression"),
)
_NAMES = {np.dtype(np.float32): "FLOAT", np.dtype(np.float16): "HALF"}


def call(form: Specialization, grid: tuple[int, ...], inputs: list[np.ndarray], integers: list[int], out: Any) -> Any:
    """Start a form as a plugin does: inputs, integers, outputs, in the order of the kernel's own parameters."""
    values = [*(torch.tensor(value) for value in inputs), *integers, out]
    names = [name for name in form.function.arg_names if name in form.arguments]
    form.launch(grid, **dict(zip(names, values, strict=True)))
    return (out.numpy(),)


def given(attributes: dict[str, Any], *names: str) -> list[Any]:
    """The attributes of a node as a plugin gets them, those that it has."""
    return [np.array(attributes[name]) for name in names if attributes.get(name) is not None]


class _Attention(OpRun):
    op_domain = DOMAIN

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> Any:
        query, batch = inputs[0], len(inputs[-2])
        asked = AttentionSizes.of(
            _NAMES[query.dtype], *given(attributes, "width", "heads", "same_query", "memory_rows")
        )
        form = attention_form(asked, CAPABILITY)
        candidates = query.shape[1]
        out = torch.full((batch, candidates, asked.width), torch.nan, dtype=torch.tensor(query).dtype)
        grid = (tiles(candidates, int(form.constants["BLOCK_ROWS"])), batch * asked.heads)
        return call(form, (*grid, 1), list(inputs), [candidates], out)


class CandidateAttention(_Attention):
    """Without memory."""


class CandidateAttentionWithMemory(_Attention):
    """With memory."""


class _Head(OpRun):
    op_domain = DOMAIN

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> Any:
        state = inputs[0]
        names = ("width", "views", "epsilon", "temperature", "calibration_bias", "evidence_size")
        asked = HeadSizes.of(_NAMES[state.dtype], *given(attributes, *names))
        form = head_form(asked, CAPABILITY)
        candidates = state.shape[1] // asked.views
        out = torch.full((len(state), candidates), torch.nan)
        grid = (tiles(candidates, int(form.constants["BLOCK_CANDIDATES"])), len(state))
        return call(form, grid, list(inputs), [candidates], out)


class ScoringHead(_Head):
    """Without evidence."""


class ScoringHeadWithEvidence(_Head):
    """With evidence."""


OPERATIONS = [CandidateAttention, CandidateAttentionWithMemory, ScoringHead, ScoringHeadWithEvidence]


def exported(network: ModelSatNetwork, precision: str = "fp32") -> onnx.ModelProto:
    """The network's graph as `modelsat export --to onnx` makes it."""
    graph = named_graph(network)
    if precision == "fp16":
        lower(graph, onnx.TensorProto.FLOAT16)
    elif precision == "int8":
        seen = (random_feeds(network, 3, 29, 7) for _ in range(4))
        quantise(graph, observe(graph.model(), linear_inputs(graph), seen))
        lower(graph, onnx.TensorProto.FLOAT16, products=False)
    return graph.model()


def plugged(network: ModelSatNetwork, precision: str = "fp32") -> onnx.ModelProto:
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return with_plugins(exported(network, precision), network.config, weights)


def largest_difference(network: ModelSatNetwork, graph: onnx.ModelProto, batch: int, tokens: int, zoo: int) -> float:
    """Of probabilities and embeddings, between a graph with plugins and the network in PyTorch."""
    feeds = random_feeds(network, batch, tokens, zoo)
    found = ReferenceEvaluator(graph, new_ops=OPERATIONS).run(["probability", "instruction_embedding"], feeds)
    with torch.inference_mode():
        expected = network(*(torch.from_numpy(value) for value in feeds.values()))
    return max(float(np.abs(one - other.numpy()).max()) for one, other in zip(found, expected, strict=True))


def random_feeds(network: ModelSatNetwork, batch: int, tokens: int, zoo: int) -> dict[str, np.ndarray]:
    """Instructions of unlike lengths, padded on the right; the padding is no token 0."""
    config = network.config
    lengths = torch.randint(1, tokens + 1, (batch,))
    lengths[0] = tokens
    feeds = {
        "input_ids": torch.randint(0, VOCAB, (batch, tokens)),
        "attention_mask": (torch.arange(tokens) < lengths[:, None]).long(),
        "inquiry_start": torch.randn(zoo, config.views, config.trunk.hidden + config.evidence_size),
    }
    if config.memory_rows:
        start = torch.randn(zoo, config.views, config.memory_rows, config.trunk.hidden)
        feeds["memory"] = network.memory_keys_values(start)
    return {name: value.numpy() for name, value in feeds.items()}


@pytest.mark.parametrize("shape", PLUGGED, ids=str)
def test_the_graph_with_plugins_gives_what_the_network_gives(shape: Shape, seed: int) -> None:
    network = random_network(shape, seed)
    graph = plugged(network)
    assert sum(node.domain == DOMAIN for node in graph.graph.node) == network.config.late_layers + 1
    for batch, tokens, zoo in ((1, 1, 1), (3, 23, 19)):
        assert largest_difference(network, graph, batch, tokens, zoo) < 2e-5


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 0.02), ("int8", 0.2)])
@pytest.mark.parametrize("shape", [Shape(relevance_hidden=9), Shape(memory_rows=7, views=2)], ids=str)
def test_graphs_of_every_precision_take_plugins(shape: Shape, precision: str, bound: float, seed: int) -> None:
    network = random_network(shape, seed)
    graph = plugged(network, precision)
    assert sum(node.domain == DOMAIN for node in graph.graph.node) == network.config.late_layers + 1
    assert largest_difference(network, graph, 3, 17, 5) < bound


def test_what_the_plugins_replace_is_gone(seed: int) -> None:
    network = random_network(Shape(relevance_hidden=9), seed)
    graph = plugged(network)
    kinds = [node.op_type for node in graph.graph.node]
    plain_kinds = [node.op_type for node in exported(network).graph.node]
    for kind, of_plugins in (("Exp", 2 * network.config.late_layers), ("Einsum", 1), ("Sigmoid", 1)):
        assert kinds.count(kind) == plain_kinds.count(kind) - of_plugins, kind
    read = {name for node in graph.graph.node for name in node.input}
    assert {value.name for value in graph.graph.initializer} <= read


def test_a_graph_of_another_kind_is_refused_by_name(seed: int) -> None:
    network = random_network(Shape(), seed)
    graph = exported(network)
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = name.replace("layers.1.query.bias", "layers.1.bias")
    for value in graph.graph.initializer:
        value.name = value.name.replace("layers.1.query.bias", "layers.1.bias")
    with pytest.raises(KernelError, match=r"adds trunk\.layers\.1\.query\.bias 0 times on the candidates' side"):
        with_plugins(graph, network.config, {})
