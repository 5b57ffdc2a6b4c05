"""One forward pass of the kernels over a packed batch: fixed buffers, no allocation, nothing asked of the device.

It runs on CUDA tensors, where it may be captured into a graph, and in Triton's interpreter on CPU tensors alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modelsat_engine.kernels.candidate_attention.launch import candidate_attention
from modelsat_engine.kernels.embedding_layer_norm.launch import embedding_layer_norm
from modelsat_engine.kernels.linear.launch import linear
from modelsat_engine.kernels.mean_pool.launch import mean_pool
from modelsat_engine.kernels.prefix_attention.launch import prefix_attention
from modelsat_engine.kernels.residual_layer_norm.launch import residual_layer_norm
from modelsat_engine.kernels.scoring_head.launch import scoring_head
from modelsat_engine.runtime.executors.cuda_buckets import Bucket
from modelsat_engine.runtime.executors.cuda_weights import DeviceCandidates, Layer, Weights


class Buffers:
    """All memory of a pass, made once for the largest bucket; smaller buckets use the front of it."""

    def __init__(self, weights: Weights, largest: Bucket) -> None:
        config, trunk = weights.config, weights.config.trunk
        width, requests = trunk.hidden, largest.requests
        rows = largest.tokens + requests * largest.candidates * config.views

        def zeros(*shape: int, dtype: torch.dtype = weights.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=weights.device)

        self.inputs = zeros(largest.inputs, dtype=torch.int32)
        # zeros, so that padding rows hold numbers from the start
        self.state = zeros(rows, width)
        self.projected = zeros(rows, 3 * width)
        self.attended = zeros(rows, width)
        self.branch = zeros(rows, width)
        self.wide = zeros(rows, trunk.intermediate)
        self.pooled = zeros(requests, width)
        self.relevance_hidden = zeros(requests, max(1, config.relevance_hidden))
        self.relevance = zeros(requests, max(1, config.evidence_size), dtype=torch.float32)
        self.probability = zeros(requests * largest.candidates, dtype=torch.float32)


class Forward:
    """A pass for one bucket over given weights, candidates and buffers.

    Attributes:
        inputs: int32 ``[2 T + B + 1]``: token ids, their positions, and ``cu_seqlens``; what goes there decides all.
            Padding tokens are token 0 at position 0, padding instructions have no token.
        probability: fp32 ``[B, M]``, where the result lies after `run`.
    """

    def __init__(
        self, weights: Weights, candidates: DeviceCandidates, buffers: Buffers, bucket: Bucket, longest: int
    ) -> None:
        config = weights.config
        self._weights, self._candidates, self._buffers = weights, candidates, buffers
        self._config, self._bucket, self._longest = config, bucket, longest
        tokens, self._per_request = bucket.tokens, bucket.candidates * config.views
        self._rows = tokens + bucket.requests * self._per_request
        self.inputs = buffers.inputs[: bucket.inputs]
        self._token_ids, self._positions = self.inputs[:tokens], self.inputs[tokens : 2 * tokens]
        self._cu_seqlens = self.inputs[2 * tokens :]
        self.probability = buffers.probability[: bucket.requests * bucket.candidates].view(bucket.requests, -1)

    def run(self) -> None:
        """Queue the whole pass on the current stream."""
        config, weights, buffers = self._config, self._weights, self._buffers
        tokens = self._bucket.tokens
        norm = weights.embedding_norm
        embedding_layer_norm(
            self._token_ids,
            self._positions,
            weights.word.rows,
            weights.word.scale,
            weights.position.rows,
            weights.position.scale,
            norm.weight,
            norm.bias,
            config.trunk.layer_norm_eps,
            buffers.state[:tokens],
        )
        inquiry = buffers.state[tokens : self._rows].view(self._bucket.requests, self._per_request, -1)
        inquiry.copy_(self._candidates.rows.expand_as(inquiry))
        for index, layer in enumerate(weights.layers):
            if index < config.inject_at:
                self._project(layer, 0, tokens)
                self._attend_prefix()
                self._finish(layer, 0, tokens)
            else:
                self._late_layer(index, layer)
        self._read_out()

    def _late_layer(self, index: int, layer: Layer) -> None:
        """Instruction and inquiry rows; nobody reads what becomes of the instruction rows in the last layer."""
        tokens, first = self._bucket.tokens, index == self._config.inject_at
        last = index + 1 == self._config.trunk.layers
        if last:
            self._weigh_evidence()
            start = self._weights.key_value_start
            keys_values = layer.query_key_value.outputs_from(start)
            out = self._buffers.projected[:tokens, start:]
            linear(self._buffers.state[:tokens], keys_values.weight, keys_values.bias, out)
        else:
            self._project(layer, 0, tokens)
            self._attend_prefix()
        if not first:  # the first one's are the same for every instruction, and lie in the table
            self._project(layer, tokens, self._rows)
        self._attend_candidates(index - self._config.inject_at, first)
        self._finish(layer, tokens if last else 0, self._rows, last)

    def _project(self, layer: Layer, begin: int, end: int) -> None:
        both = layer.query_key_value
        linear(self._buffers.state[begin:end], both.weight, both.bias, self._buffers.projected[begin:end])

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[..., 3 D]`` -> query, key and value, each ``[..., H, d]``."""
        heads = projected.unflatten(-1, (3, self._config.trunk.heads, -1))
        return heads[..., 0, :, :], heads[..., 1, :, :], heads[..., 2, :, :]

    def _attend_prefix(self) -> None:
        tokens = self._bucket.tokens
        query, key, value = self._split(self._buffers.projected[:tokens])
        out = self._buffers.attended[:tokens].view_as(query)
        prefix_attention(query, key, value, self._cu_seqlens, self._longest, out)

    def _attend_candidates(self, late: int, first: bool) -> None:
        tokens, requests = self._bucket.tokens, self._bucket.requests
        _, prefix_key, prefix_value = self._split(self._buffers.projected[:tokens])
        if first:
            own = self._split(self._candidates.projected[None, :, None])  # [1, C, 1, H, d]
        else:
            rows = self._buffers.projected[tokens : self._rows]
            own = self._split(rows.view(requests, self._per_request, 1, -1))
        out = self._buffers.attended[tokens : self._rows].view(requests, *own[0].shape[1:])
        memory_key = memory_value = None
        if self._candidates.memory is not None:
            memory = self._candidates.memory[:, late].unflatten(-1, (self._config.trunk.heads, -1))  # [C, 2, K, H, d]
            memory_key, memory_value = memory[:, 0], memory[:, 1]
        candidate_attention(
            *own, prefix_key, prefix_value, self._cu_seqlens, self._longest, out, memory_key, memory_value
        )

    def _finish(self, layer: Layer, begin: int, end: int, last: bool = False) -> None:
        """Output projection, residuals, norms and feed-forward; the very last norm is the scoring head's."""
        buffers, epsilon = self._buffers, self._config.trunk.layer_norm_eps
        state, branch, wide = buffers.state[begin:end], buffers.branch[begin:end], buffers.wide[begin:end]
        linear(buffers.attended[begin:end], layer.attention_output.weight, layer.attention_output.bias, branch)
        norm = layer.attention_norm
        residual_layer_norm(branch, state, norm.weight, norm.bias, epsilon, state)
        linear(state, layer.up.weight, layer.up.bias, wide, gelu=True)
        linear(wide, layer.down.weight, layer.down.bias, branch)
        if not last:
            norm = layer.output_norm
            residual_layer_norm(branch, state, norm.weight, norm.bias, epsilon, state)

    def _weigh_evidence(self) -> None:
        """Which evidence counts for each instruction, from the mean of its rows before the last layer."""
        relevance, buffers = self._weights.relevance, self._buffers
        if relevance is None:
            return
        requests = self._bucket.requests
        pooled, hidden = buffers.pooled[:requests], buffers.relevance_hidden[:requests]
        state = buffers.state[: self._bucket.tokens]
        mean_pool(state, self._cu_seqlens, relevance.center, relevance.scale, pooled)
        linear(pooled, relevance.hidden.weight, relevance.hidden.bias, hidden, gelu=True)
        linear(hidden, relevance.tasks.weight, relevance.tasks.bias, buffers.relevance[:requests])

    def _read_out(self) -> None:
        bucket, buffers, config = self._bucket, self._buffers, self._config
        shape = (bucket.requests, bucket.candidates, config.views, config.trunk.hidden)
        rows = slice(bucket.tokens, self._rows)
        weighed = None
        if self._weights.relevance is not None:
            evidence = self._candidates.start[:, config.trunk.hidden :]
            weighed = buffers.relevance[: bucket.requests], evidence.unflatten(0, (bucket.candidates, config.views))
        scoring_head(
            buffers.branch[rows].view(shape),
            buffers.state[rows].view(shape),
            self._weights.head,
            weighed,
            self.probability,
        )
