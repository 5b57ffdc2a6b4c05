"""Capability projection and scoring head against their fp64 references, and what must not be written."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.capability_projection.launch import capability_projection
from modelsat_engine.kernels.capability_projection.reference import capability_projection_reference
from modelsat_engine.kernels.scoring_head.launch import Best, Head, scoring_head
from modelsat_engine.kernels.scoring_head.reference import (
    best_candidates_reference,
    normalized_states_reference,
    scoring_head_reference,
)
from tests.kernels.comparison import DTYPES, TOLERANCES, GuardedOutput, random_tensor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "out_features", "in_features"), [(17, 37, 40), (1, 16, 3), (70, 64, 64)])
def test_capability_projection_is_its_reference(
    seed: int, rows: int, out_features: int, in_features: int, dtype: torch.dtype
) -> None:
    representation = random_tensor(rows, in_features, dtype=dtype, scale=5.0)
    weight, bias = random_tensor(out_features, in_features, dtype=dtype), random_tensor(out_features)
    out = GuardedOutput(rows, out_features, dtype=dtype)
    capability_projection(representation, weight, bias, out.rows)
    expected = capability_projection_reference(representation.double(), weight.double(), bias.double())
    out.check(expected, TOLERANCES[dtype])


def test_projection_writes_its_rows_of_the_table_and_no_others(seed: int) -> None:
    representation, weight, bias = random_tensor(5, 12), random_tensor(8, 12), random_tensor(8)
    table = torch.full((20, 11), 7.0)  # three more numbers behind every row
    capability_projection(representation, weight, bias, table[:, :8], first_row=9)
    expected = capability_projection_reference(representation, weight, bias)
    assert (table[9:14, :8] - expected).abs().max() < 1e-5
    table[9:14, :8] = 7.0
    assert (table == 7.0).all()


def test_a_representation_of_zeros_gives_the_bias() -> None:
    bias = torch.arange(4.0)
    table = capability_projection(torch.zeros(2, 6), torch.ones(4, 6), bias, torch.empty(2, 4))
    assert torch.equal(table, bias.expand(2, 4))


def test_a_zoo_larger_than_the_table_is_refused_and_nothing_is_written() -> None:
    table = torch.full((6, 4), 7.0)
    with pytest.raises(KernelError, match="rows 4 to 7 do not fit a candidate table of 6 rows; make a larger table"):
        capability_projection(torch.ones(3, 6), torch.ones(4, 6), torch.zeros(4), table, first_row=4)
    assert (table == 7.0).all()


def make_head(width: int, norm: str) -> Head:
    weight, bias = random_tensor(2, width, scale=width**-0.5), random_tensor(2)
    return Head(weight, bias, 1.3, -0.2, norm, random_tensor(width), random_tensor(width), 1e-6)


def expected_probability(
    state: Tensor, residual: Tensor | None, head: Head, weighed: tuple[Tensor, Tensor] | None
) -> Tensor:
    """fp64 reference of the whole head."""
    norm = head.norm_weight.double(), head.norm_bias.double()
    rows = normalized_states_reference(
        state.double(), None if residual is None else residual.double(), head.norm, *norm, head.epsilon
    )
    weight, bias = head.weight.double(), head.bias.double()
    scalars = torch.tensor(head.temperature).double(), torch.tensor(head.calibration_bias).double()
    evidence = None if weighed is None else (weighed[0].double(), weighed[1].double())
    return scoring_head_reference(rows, weight[0] - weight[1], bias[0] - bias[1], *scalars, evidence)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
@pytest.mark.parametrize(
    ("batch", "candidates", "views", "width", "evidence"), [(3, 17, 1, 37, 11), (1, 1, 2, 16, 0), (2, 5, 3, 130, 56)]
)
def test_scoring_head_is_its_reference(
    seed: int, batch: int, candidates: int, views: int, width: int, evidence: int, norm: str, dtype: torch.dtype
) -> None:
    state = random_tensor(batch, candidates, views, width, dtype=dtype)
    residual = random_tensor(batch, candidates, views, width, dtype=dtype) if norm == "layer" else None
    head = make_head(width, norm)
    weighed = None
    if evidence:
        behind = random_tensor(candidates, views, width + evidence)  # evidence stands behind the inquiry start
        weighed = random_tensor(batch, evidence, scale=0.2), behind[..., width:]
    out = GuardedOutput(batch, candidates, dtype=torch.float32)
    scoring_head(state, residual, head, weighed, out.rows)
    # inputs are the same to the last bit and sums are fp32, so the dtype of the states does not matter
    out.check(expected_probability(state, residual, head, weighed), 5e-6)


@pytest.mark.parametrize("candidates", [1, 2, 37])
@pytest.mark.parametrize("priced", [False, True], ids=["by probability", "by utility"])
def test_the_best_candidates_are_named_in_order(seed: int, candidates: int, priced: bool) -> None:
    batch, top, width = 3, 5, 24
    state, head = random_tensor(batch, candidates, 1, width), make_head(width, "none")
    state[:, candidates // 2 :] = state[:, :1]  # equals: the earlier column comes first
    price = torch.rand(candidates) / 10 if priced else None
    if price is not None:
        price[0] = math.nan  # an unknown price is never the best
        price[candidates // 2 :] = 0.01
    columns, utilities = GuardedOutput(batch, top, dtype=torch.int32), GuardedOutput(batch, top, dtype=torch.float32)
    arrivals = torch.zeros(batch, dtype=torch.int32)
    best = Best(columns.rows, utilities.rows, arrivals, value=0.5 if priced else 1.0, price=price)
    for _ in range(2):  # the counters are left as they were found
        probability = scoring_head(state, None, head, None, torch.empty(batch, candidates), best)
    expected_columns, expected_utilities = best_candidates_reference(probability, top, best.value, price)
    assert torch.equal(columns.rows, expected_columns)
    assert torch.allclose(utilities.rows, expected_utilities, atol=1e-6)
    assert not arrivals.any()
    columns.check_guards()
    utilities.check_guards()


def test_a_state_that_is_no_number_gives_no_probability_and_is_never_the_best() -> None:
    torch.manual_seed(0)
    state, head = random_tensor(1, 3, 1, 24), make_head(24, "layer")
    state[0, 1, 0, 5] = math.nan
    best = Best(*(torch.empty(1, 3, dtype=dtype) for dtype in (torch.int32, torch.float32)), torch.zeros(1).int())
    probability = scoring_head(state, None, head, None, torch.empty(1, 3), best)
    assert probability.isnan().tolist() == [[False, True, False]]
    assert sorted(best.columns[0].tolist()) == [-1, 0, 2]


def test_bad_heads_are_refused() -> None:
    state, head, out = torch.zeros(2, 3, 1, 8), make_head(8, "layer"), torch.zeros(2, 3)
    with pytest.raises(KernelError, match=r"norm 'batch' is not known; use none, layer, rms"):
        scoring_head(state, None, make_head(8, "batch"), None, out)
    with pytest.raises(KernelError, match=r"residual has the shape \[2, 3, 1, 7\]; pass \[2, 3, 1, 8\]"):
        scoring_head(state, torch.zeros(2, 3, 1, 7), head, None, out)
    with pytest.raises(KernelError, match=r"evidence has the shape \[4, 1, 5\]; pass \[3, 1, 5\]"):
        scoring_head(state, None, head, (torch.zeros(2, 5), torch.zeros(4, 1, 5)), out)
    none = Best(torch.zeros(2, 0, dtype=torch.int32), torch.zeros(2, 0), torch.zeros(2, dtype=torch.int32))
    with pytest.raises(KernelError, match=r"best\.columns has no column"):
        scoring_head(state, None, head, None, out, none)
