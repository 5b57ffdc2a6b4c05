"""Linear, residual with LayerNorm, embedding and mean: each against its fp64 reference, on rows of odd numbers."""

from __future__ import annotations

import pytest
import torch

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.embedding_layer_norm.launch import embedding_layer_norm
from modelsat_engine.kernels.embedding_layer_norm.reference import embedding_layer_norm_reference
from modelsat_engine.kernels.linear.launch import linear
from modelsat_engine.kernels.linear.reference import linear_reference
from modelsat_engine.kernels.mean_pool.launch import mean_pool
from modelsat_engine.kernels.mean_pool.reference import mean_pool_reference
from modelsat_engine.kernels.residual_layer_norm.launch import residual_layer_norm
from modelsat_engine.kernels.residual_layer_norm.reference import residual_layer_norm_reference
from tests.kernels.comparison import DTYPES, TOLERANCES, GuardedOutput, random_tensor

EPSILON = 1e-12


@pytest.mark.parametrize("gelu", [False, True], ids=["plain", "gelu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "out_features", "in_features"), [(17, 37, 40), (1, 64, 128), (70, 5, 3)])
def test_linear_is_its_reference(
    seed: int, rows: int, out_features: int, in_features: int, dtype: torch.dtype, gelu: bool
) -> None:
    x = random_tensor(rows, in_features, dtype=dtype)
    weight = random_tensor(out_features, in_features, dtype=dtype, scale=in_features**-0.5)
    bias = random_tensor(out_features)
    out = GuardedOutput(rows, out_features, dtype=dtype)
    linear(x, weight, bias, out.rows, gelu)
    out.check(linear_reference(x.double(), weight.double(), bias.double(), gelu), TOLERANCES[dtype])


def test_linear_reads_and_writes_parts_of_wider_rows(seed: int) -> None:
    everything, weight, bias = random_tensor(17, 24), random_tensor(6, 8), random_tensor(6)
    out = torch.full((17, 20), float("nan"))
    linear(everything[:, 8:16], weight, bias, out[:, 10:16])
    expected = linear_reference(everything[:, 8:16].double(), weight.double(), bias.double())
    assert (out[:, 10:16] - expected).abs().max() < 1e-5
    assert out[:, :10].isnan().all()
    assert out[:, 16:].isnan().all()


def test_a_row_has_the_same_bits_in_every_batch(seed: int) -> None:
    x, weight, bias = random_tensor(70, 40), random_tensor(37, 40), random_tensor(37)
    whole = linear(x, weight, bias, torch.empty(70, 37), gelu=True)
    for rows in (slice(0, 1), slice(3, 20), slice(69, 70)):
        assert torch.equal(linear(x[rows], weight, bias, torch.empty_like(whole[rows]), gelu=True), whole[rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(17, 37), (1, 64), (6, 130)])
def test_residual_layer_norm_is_its_reference(seed: int, rows: int, width: int, dtype: torch.dtype) -> None:
    # a mean far from zero: E[x^2] - mean^2 would lose the digits
    branch, residual = random_tensor(rows, width, dtype=dtype), random_tensor(rows, width, dtype=dtype) + 30
    weight, bias = random_tensor(width), random_tensor(width)
    out = GuardedOutput(rows, width, dtype=dtype)
    residual_layer_norm(branch, residual, weight, bias, EPSILON, out.rows)
    wide = [x.double() for x in (branch, residual, weight, bias)]
    out.check(residual_layer_norm_reference(*wide, EPSILON), max(TOLERANCES[dtype], 2e-5))


def test_residual_layer_norm_may_write_over_its_residual(seed: int) -> None:
    branch, residual, weight, bias = random_tensor(9, 33), random_tensor(9, 33), random_tensor(33), random_tensor(33)
    apart = residual_layer_norm(branch, residual, weight, bias, EPSILON, torch.empty(9, 33))
    assert torch.equal(residual_layer_norm(branch, residual, weight, bias, EPSILON, residual), apart)


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_embedding_is_its_reference(seed: int, dtype: torch.dtype, quantized: bool) -> None:
    width, vocabulary, places, tokens = 37, 50, 12, 17
    if quantized:
        word, position = (torch.randint(-127, 128, (n, width), dtype=torch.int8) for n in (vocabulary, places))
        word_scale, position_scale = (torch.rand(n) / 64 for n in (vocabulary, places))
    else:
        word, position = random_tensor(vocabulary, width, dtype=dtype), random_tensor(places, width, dtype=dtype)
        word_scale, position_scale = torch.ones(vocabulary), torch.ones(places)
    ids = torch.randint(0, vocabulary, (tokens,), dtype=torch.int32)
    ids[0], ids[-1] = 0, vocabulary - 1
    positions = torch.randint(0, places, (tokens,), dtype=torch.int32)
    weight, bias = random_tensor(width), random_tensor(width)
    out = GuardedOutput(tokens, width, dtype=dtype)
    tables = (word, word_scale, position, position_scale)
    embedding_layer_norm(ids, positions, *tables, weight, bias, EPSILON, out.rows)
    wide = [x.double() if x.is_floating_point() else x for x in (*tables, weight, bias)]
    out.check(embedding_layer_norm_reference(ids, positions, *wide, EPSILON), TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mean_pool_is_its_reference_and_ignores_rows_of_no_instruction(seed: int, dtype: torch.dtype) -> None:
    lengths, width = [37, 1, 0, 16, 17], 130
    cu_seqlens = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    rows = random_tensor(sum(lengths) + 5, width, dtype=dtype)
    rows[sum(lengths) :] = float("nan")
    center, scale = random_tensor(width), random_tensor(width)
    out = GuardedOutput(len(lengths), width, dtype=torch.float32)
    mean_pool(rows, cu_seqlens, center, scale, out.rows)
    out.check(mean_pool_reference(rows.double(), cu_seqlens, center.double(), scale.double()), 2e-6)


def test_bad_arguments_are_named() -> None:
    x, weight, bias, out = torch.zeros(3, 8), torch.zeros(4, 8), torch.zeros(4), torch.zeros(3, 4)
    with pytest.raises(KernelError, match=r"weight is float16; pass float32"):
        linear(x, weight.half(), bias, out)
    with pytest.raises(KernelError, match=r"x is int64; pass float16 or bfloat16 or float32"):
        linear(x.long(), weight, bias, out)
    with pytest.raises(KernelError, match=r"bias has the shape \[5\]; pass \[4\]"):
        linear(x, weight, torch.zeros(5), out)
    with pytest.raises(KernelError, match=r"weight is not contiguous; pass weight.contiguous\(\)"):
        linear(x, torch.zeros(8, 4).T, bias, out)
    with pytest.raises(KernelError, match=r"row of x do not lie side by side"):
        linear(torch.zeros(8, 3).T, weight, bias, out)
    with pytest.raises(KernelError, match=r"rows of out overlap"):
        linear(x, weight, bias, torch.zeros(4).expand(3, 4))
    with pytest.raises(KernelError, match=r"weight is on meta, the other arguments on (cpu|cuda:0)"):
        linear(x, weight.to("meta"), bias, out)


def test_no_rows_is_no_launch() -> None:
    out = linear(torch.zeros(0, 8), torch.zeros(4, 8), torch.zeros(4), torch.zeros(0, 4))
    assert out.shape == (0, 4)
