"""Heads: the inquiry row's last state to one logit. Both kinds end as one weight row and one bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class YesNoHead(nn.Module):
    """Two rows of an LM head; P(Yes) against P(No) is the sigmoid of their difference, equation (4) of Model-SAT."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rows = nn.Linear(hidden, 2)  # row 0 "Yes", row 1 "No"
        nn.init.normal_(self.rows.weight, std=0.02)
        nn.init.zeros_(self.rows.bias)

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """``w_yes - w_no`` ``[D]`` and ``b_yes - b_no``, a scalar."""
        return self.rows.weight[0] - self.rows.weight[1], self.rows.bias[0] - self.rows.bias[1]


class RegressionHead(nn.Module):
    """One row, trained on the squared error of the probability."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(()))

    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """Weight ``[D]`` and bias, a scalar."""
        return self.weight, self.bias
