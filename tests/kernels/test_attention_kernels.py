"""Prefix attention and candidate attention against their fp64 references: lengths, heads, memory, splits, bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.candidate_attention.launch import MAX_PREFIX_TOKENS, candidate_attention
from modelsat_engine.kernels.candidate_attention.reference import (
    candidate_attention_reference,
    packed_candidate_attention_reference,
)
from modelsat_engine.kernels.prefix_attention.launch import prefix_attention
from modelsat_engine.kernels.prefix_attention.reference import prefix_attention_reference
from tests.kernels.comparison import DTYPES, TOLERANCES, GuardedOutput, random_tensor, wide


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def projection(*shape: int, heads: int, key_heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Query, key and value as parts of one random tensor, ``[*shape, heads or key_heads, width]``."""
    whole = random_tensor(*shape, (heads + 2 * key_heads) * width, dtype=dtype)
    parts = whole.split([heads * width, key_heads * width, key_heads * width], -1)
    return tuple(part.unflatten(-1, (-1, width)) for part in parts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize(("heads", "key_heads", "width"), [(2, 2, 32), (4, 2, 24), (3, 1, 16)])
def test_prefix_attention_is_its_reference(
    seed: int, heads: int, key_heads: int, width: int, causal: bool, dtype: torch.dtype
) -> None:
    lengths = [37, 1, 0, 70]
    q, k, v = projection(sum(lengths), heads=heads, key_heads=key_heads, width=width, dtype=dtype)
    cu_seqlens = cumulative(lengths)
    out = GuardedOutput(sum(lengths), heads, width, dtype=dtype)
    prefix_attention(q, k, v, cu_seqlens, 100, out.rows, causal)  # the bound may be more than the longest
    out.check(prefix_attention_reference(wide(q), wide(k), wide(v), cu_seqlens, causal), TOLERANCES[dtype])


def test_prefix_attention_gives_an_instruction_the_same_bits_in_every_batch(seed: int) -> None:
    lengths = [37, 5, 70]
    q, k, v = projection(sum(lengths), heads=2, key_heads=1, width=16, dtype=torch.float16)
    whole = prefix_attention(q, k, v, cumulative(lengths), 70, torch.empty(112, 2, 16, dtype=torch.float16))
    alone = torch.empty(5, 2, 16, dtype=torch.float16)
    prefix_attention(q[37:42], k[37:42], v[37:42], cumulative([5]), 5, alone)
    assert torch.equal(alone, whole[37:42])


@dataclass(frozen=True)
class Case:
    """Sizes of one call of candidate attention."""

    lengths: tuple[int, ...]
    candidates: int
    inquiry_rows: int = 1
    heads: int = 2
    key_heads: int = 2
    width: int = 32
    memory_rows: int = 0
    same_query: bool = False
    split_keys: int = 1024


CASES = {
    "mini, first late layer": Case((37, 1, 12), 17, same_query=True),
    "mini, later layers": Case((37, 1, 12), 17),
    "one candidate, one token": Case((1,), 1),
    "an instruction without tokens": Case((0, 3), 5),
    "memory of one row": Case((9, 70), 5, memory_rows=1),
    "memory in several blocks": Case((9, 40), 5, memory_rows=19, same_query=True),
    "grouped heads": Case((37, 5), 9, heads=6, key_heads=2, width=24),
    "several inquiry rows": Case((37, 5), 7, inquiry_rows=3),
    "everything at once": Case((70, 5), 5, inquiry_rows=3, heads=4, key_heads=2, width=24, memory_rows=5),
    "split over keys": Case((200, 64, 65, 1, 0), 3, split_keys=64),
    "split with memory and grouped heads": Case(
        (150, 20), 11, inquiry_rows=2, heads=4, key_heads=1, width=16, memory_rows=3, split_keys=64
    ),
}


@dataclass
class Arguments:
    """Random arguments for a case."""

    query: Tensor
    own_key: Tensor
    own_value: Tensor
    prefix_key: Tensor
    prefix_value: Tensor
    cu_seqlens: Tensor
    memory_key: Tensor | None
    memory_value: Tensor | None

    @classmethod
    def draw(cls, case: Case, dtype: torch.dtype) -> Arguments:
        sizes = {"heads": case.heads, "key_heads": case.key_heads, "width": case.width, "dtype": dtype}
        sets = 1 if case.same_query else len(case.lengths)
        own = projection(sets, case.candidates, case.inquiry_rows, **sizes)
        _, *prefix = projection(sum(case.lengths), **sizes)
        memory: tuple[Tensor | None, Tensor | None] = (None, None)
        if case.memory_rows:
            # as in the candidate table: two late layers, keys and values of each
            shape = (case.candidates, 2, 2, case.memory_rows, case.key_heads, case.width)
            table = random_tensor(*shape, dtype=dtype)
            memory = table[:, 1, 0], table[:, 1, 1]
        return cls(*own, *prefix, cumulative(list(case.lengths)), *memory)

    def run(self, case: Case, out: Tensor, longest: int | None = None) -> Tensor:
        longest = max(case.lengths) if longest is None else longest
        prefix = (self.prefix_key, self.prefix_value, self.cu_seqlens, longest)
        memory = (self.memory_key, self.memory_value)
        return candidate_attention(
            self.query, self.own_key, self.own_value, *prefix, out, *memory, split_keys=case.split_keys
        )

    def reference(self) -> Tensor:
        own = wide(self.query), wide(self.own_key), wide(self.own_value)
        prefix = wide(self.prefix_key), wide(self.prefix_value), self.cu_seqlens
        return packed_candidate_attention_reference(*own, *prefix, wide(self.memory_key), wide(self.memory_value))


def shape_of(case: Case) -> tuple[int, ...]:
    return len(case.lengths), case.candidates, case.inquiry_rows, case.heads, case.width


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_candidate_attention_is_its_reference(seed: int, case: Case, dtype: torch.dtype) -> None:
    arguments = Arguments.draw(case, dtype)
    out = GuardedOutput(*shape_of(case), dtype=dtype)
    arguments.run(case, out.rows)
    out.check(arguments.reference(), TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["memory in several blocks", "split with memory and grouped heads"])
def test_a_pair_has_the_same_bits_whatever_is_beside_it(seed: int, name: str) -> None:
    case = CASES[name]
    arguments = Arguments.draw(case, torch.float16)
    whole = arguments.run(case, torch.empty(shape_of(case), dtype=torch.float16), longest=500)
    b, c = 0, case.candidates - 1
    begin, end = arguments.cu_seqlens[b], arguments.cu_seqlens[b + 1]
    alone_case = replace(case, lengths=(case.lengths[b],), candidates=1)
    own = [x[:1, c:] for x in (arguments.query, arguments.own_key, arguments.own_value)]
    prefix = [x[begin:end] for x in (arguments.prefix_key, arguments.prefix_value)]
    memory = [None if x is None else x[c:] for x in (arguments.memory_key, arguments.memory_value)]
    alone = Arguments(*own, *prefix, cumulative([case.lengths[b]]), *memory)
    out = alone.run(alone_case, torch.empty(shape_of(alone_case), dtype=torch.float16))
    assert torch.equal(out[0, 0], whole[b, c])


def test_the_largest_prefix_is_read_to_its_end(seed: int) -> None:
    case = Case((MAX_PREFIX_TOKENS,), 1, heads=1, key_heads=1, width=32)
    arguments = Arguments.draw(case, torch.float32)
    # the last key alone counts: a piece left out, or merged wrongly, would show
    arguments.prefix_key[-1] = 100 * arguments.query[0, 0, 0]
    out = GuardedOutput(*shape_of(case), dtype=torch.float32)
    arguments.run(case, out.rows)
    out.check(arguments.reference(), TOLERANCES[torch.float32])


def test_large_scores_do_not_overflow(seed: int) -> None:
    case = Case((37,), 5, memory_rows=3)
    arguments = Arguments.draw(case, torch.float32)
    arguments.query.mul_(1e4)
    out = GuardedOutput(*shape_of(case), dtype=torch.float32)
    arguments.run(case, out.rows)
    out.check(arguments.reference(), 1e-3)  # scores of 1e5 have few digits left after the point


def test_the_packed_reference_is_the_padded_one(seed: int) -> None:
    case = Case((37, 5), 7, memory_rows=4)
    arguments = Arguments.draw(case, torch.float64)
    padded = torch.randn(2, 2, 37, case.heads, case.width, dtype=torch.float64)  # keys and values, [B, S, H, d]
    for b, (begin, end) in enumerate([(0, 37), (37, 42)]):
        padded[0, b, : end - begin] = arguments.prefix_key[begin:end]
        padded[1, b, : end - begin] = arguments.prefix_value[begin:end]
    mask = torch.arange(37)[None] < torch.tensor([37, 5])[:, None]
    own = [x[:, :, 0] for x in (arguments.query, arguments.own_key, arguments.own_value)]
    expected = candidate_attention_reference(*own, *padded, mask, arguments.memory_key, arguments.memory_value)
    assert (arguments.reference()[:, :, 0] - expected).abs().max() < 1e-12


def test_bad_arguments_are_named() -> None:
    case = Case((5, 3), 4, memory_rows=2)
    good = Arguments.draw(case, torch.float32)
    out = torch.empty(shape_of(case))

    def refused(message: str, longest: int | None = None, out: Tensor = out, **changes: Tensor | None) -> None:
        with pytest.raises(KernelError, match=message):
            replace(good, **changes).run(case, out, longest)

    refused(r"prefix_key is float16; pass float32", prefix_key=good.prefix_key.half())
    refused(r"own_key has the shape \[2, 3, 1, 2, 32\]; pass \[2, 4, 1, any, 32\]", own_key=good.own_key[:, :3])
    refused(r"memory_key has the shape \[3, 2, 2, 32\]; pass \[4, any, 2, 32\]", memory_key=good.memory_key[:3])
    refused(r"come together", memory_value=None)
    refused(r"over the limit of 8192; shorten it", longest=MAX_PREFIX_TOKENS + 1)
    refused(r"out is not contiguous", out=torch.empty(4, 2, 1, 2, 32).transpose(0, 1))
    refused(r"cu_seqlens is int64; pass int32", cu_seqlens=good.cu_seqlens.long())
    refused(r"differ in their distance", own_key=good.own_key.contiguous())
    refused(
        r"3 instructions, cu_seqlens for 2",
        **{name: getattr(good, name)[[0, 0, 1]] for name in ("query", "own_key", "own_value")},
    )
