"""psi: capability encoders that turn a candidate's aptitude results into rows for the connector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsat_engine.model.config import NOTE_FEATURES, CapabilityEncoderConfig, TrunkConfig
from modelsat_engine.model.trunk import EncoderTrunk

_OVERALL_FEATURES = 3
_NEWTON_STEPS = 6


class TaskwiseEncoder(nn.Module):
    """Embedded keywords with numeric accuracies; the order of the tasks does not matter.

    A task speaks only through its evidence ``z_t``: how far the candidate's accuracy on the task lies (in logits,
    shrunk by `prior_strength` pseudo-answers) from what its overall accuracy ``o`` and the task's usual difficulty
    predict. A model whose answers are few therefore looks like an average model of its strength::

        expected_t = sigmoid(o + offset_t)            o solves  sum_t total_t expected_t = sum_t correct_t
        z_t   = logit((correct_t + s expected_t) / (total_t + s)) - logit(expected_t)
        psi   = A [1, o, o^2] + sum_t z_t V k_t / sqrt(T) + N note                          one row
        row_t = U k_t + z_t V k_t,  row_T = A [1, o, o^2] + N note                          T + 1 rows

    with ``k_t`` the embedding of the task's five keywords, which is data of the aptitude test and not trained.

    Args:
        config: sizes; `tasks` and `keyword_size` give the shape of the keyword embeddings.
        note_size: width of the embedded expert note.
        per_task: T + 1 rows instead of one.
        shows_evidence: whether `evidence_of` will be asked for.
    """

    def __init__(
        self, config: CapabilityEncoderConfig, note_size: int, per_task: bool, shows_evidence: bool = False
    ) -> None:
        super().__init__()
        self.prior_strength = config.prior_strength
        self.per_task = per_task
        self.keywords: Tensor
        self.offsets: Tensor
        self.center: Tensor
        self.register_buffer("keywords", torch.zeros(config.tasks, config.keyword_size))  # k_t [T, Dk]
        self.register_buffer("offsets", torch.zeros(config.tasks))  # logit difficulty of each task [T]
        self.register_buffer("center", torch.zeros(()))  # mean overall logit of the training models
        self.overall = nn.Linear(_OVERALL_FEATURES, config.size, bias=False)  # A
        self.evidence = nn.Linear(config.keyword_size, config.size, bias=False)  # V
        self.note = nn.Linear(note_size, config.size, bias=False)  # N
        self.task = nn.Linear(config.keyword_size, config.size, bias=False) if per_task else None  # U
        self.note_evidence = nn.Linear(note_size, NOTE_FEATURES, bias=False) if shows_evidence else None
        nn.init.normal_(self.overall.weight, std=0.5)
        nn.init.normal_(self.evidence.weight, std=1.0)
        nn.init.zeros_(self.note.weight)

    def describe_test(self, keywords: Tensor, offsets: Tensor, center: float) -> None:
        """Sets what belongs to the aptitude test: keywords ``[T, Dk]``, offsets ``[T]`` and the center logit."""
        self.keywords.copy_(F.normalize(keywords - keywords.mean(0), dim=-1))
        self.offsets.copy_(offsets)
        self.center.fill_(center)

    def task_evidence(self, correct: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Counts ``[M, T]`` -> overall logit relative to the center ``[M]`` and evidence z ``[M, T]``.

        The overall logit is the ability of a Rasch model whose items have the difficulty of their task, so that a
        profile of hard tasks alone does not look weak.
        """
        # pseudo-answers at the center keep an empty or a perfect profile finite
        pseudo, right = self.prior_strength, correct.sum(1) + self.prior_strength * torch.sigmoid(self.center)
        overall = torch.logit(right / (total.sum(1) + pseudo))  # [M]
        for _ in range(_NEWTON_STEPS):
            expected, middle = torch.sigmoid(overall[:, None] + self.offsets), torch.sigmoid(overall)
            surplus = (total * expected).sum(1) + pseudo * middle - right
            slope = (total * expected * (1 - expected)).sum(1) + pseudo * middle * (1 - middle)
            overall = overall - (surplus / slope).clamp(-1, 1)  # far from the root a full step can overshoot
        expected = torch.sigmoid(overall[:, None] + self.offsets)  # [M, T]
        shrunk = (correct + pseudo * expected) / (total + pseudo)
        return overall - self.center, torch.logit(shrunk) - torch.logit(expected)

    def evidence_of(self, correct: Tensor, total: Tensor, note: Tensor) -> Tensor:
        """What a relevance head weighs, ``[M, E]``: ``[1, o, z_1 .. z_T / sqrt(T), note features]``.

        Arguments as in `forward`.
        """
        if self.note_evidence is None:
            raise ValueError("this capability encoder was made without evidence")
        overall, evidence = self.task_evidence(correct, total)
        scaled = evidence / math.sqrt(evidence.shape[1])
        first = torch.stack([torch.ones_like(overall), overall], -1)
        return torch.cat([first, scaled, self.note_evidence(note)], -1)

    def forward(self, correct: Tensor, total: Tensor, note: Tensor) -> Tensor:
        """Representation rows.

        Args:
            correct, total: float ``[M, T]``, right answers and answers per task.
            note: embedded expert note ``[M, Dn]``, zeros when there is none.

        Returns:
            ``[M, 1, rows, E]`` (one view), rows = 1 or T + 1.
        """
        overall, evidence = self.task_evidence(correct, total)
        features = torch.stack([torch.ones_like(overall), overall, overall * overall], -1)  # [M, 3]
        base = self.overall(features) + self.note(note)  # [M, E]
        projected = self.evidence(self.keywords)  # V k_t [T, E]
        if self.task is None:
            rows = base + evidence @ projected / math.sqrt(evidence.shape[1])
            return rows[:, None, None, :]
        tasks = self.task(self.keywords) + evidence[..., None] * projected  # [M, T, E]
        return torch.cat([tasks, base[:, None]], 1)[:, None]


class TextEncoder(nn.Module):
    """The paper's form: a sentence encoder over the capability representation as text, mean-pooled.

    The paper averages the score over two shuffles of the task order: a text encoder therefore gives R views.

    Args:
        config: `size` must equal the encoder's hidden size.
        trunk: shape of the sentence encoder (the paper uses E5-Large; here any encoder of the BERT family).
    """

    def __init__(self, config: CapabilityEncoderConfig, trunk: TrunkConfig) -> None:
        super().__init__()
        if config.size != trunk.hidden:
            raise ValueError(
                f"a text encoder of width {trunk.hidden} cannot give representations of width {config.size}"
            )
        self.encoder = EncoderTrunk(trunk)

    def forward(self, capability_ids: Tensor, capability_mask: Tensor) -> Tensor:
        """Token ids and mask, int64 ``[M, R, C]`` -> rows ``[M, R, 1, E]``."""
        candidates, views, tokens = capability_ids.shape
        mask = capability_mask.reshape(-1, tokens) > 0
        hidden = self.encoder(capability_ids.reshape(-1, tokens), mask)  # [M*R, C, E]
        return mean_pool(hidden, mask).reshape(candidates, views, 1, -1)


def mean_pool(rows: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real rows: ``[B, S, D]``, bool ``[B, S]`` -> ``[B, D]``; zeros where no row is real."""
    weight = mask.to(rows.dtype)[..., None]
    return (rows * weight).sum(1) / weight.sum(1).clamp(min=1.0)
