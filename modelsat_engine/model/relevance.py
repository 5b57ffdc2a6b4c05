"""The relevance head: which tasks of the aptitude test tell about an instruction, times what a candidate showed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelevanceHead(nn.Module):
    """A small network from an instruction to one weight for each number of a candidate's evidence::

        relevance(x) = W2 gelu(W1 (xbar - center) / spread + b1) + b2        [E]
        logit += relevance(x) . evidence(c)

    with ``xbar`` the mean of the instruction's rows before the trunk's last layer and ``evidence(c)`` from
    `TaskwiseEncoder.evidence_of`: 1, overall strength, z_t of every task, expert note. The candidate acts through
    the tasks alone, linearly, so there is nothing in it that could be learned by heart of the few models that train
    a router. One dot product a pair. Behind them may follow the axes of refinements (`training.refinement`), which
    training leaves alone.

    Args:
        hidden: D, width of the trunk.
        width: hidden width of this head.
        evidence: E.
    """

    def __init__(self, hidden: int, width: int, evidence: int) -> None:
        super().__init__()
        self.center: Tensor
        self.scale: Tensor
        self.register_buffer("center", torch.zeros(hidden))
        self.register_buffer("scale", torch.ones(hidden))  # 1 / spread
        self.hidden = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(0.2)
        self.tasks = nn.Linear(width, evidence)
        # before it has learned anything, a candidate is as good as its overall strength
        nn.init.zeros_(self.tasks.weight)
        nn.init.zeros_(self.tasks.bias)
        with torch.no_grad():
            self.tasks.bias[1] = 1.0

    def describe(self, pooled: Tensor) -> None:
        """Sets center and spread from the pooled states of some instructions, ``[N, D]``."""
        self.center.copy_(pooled.mean(0))
        self.scale.copy_(1 / pooled.std(0).clamp(min=1e-3))

    def forward(self, pooled: Tensor) -> Tensor:
        """``[B, D]`` -> relevance ``[B, E]``."""
        relevance: Tensor = self.tasks(self.dropout(self.hidden_states(pooled)))
        return relevance

    def hidden_states(self, pooled: Tensor) -> Tensor:
        """The hidden layer, ``[B, D]`` -> ``[B, width]``; the axes of refinements are cut from it."""
        return F.gelu(self.hidden((pooled - self.center) * self.scale))
