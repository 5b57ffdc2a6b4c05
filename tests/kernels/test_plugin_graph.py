"""A router's graph with plugin nodes: the kernels, called as TensorRT will call them, give what the network gives."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.numpy import load_file

from modelsat_engine.errors import KernelError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.network import network_of
from modelsat_engine.export.precision import Precision, router_model
from modelsat_engine.export.tensorrt.plugin_graph import DOMAIN, with_plugins
from modelsat_engine.export.tensorrt.plugins.candidate_attention import AttentionSizes, attention_form
from modelsat_engine.export.tensorrt.plugins.scoring_head import HeadSizes, head_form
from modelsat_engine.kernels.specialization import Specialization, tiles
from modelsat_engine.model.network import ModelSatNetwork
from tests.export.random_bundle import KINDS, write_random_bundle

CAPABILITY = 90
# With and without memory, views and evidence, both heads, from the first layer on and from a later one
PLUGGED = ("relevance head", "memory row a task", "entering at the first layer", "two views of a text")
_NAMES = {np.dtype(np.float32): "FLOAT", np.dtype(np.float16): "HALF"}


def call(form: Specialization, grid: tuple[int, ...], inputs: list[np.ndarray], integers: list[int], out: Any) -> Any:
    """Start a form as a plugin does: inputs, integers, outputs, in the order of the kernel's own parameters."""
    values = [*(torch.tensor(value) for value in inputs), *integers, out]
    names = [name for name in form.function.arg_names if name in form.arguments]
    form.launch(grid, **dict(zip(names, values, strict=True)))
    return (out.numpy(),)


class _Attention(OpRun):
    op_domain = DOMAIN

    def _run(self, *inputs: np.ndarray, width: Any, heads: Any, same_query: Any, **rest: Any) -> Any:
        query, batch = inputs[0], len(inputs[-2])
        memory_rows = rest["memory_rows"][0] if rest.get("memory_rows") else 0
        asked = AttentionSizes(_NAMES[query.dtype], width[0], heads[0], bool(same_query[0]), memory_rows)
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

    def _run(self, *inputs: np.ndarray, width: Any, views: Any, **rest: Any) -> Any:
        state = inputs[0]
        fractions = (float(rest[name][0]) for name in ("epsilon", "temperature", "calibration_bias"))
        evidence_size = rest["evidence_size"][0] if rest.get("evidence_size") else 0
        asked = HeadSizes(_NAMES[state.dtype], width[0], views[0], *fractions, evidence_size)
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


@lru_cache
def made(kind: str, folder: Path) -> tuple[Bundle, ModelSatNetwork]:
    """A bundle of one of `KINDS` and its network."""
    bundle = write_random_bundle(folder / kind, **KINDS[kind])
    return bundle, network_of(bundle)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def plugged(bundle: Bundle, network: ModelSatNetwork, precision: Precision) -> onnx.ModelProto:
    weights = load_file(bundle.file("weights.safetensors"))
    return with_plugins(router_model(bundle, precision), network.config, weights)


def largest_difference(
    network: ModelSatNetwork, graph: onnx.ModelProto, size: tuple[int, int, int], plain: onnx.ModelProto | None = None
) -> float:
    """Of probabilities and embeddings, between a graph with plugins and one without, or the network in PyTorch."""
    batch, tokens, zoo = size
    config = network.config
    lengths = torch.randint(1, tokens + 1, (batch,))
    lengths[0] = tokens
    feeds = {
        "input_ids": torch.randint(0, config.trunk.vocab, (batch, tokens)),  # the padding is no token 0
        "attention_mask": (torch.arange(tokens) < lengths[:, None]).long(),
        "inquiry_start": torch.randn(zoo, config.views, config.trunk.hidden + config.evidence_size),
    }
    if config.memory_rows:
        start = torch.randn(zoo, config.views, config.memory_rows, config.trunk.hidden)
        feeds["memory"] = network.memory_keys_values(start)
    arrays = {name: value.numpy() for name, value in feeds.items()}
    names = ["probability", "instruction_embedding"]
    found = ReferenceEvaluator(graph, new_ops=OPERATIONS).run(names, arrays)
    if plain is not None:
        expected = ReferenceEvaluator(plain).run(names, arrays)
    else:
        with torch.inference_mode():
            expected = [value.numpy() for value in network(*feeds.values())]
    return max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", PLUGGED)
def test_the_graph_with_plugins_gives_what_the_network_gives(kind: str, folder: Path, seed: int) -> None:
    bundle, network = made(kind, folder)
    graph = plugged(bundle, network, "fp32")
    assert sum(node.domain == DOMAIN for node in graph.graph.node) == network.config.late_layers + 1
    for size in ((1, 1, 1), (3, 17, 5)):
        assert largest_difference(network, graph, size) < 2e-5


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("int8", 1e-2)])
@pytest.mark.parametrize("kind", PLUGGED[:2])
def test_graphs_of_every_precision_take_plugins(
    kind: str, precision: Precision, bound: float, folder: Path, seed: int
) -> None:
    bundle, network = made(kind, folder)
    graph = plugged(bundle, network, precision)
    assert sum(node.domain == DOMAIN for node in graph.graph.node) == network.config.late_layers + 1
    difference = largest_difference(network, graph, (3, 17, 5), router_model(bundle, precision))
    print(f"{precision}: largest |dP| {difference:.2e}")
    assert difference < bound


def test_a_bf16_graph_takes_plugins_that_compute_in_bf16(folder: Path) -> None:
    bundle, network = made("relevance head", folder)
    graph = plugged(bundle, network, "bf16")
    types = {value.name: value.data_type for value in graph.graph.initializer}
    made_by = {node.output[0]: node for node in graph.graph.node}
    attention = [node for node in graph.graph.node if node.op_type == "CandidateAttention"]
    assert len(attention) == network.config.late_layers
    for node in attention:
        biases = {types[name] for value in node.input[:5] for name in made_by[value].input if name in types}
        assert biases == {onnx.TensorProto.BFLOAT16}


def test_what_the_plugins_replace_is_gone(folder: Path) -> None:
    bundle, network = made("relevance head", folder)
    graph = plugged(bundle, network, "fp32")
    kinds = [node.op_type for node in graph.graph.node]
    plain_kinds = [node.op_type for node in router_model(bundle, "fp32").graph.node]
    for kind, of_plugins in (("Exp", 2 * network.config.late_layers), ("Einsum", 1), ("Sigmoid", 1)):
        assert kinds.count(kind) == plain_kinds.count(kind) - of_plugins, kind
    read = {name for node in graph.graph.node for name in node.input}
    assert {value.name for value in graph.graph.initializer} <= read


def test_a_graph_of_another_kind_is_refused_by_name(folder: Path) -> None:
    bundle, network = made("relevance head", folder)
    graph = router_model(bundle, "fp32")
    layer = network.config.inject_at
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = name.replace(f"layers.{layer}.query.bias", "other")
    for value in graph.graph.initializer:
        value.name = value.name.replace(f"layers.{layer}.query.bias", "other")
    with pytest.raises(KernelError, match=rf"adds trunk\.layers\.{layer}\.query\.bias 0 times on the candidates' side"):
        with_plugins(graph, network.config, {})
