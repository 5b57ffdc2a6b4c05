"""The Model-SAT network: one pass scores every candidate of a zoo for every instruction of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelsat_engine.kernels.capability_projection.reference import capability_projection_reference
from modelsat_engine.kernels.scoring_head.reference import scoring_head_reference
from modelsat_engine.model.capability import TaskwiseEncoder, TextEncoder, mean_pool
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.head import RegressionHead, YesNoHead
from modelsat_engine.model.relevance import RelevanceHead
from modelsat_engine.model.trunk import EncoderTrunk


@dataclass(frozen=True)
class ConnectedZoo:
    """Candidates in the trunk's embedding space, before any trunk layer.

    Attributes:
        inquiry_start: ``[M, R, D + E]``, where the inquiry row of each view starts, then the candidate's evidence,
            whose last A numbers are 0 until somebody refines the candidate.
        memory_start: ``[M, R, K, D]``, or None for K = 0.
    """

    inquiry_start: Tensor
    memory_start: Tensor | None = None


class ModelSatNetwork(nn.Module):
    """Capability encoder psi, connector W, trunk phi and head, with the edge from capability to instruction cut.

    Instruction rows see the instruction only, memory rows their candidate's memory only, and one inquiry row per
    (instruction, candidate) sees the instruction, its candidate's memory and itself. `model.reference` states the
    same network one pair at a time.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        encoder, hidden = config.capability_encoder, config.trunk.hidden
        self.trunk = EncoderTrunk(config.trunk)
        self.capability: TaskwiseEncoder | TextEncoder
        if encoder.kind == "taskwise":
            self.capability = TaskwiseEncoder(
                encoder, hidden, per_task=config.memory_rows > 1, shows_evidence=config.evidence_size > 0
            )
        else:
            self.capability = TextEncoder(encoder, config.trunk)
        self.connector = nn.Linear(encoder.size, hidden)
        # psi is normalised to length 1, a trunk row has length sqrt(D)
        nn.init.normal_(self.connector.weight, std=1.0)
        nn.init.zeros_(self.connector.bias)
        self.inquiry = nn.Parameter(torch.empty(hidden).normal_()) if config.memory_rows else None
        self.head = YesNoHead(hidden) if config.head == "yes_no" else RegressionHead(hidden)
        self.relevance: RelevanceHead | None = None
        if config.evidence_size:
            self.relevance = RelevanceHead(hidden, config.relevance_hidden, config.evidence_size)
        self.temperature: Tensor
        self.calibration_bias: Tensor
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(()))

    # -- candidates ---------------------------------------------------------------------------------------------------

    def embed_notes(self, note_ids: Tensor, note_mask: Tensor) -> Tensor:
        """Expert notes as a bag of word embeddings: int64 ``[M, N]`` twice -> ``[M, D]``."""
        return mean_pool(self.trunk.embeddings.word(note_ids), note_mask > 0)

    def connect_counts(self, correct: Tensor, total: Tensor, note_ids: Tensor, note_mask: Tensor) -> ConnectedZoo:
        """Equations (2) and (3) for a taskwise encoder; arguments as in `TaskwiseEncoder` and `embed_notes`."""
        note = self.embed_notes(note_ids, note_mask)
        zoo = self._connect(self.capability(correct, total, note))
        if self.relevance is None or not isinstance(self.capability, TaskwiseEncoder):
            return zoo
        evidence = self.capability.evidence_of(correct, total, note)  # [M, E - A]
        # Who refines a candidate writes over these: the graph of the encoder is the same with and without.
        refinement = evidence.new_zeros(()).expand(evidence.shape[0], self.config.refinement_axes)
        evidence = torch.cat([evidence, refinement], -1)[:, None]  # [M, 1, E]
        views = zoo.inquiry_start.shape[1]
        start = torch.cat([zoo.inquiry_start, evidence.expand(-1, views, -1)], -1)
        return ConnectedZoo(start, zoo.memory_start)

    def connect_text(self, capability_ids: Tensor, capability_mask: Tensor) -> ConnectedZoo:
        """Equations (2) and (3) for a text encoder; arguments as in `TextEncoder`."""
        return self._connect(self.capability(capability_ids, capability_mask))

    def _connect(self, representation: Tensor) -> ConnectedZoo:
        rows = capability_projection_reference(representation, self.connector.weight, self.connector.bias)
        if self.inquiry is None:
            return ConnectedZoo(rows[:, :, 0])
        return ConnectedZoo(self.inquiry.expand(*rows.shape[:2], -1), rows)

    def memory_keys_values(self, memory_start: Tensor) -> Tensor:
        """What a candidate's memory rows contribute to every later request; computed once when it joins.

        Args:
            memory_start: ``[M, R, K, D]``.

        Returns:
            ``[M, R, late_layers, 2, K, D]``, keys at index 0 and values at index 1 of the fourth axis.
        """
        candidates, views = memory_start.shape[:2]
        rows = memory_start.flatten(0, 1)  # [M*R, K, D]
        cached = []
        for layer in self.trunk.between(self.config.inject_at):
            keys, values = layer.keys_values(rows)
            cached.append(torch.stack([keys.flatten(2), values.flatten(2)], 1))
            rows = layer(rows, keys, values)
        return torch.stack(cached, 1).unflatten(0, (candidates, views))

    # -- scoring ------------------------------------------------------------------------------------------------------

    def encode_instruction(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Instruction rows through the layers before `inject_at`: int64 and bool ``[B, S]`` -> ``[B, S, D]``."""
        return self.trunk(input_ids, mask, layers=self.config.inject_at)

    def inquire(
        self, prefix: Tensor, mask: Tensor, inquiry_start: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The late layers of the shared layout.

        The last layer needs only the instruction's keys and values: nobody reads the instruction's last output.

        Args:
            prefix: ``[B, S, D]`` from `encode_instruction`; mask: bool ``[B, S]``.
            inquiry_start: ``[M, R, D + E]``; memory: ``[M, R, late_layers, 2, K, D]`` or None.

        Returns:
            Last state of the inquiry rows ``[B, M, R, D]``, and the instruction's rows before the last layer.
        """
        views = inquiry_start.shape[1]
        start = inquiry_start[..., : self.config.trunk.hidden]
        rows = start.flatten(0, 1)[None]  # [1, M*R, D]: the same for every instruction until it attends
        flat = memory.flatten(0, 1) if memory is not None else None  # [M*R, late, 2, K, D]
        layers = self.trunk.between(self.config.inject_at)
        for index, layer in enumerate(layers):
            keys, values = layer.keys_values(prefix)
            recalled = None
            if flat is not None:
                recalled = (layer.split_heads(flat[:, index, 0]), layer.split_heads(flat[:, index, 1]))
            rows = layer.inquire(rows, (keys, values), mask, recalled)
            if index + 1 < len(layers):
                prefix = layer(prefix, keys, values, mask)
        return rows.unflatten(1, (-1, views)), prefix

    def logits(self, state: Tensor) -> Tensor:
        """Uncalibrated logits of inquiry rows, ``[..., D]`` -> ``[...]``, without what the evidence adds."""
        weight, bias = self.head.weight_and_bias()
        return state @ weight + bias

    def relevance_and_evidence(self, pooled: Tensor, inquiry_start: Tensor) -> tuple[Tensor, Tensor] | None:
        """``[B, E]`` of pooled instructions ``[B, D]`` and ``[M, R, E]`` of candidates; None without the head."""
        if self.relevance is None:
            return None
        return self.relevance(pooled), inquiry_start[..., self.config.trunk.hidden :]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, inquiry_start: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities of a padded batch from the rows of a candidate table.

        Args:
            input_ids, attention_mask: int64 ``[B, S]``, 1 at real tokens.
            inquiry_start: ``[M, R, D + E]``.
            memory: None for K = 0, else ``[M, R, late_layers, 2, K, D]``; where nothing is cut, in the layout
                "capability_first", nothing can be cached and it is the rows themselves, ``[M, R, K, D]``.

        Returns:
            P(Yes) ``[B, M]``, and an embedding of each instruction ``[B, D]``: the mean of its rows before the last
            layer, or before they meet a candidate in the layout "capability_first".
        """
        mask = attention_mask > 0
        prefix = self.encode_instruction(input_ids, mask)
        if self.config.layout == "capability_first":
            state = self._pair_states(prefix, mask, ConnectedZoo(inquiry_start, memory))
        else:
            state, prefix = self.inquire(prefix, mask, inquiry_start, memory)
        embedding = mean_pool(prefix, mask)
        weighed = self.relevance_and_evidence(embedding, inquiry_start)
        probability = scoring_head_reference(
            state, *self.head.weight_and_bias(), self.temperature, self.calibration_bias, weighed
        )
        return probability, embedding

    def zoo_logits(self, prefix: Tensor, mask: Tensor, zoo: ConnectedZoo) -> Tensor:
        """Uncalibrated logits ``[B, M, R]`` in the configured layout, memory computed on the way.

        Args:
            prefix: ``[B, S, D]`` from `encode_instruction`; mask: bool ``[B, S]``.
        """
        return self.zoo_logits_and_embedding(prefix, mask, zoo)[0]

    def zoo_logits_and_embedding(self, prefix: Tensor, mask: Tensor, zoo: ConnectedZoo) -> tuple[Tensor, Tensor]:
        """`zoo_logits`, and the mean ``[B, D]`` of each instruction's rows that the relevance head reads."""
        state, embedding, weighed = self._zoo_state(prefix, mask, zoo)
        logits = self.logits(state)
        return (logits if weighed is None else logits + torch.einsum("be,mre->bmr", *weighed)), embedding

    def score_zoo(self, input_ids: Tensor, attention_mask: Tensor, zoo: ConnectedZoo) -> Tensor:
        """P(Yes) ``[B, M]`` in the configured layout, memory computed on the way. Arguments as in `forward`."""
        mask = attention_mask > 0
        state, _, weighed = self._zoo_state(self.encode_instruction(input_ids, mask), mask, zoo)
        return scoring_head_reference(
            state, *self.head.weight_and_bias(), self.temperature, self.calibration_bias, weighed
        )

    def _zoo_state(
        self, prefix: Tensor, mask: Tensor, zoo: ConnectedZoo
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Last state of the inquiry rows ``[B, M, R, D]``, the instructions' embedding ``[B, D]`` as `forward` gives
        it, and relevance and evidence where there is the head."""
        if self.config.layout == "capability_first":  # one candidate at a time: all pairs at once are many rows
            states = torch.cat([self._pair_states(prefix, mask, one) for one in _one_by_one(zoo)], 1)
            return states, mean_pool(prefix, mask), None
        memory = self.memory_keys_values(zoo.memory_start) if zoo.memory_start is not None else None
        state, prefix = self.inquire(prefix, mask, zoo.inquiry_start, memory)
        embedding = mean_pool(prefix, mask)
        return state, embedding, self.relevance_and_evidence(embedding, zoo.inquiry_start)

    def _pair_states(self, prefix: Tensor, mask: Tensor, zoo: ConnectedZoo) -> Tensor:
        """The paper's order, uncut: memory, instruction and inquiry attend to each other; one sequence per pair.

        Args:
            prefix: ``[B, S, D]`` from `encode_instruction`; mask: bool ``[B, S]``.

        Returns:
            Last state of the inquiry rows ``[B, M, R, D]``.
        """
        batch, views = prefix.shape[0], zoo.inquiry_start.shape[1]
        inquiry = zoo.inquiry_start.flatten(0, 1)  # [P, D], P = M*R
        pairs = inquiry.shape[0]
        parts = [prefix[:, None].expand(-1, pairs, -1, -1), inquiry[None, :, None].expand(batch, -1, -1, -1)]
        seen = [mask[:, None].expand(-1, pairs, -1), mask.new_ones(batch, pairs, 1)]
        if zoo.memory_start is not None:
            memory = zoo.memory_start.flatten(0, 1)[None]  # [1, P, K, D]
            parts.insert(0, memory.expand(batch, -1, -1, -1))
            seen.insert(0, mask.new_ones(batch, pairs, memory.shape[2]))
        rows, seen_mask = torch.cat(parts, 2).flatten(0, 1), torch.cat(seen, 2).flatten(0, 1)  # [B*P, K + S + 1, D]
        for layer in self.trunk.between(self.config.inject_at):
            rows = layer(rows, *layer.keys_values(rows), seen_mask)
        return rows[:, -1].unflatten(0, (batch, -1, views))


def _one_by_one(zoo: ConnectedZoo) -> list[ConnectedZoo]:
    """Each candidate as a zoo of its own."""
    memory = zoo.memory_start
    return [
        ConnectedZoo(start, None if memory is None else memory[index : index + 1])
        for index, start in enumerate(zoo.inquiry_start.split(1))
    ]
