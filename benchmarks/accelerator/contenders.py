"""Ways to score a zoo on a GPU: our kernels, and the same router in PyTorch five times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from latency.contenders import padded_feeds
from safetensors.torch import load_file

from accelerator.timing import Call, graph_of
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.network import network_of
from modelsat_engine.kernels.scoring_head.reference import scoring_head_reference
from modelsat_engine.model.capability import mean_pool
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.cuda import CudaExecutor
from modelsat_engine.runtime.executors.cuda_buckets import Bucket, write_inputs
from modelsat_engine.runtime.executors.cuda_forward import Buffers, Forward
from modelsat_engine.runtime.executors.cuda_weights import DeviceCandidates, read_weights

OURS = "modelsat"


def our_pass(
    bundle: Bundle, device: torch.device, dtype: torch.dtype, instructions: list[np.ndarray], table: CandidateTable
) -> tuple[Call, Callable[[], np.ndarray]]:
    """A captured pass of exactly that size, and what it computed, float32 ``[B, M]``."""
    config = NetworkConfig.from_json(dict(bundle.config))
    weights = read_weights(load_file(bundle.file("weights.safetensors")), config, device, dtype)
    batch = PackedBatch.pack(instructions)
    bucket = Bucket(len(batch), len(batch.token_ids), len(table))
    candidates = DeviceCandidates.empty(weights, len(table) * config.views)
    candidates.load(weights, table)
    longest = int(batch.lengths.max())
    forward = Forward(weights, candidates, Buffers(weights, bucket), bucket, longest)
    inputs = np.empty(bucket.inputs, np.int32)
    write_inputs(batch, bucket, inputs)
    forward.inputs.copy_(torch.from_numpy(inputs))
    return graph_of(forward.run), lambda: forward.probability.cpu().numpy()


def our_answer(bundle: Bundle, instructions: list[np.ndarray], table: CandidateTable) -> tuple[Call, CudaExecutor]:
    """From token ids on the host to probabilities on the host, and the executor that does it; close it."""
    executor, batch = CudaExecutor(bundle, 1), PackedBatch.pack(instructions)
    return lambda: executor.score(batch, table), executor


def on_the_host(call: Callable[[], Any]) -> Call:
    """The same with its answer brought to the host; what it reads is on the device already."""

    def answer() -> object:
        scores = call()
        return torch.cat([part.flatten() for part in scores] if isinstance(scores, list) else [scores]).cpu()

    return answer


def torch_calls(
    bundle: Bundle,
    device: torch.device,
    dtype: torch.dtype,
    instructions: list[np.ndarray],
    candidates: EncodedCandidates,
    compiled: bool,
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The network in PyTorch by name: eager; all rows as one sequence; compiled; and without sharing, one candidate
    after the other or all at once.

    Each returns probabilities or logits on the device.
    """
    network: Any = network_of(bundle).to(device, dtype)
    feeds = {name: torch.from_numpy(array).to(device) for name, array in padded_feeds(instructions, candidates).items()}
    tensors = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in feeds.values()]

    def without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return call()

        return run

    yield "torch eager", without_gradients(lambda: network(*tensors)[0])
    yield "torch, SDPA, dense mask", without_gradients(lambda: dense_mask_scores(network, *tensors))
    if compiled:
        faster: Any = torch.compile(network, mode="reduce-overhead")
        yield "torch.compile", without_gradients(lambda: faster(*tensors)[0])
    if len(instructions) > 1:
        return
    width = network.config.trunk.hidden
    starts = feeds["inquiry_start"].flatten(0, 1)[:, None, :width].to(dtype)  # [M, 1, D]

    def one_sequence_each(chosen: Any) -> Any:
        rows = network.trunk.embeddings(feeds["input_ids"]).expand(len(chosen), -1, -1)
        rows = network.trunk.run_layers(torch.cat([chosen, rows], 1), None, 0, None)
        return network.logits(rows[:, 0])

    yield "one forward per candidate", without_gradients(lambda: [one_sequence_each(start[None]) for start in starts])
    yield "the same as one batch", without_gradients(lambda: one_sequence_each(starts))


def dense_mask_scores(network: Any, input_ids: Any, attention_mask: Any, inquiry_start: Any) -> Any:
    """The network as whoever has SDPA alone would write it: instruction and inquiry rows in one sequence from layer
    `inject_at` on, and a mask that lets an inquiry row see the instruction and itself.

    Args:
        network: without memory rows. input_ids, attention_mask: int64 ``[B, S]``; inquiry_start: ``[M, R, D + E]``.

    Returns:
        Probabilities ``[B, M]``.
    """
    config, trunk = network.config, network.trunk
    candidates, views = inquiry_start.shape[:2]
    real = attention_mask > 0
    rows = network.encode_instruction(input_ids, real)
    requests, tokens = input_ids.shape
    starts = inquiry_start[..., : config.trunk.hidden].flatten(0, 1).expand(requests, -1, -1)
    rows = torch.cat([rows, starts], 1)  # [B, S + M R, D]
    seen = torch.cat([real, real.new_zeros(requests, starts.shape[1])], 1)[:, None, :].repeat(1, rows.shape[1], 1)
    itself = torch.arange(tokens, rows.shape[1], device=rows.device)
    seen[:, itself, itself] = True
    rows = trunk.run_layers(rows, seen, config.inject_at, config.trunk.layers - 1)
    pooled = mean_pool(rows[:, :tokens], real)
    rows = trunk.run_layers(rows, seen, config.trunk.layers - 1, None)
    return scoring_head_reference(
        rows[:, tokens:].unflatten(1, (candidates, views)),
        *network.head.weight_and_bias(),
        network.temperature,
        network.calibration_bias,
        network.relevance_and_evidence(pooled, inquiry_start),
    )
