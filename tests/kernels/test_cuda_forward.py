"""The CUDA executor's forward pass, in Triton's interpreter on CPU tensors, against the network in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.kernels.inventory import GRIDS, router_forms
from modelsat_engine.kernels.specialization import Specialization
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.executors import PackedBatch, create_executor
from modelsat_engine.runtime.executors.cuda_buckets import Bucket, write_inputs
from modelsat_engine.runtime.executors.cuda_forward import Buffers, Forward
from modelsat_engine.runtime.executors.cuda_weights import DeviceCandidates, read_weights
from modelsat_engine.runtime.instruction import InstructionTokenizer
from tests.runtime.native_bundle import (
    POSITIONS,
    SHAPES,
    Shape,
    random_instructions,
    random_network,
    random_table,
    reference_scores,
    write_native_bundle,
)

CPU = torch.device("cpu")


def forward_scores(
    network: ModelSatNetwork,
    instructions: list[np.ndarray],
    table: CandidateTable,
    bucket: Bucket,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> np.ndarray:
    """:func:`pass_scores` of a network."""
    return pass_scores(network.state_dict(), network.config, instructions, table, bucket, dtype, **more)


def pass_scores(
    tensors: Mapping[str, torch.Tensor],
    config: NetworkConfig,
    instructions: list[np.ndarray],
    table: CandidateTable,
    bucket: Bucket,
    dtype: torch.dtype,
    leftovers: float = 0.0,
    longest: int | None = None,
) -> np.ndarray:
    """Probabilities ``[B, M]`` of one pass in a bucket that may be larger; `leftovers` lie in all buffers before."""
    weights = read_weights(tensors, config, CPU, dtype)
    candidates = DeviceCandidates.empty(weights, bucket.candidates * config.views)
    candidates.load(weights, table)
    buffers = Buffers(weights, bucket)
    for buffer in (buffers.state, buffers.projected, buffers.attended, buffers.branch, buffers.wide):
        buffer.fill_(leftovers)
    batch = PackedBatch.pack(instructions)
    forward = Forward(weights, candidates, buffers, bucket, longest or int(batch.lengths.max()))
    write_inputs(batch, bucket, forward.inputs.numpy())
    forward.run()
    return forward.probability[: len(batch), : len(table)].numpy().copy()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_native_bundle(tmp_path, random_network(Shape(), 1)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_pass_is_the_network(seed: int, bundle: Bundle, shape: Shape) -> None:
    network = random_network(shape, seed)
    table = random_table(bundle, network, 3, seed + 1)
    instructions = random_instructions(2, seed + 2, longest=17)
    tokens = sum(map(len, instructions))
    scores = forward_scores(network, instructions, table, Bucket(2, tokens, 3))
    expected = reference_scores(network, instructions, table, int8=False)
    assert np.abs(scores - expected).max() < 2e-5


def test_the_shipped_router_in_half_precision_is_near_its_own_graph() -> None:
    shipped = Bundle.load()
    tokenizer = InstructionTokenizer.from_file(shipped.file("tokenizer.json"), 128)
    profiles = shipped.zoo[:3]
    table = CandidateTable(profiles, CapabilityEncoder(shipped, tokenizer).encode(profiles))
    instructions = [tokenizer.tokenise(text).token_ids for text in ("2 + 2 = ?", "Prove it.")]
    weights = load_file(shipped.file("weights.safetensors"))
    config = NetworkConfig.from_json(dict(shipped.config))
    bucket = Bucket(2, sum(map(len, instructions)), 3)
    scores = pass_scores(weights, config, instructions, table, bucket, torch.float16)
    graph = create_executor("onnxruntime", shipped, 1)
    difference = np.abs(scores - graph.score(PackedBatch.pack(instructions), table)).max()
    print(f"largest |dP| {difference:.2e}")
    assert difference < 5e-4


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)], ids=str)
def test_half_precision_stays_near_the_network(seed: int, bundle: Bundle, dtype: torch.dtype, bound: float) -> None:
    network = random_network(Shape(layers=2, relevance_hidden=9), seed)
    table = random_table(bundle, network, 5, seed + 1)
    instructions = random_instructions(2, seed + 2, longest=17)
    bucket = Bucket(2, sum(map(len, instructions)), 5)
    scores = forward_scores(network, instructions, table, bucket, dtype)
    expected = reference_scores(network, instructions, table, int8=False)
    assert np.abs(scores - expected).max() < bound


def test_padding_changes_no_bit_whatever_was_left_in_the_buffers(seed: int, bundle: Bundle) -> None:
    network = random_network(Shape(layers=2, inject_at=1, memory_rows=3, views=2, relevance_hidden=9), seed)
    table = random_table(bundle, network, 5, seed + 1)
    instructions = random_instructions(3, seed + 2, longest=13)
    tokens = sum(map(len, instructions))
    exact = forward_scores(network, instructions, table, Bucket(3, tokens, 5))
    padded = forward_scores(
        network, instructions, table, Bucket(4, tokens + 5, 7), leftovers=float("nan"), longest=POSITIONS
    )
    np.testing.assert_array_equal(padded, exact)


def test_a_pair_has_the_same_bits_alone_as_in_a_batch_and_a_zoo(seed: int, bundle: Bundle) -> None:
    network = random_network(Shape(layers=2, relevance_hidden=9), seed)
    table = random_table(bundle, network, 5, seed + 1)
    instructions = random_instructions(3, seed + 2, longest=13)
    together = forward_scores(network, instructions, table, Bucket(3, sum(map(len, instructions)), 5))
    small = table.without([name for name in table.names if name != "m3"])
    alone = forward_scores(network, instructions[1:2], small, Bucket(1, len(instructions[1]), 1))
    assert alone[0, 0] == together[1, 3]


def test_everything_a_pass_launches_is_on_the_list_that_is_compiled_ahead(
    seed: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(Shape(layers=3, memory_rows=3, relevance_hidden=9), seed)
    launched: list[tuple[str, dict[str, str], dict[str, object]]] = []
    grids: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    original = Specialization.launch

    def launch(self: Specialization, grid: tuple[int, ...], **arguments: object) -> None:
        launched.append((self.kernel, dict(self.arguments), self.fixed))
        names = {**self.constants, **arguments, "requests": 2, "longest": 9, "heads": 3, "ceil": math.ceil, "max": max}
        named = tuple(eval(extent, {"__builtins__": {}}, names) for extent in GRIDS[self.kernel])
        grids.append((self.kernel, (*grid, 1, 1)[:3], named))
        original(self, grid, **arguments)

    monkeypatch.setattr(Specialization, "launch", launch)
    table = random_table(bundle, network, 5, seed + 1)
    instructions = random_instructions(2, seed + 2, longest=9)
    forward_scores(network, instructions, table, Bucket(2, 18, 5))
    forms = [form.shape.specialize("sm_80") for form in router_forms(network.config, torch.float32)]
    listed = [(form.kernel, dict(form.arguments), form.fixed) for form in forms]
    assert len(launched) > 20
    assert [row for row in grids if row[1] != row[2]] == []
    assert [form for form in launched if form not in listed] == []


def test_damaged_weights_are_refused(bundle: Bundle) -> None:
    network = random_network(Shape(), 3)

    def refused(message: str, dtype: torch.dtype = torch.float16, **changed: torch.Tensor | None) -> None:
        state = {**network.state_dict(), **{name.replace("__", "."): tensor for name, tensor in changed.items()}}
        with pytest.raises(BundleError, match=message):
            read_weights({k: v for k, v in state.items() if v is not None}, network.config, CPU, dtype)

    refused(r"lack the tensor trunk\.layers\.1\.up\.bias", trunk__layers__1__up__bias=None)
    refused(r"has the shape \[3\], router\.json asks for \[24\]", trunk__embeddings__norm__bias=torch.zeros(3))
    refused(r"not finite in float32", head__rows__weight=torch.full((2, 24), float("nan")))
    huge = torch.full((40,), 1e9)
    refused(r"not finite in float16; .* or compute in bfloat16", trunk__layers__0__up__weight_scale=huge)
    refused(r"temperature is 0\.0", temperature=torch.tensor(0.0))


def test_a_table_of_another_router_or_too_large_is_refused(bundle: Bundle) -> None:
    network, wider = random_network(Shape(), 3), random_network(Shape(hidden=40, heads=5), 3)
    weights = read_weights(network.state_dict(), network.config, CPU, torch.float32)
    candidates = DeviceCandidates.empty(weights, 4)
    with pytest.raises(ExecutorError, match=r"starts of \[1, 40\], the router \[1, 24\]; encode"):
        candidates.load(weights, random_table(bundle, wider, 3, 1))
    with pytest.raises(ExecutorError, match="a zoo of 5 rows does not fit a table of 4"):
        candidates.load(weights, random_table(bundle, network, 5, 1))
