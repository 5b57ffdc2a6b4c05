"""Snapshots: what changes in a new one, and that an old one never does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.errors import CandidateError
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates


class CountingEncoder:
    """Encodes a candidate as its number of right answers, and remembers who was encoded."""

    def __init__(self, memory: bool) -> None:
        self.memory = memory
        self.encoded: list[str] = []

    def encode(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        self.encoded += [profile.name for profile in profiles]
        skills = np.array([profile.correct["t"] for profile in profiles], np.float32)
        start = np.broadcast_to(skills[:, None, None], (len(profiles), 2, 3))
        memory = np.broadcast_to(skills[:, None, None, None, None, None], (len(profiles), 2, 1, 2, 5, 3))
        return EncodedCandidates(start, memory if self.memory else None)


def profile(name: str, skill: int, price: float | None = None) -> CapabilityProfile:
    return CapabilityProfile(name, {"t": skill}, {"t": 10}, usd_per_million_tokens=price)


@pytest.fixture(params=[False, True], ids=["K=0", "K=5"])
def encoder(request: pytest.FixtureRequest) -> CountingEncoder:
    return CountingEncoder(request.param)


def skills(table: CandidateTable) -> list[float]:
    if table.memory is not None:
        assert table.memory[:, 1, 0, 1, 4, 2].tolist() == table.inquiry_start[:, 1, 2].tolist()
    return table.inquiry_start[:, 0, 0].tolist()


def test_a_whole_zoo_takes_the_place_of_another_and_keeps_what_it_can(encoder: CountingEncoder) -> None:
    first = CandidateTable.build([profile("a", 1), profile("b", 2, 0.5), profile("c", 3)], encoder)
    encoder.encoded.clear()
    second = first.with_profiles([profile("d", 4), profile("c", 3, 9.0), profile("b", 7), profile("a", 1)], encoder)
    assert encoder.encoded == ["d", "b"], "a price is not a capability"
    assert second.names == ("d", "c", "b", "a")
    assert skills(second) == [4, 3, 7, 1]
    assert second.usd_per_million_tokens[1] == 9.0
    assert skills(first) == [1, 2, 3]
    assert second.version == 1
    assert len(second.with_profiles([], encoder)) == 0
    with pytest.raises(CandidateError, match="two candidates called 'x'"):
        first.with_profiles([profile("x", 1), profile("x", 2)], encoder)


def test_a_new_snapshot_encodes_only_what_is_new(encoder: CountingEncoder) -> None:
    first = CandidateTable.build([profile("a", 1), profile("b", 2, 0.5)], encoder)
    added = first.with_added([profile("c", 3)], encoder)
    replaced = added.with_replaced(profile("b", 9), encoder)
    removed = replaced.without(["a"])
    assert encoder.encoded == ["a", "b", "c", "b"]
    assert [table.names for table in (first, added, replaced, removed)] == [
        ("a", "b"),
        ("a", "b", "c"),
        ("a", "b", "c"),
        ("b", "c"),
    ]
    assert [skills(table) for table in (first, added, replaced, removed)] == [[1, 2], [1, 2, 3], [1, 9, 3], [9, 3]]
    assert [table.version for table in (first, added, replaced, removed)] == [0, 1, 2, 3]
    assert replaced.column_of("b") == 1
    assert removed.column_of("b") == 0


def test_prices_follow_the_columns(encoder: CountingEncoder) -> None:
    table = CandidateTable.build([profile("a", 1, 2.0), profile("b", 2)], encoder)
    prices = table.with_added([profile("c", 1, 0.0)], encoder).without(["a"]).usd_per_million_tokens
    assert prices.dtype == np.float32
    np.testing.assert_array_equal(prices, np.array([np.nan, 0.0], np.float32))


def test_a_snapshot_cannot_be_written_to(encoder: CountingEncoder) -> None:
    table = CandidateTable.build([profile("a", 1, 2.0)], encoder)
    for array in (table.inquiry_start, table.memory, table.usd_per_million_tokens):
        if array is not None:
            assert array.flags.c_contiguous
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_a_zoo_may_be_empty_and_grow_again(encoder: CountingEncoder) -> None:
    empty = CandidateTable.build([], encoder)
    assert (len(empty), empty.inquiry_start.shape) == (0, (0, 2, 3))
    grown = empty.with_added([profile("a", 4)], encoder)
    assert skills(grown) == [4]
    assert len(grown.without(["a"])) == 0


def test_names_are_unique_and_known(encoder: CountingEncoder) -> None:
    table = CandidateTable.build([profile("a", 1), profile("b", 1)], encoder)
    with pytest.raises(CandidateError, match="two candidates called 'a'"):
        CandidateTable.build([profile("a", 1), profile("a", 2)], encoder)
    with pytest.raises(CandidateError, match="has a candidate called 'b'; replace it"):
        table.with_added([profile("c", 1), profile("b", 1)], encoder)
    with pytest.raises(CandidateError, match="two candidates called 'c'"):
        table.with_added([profile("c", 1), profile("c", 1)], encoder)
    with pytest.raises(CandidateError, match="no candidate is called 'x'; the zoo has a, b"):
        table.without(["a", "x"])
    with pytest.raises(CandidateError, match="'x'"):
        table.with_replaced(profile("x", 1), encoder)


def test_a_snapshot_that_nobody_holds_is_freed(encoder: CountingEncoder) -> None:
    table = CandidateTable.build([profile("a", 1)], encoder)
    alive = weakref.ref(table)
    newer = table.with_added([profile("b", 1)], encoder)
    del table
    gc.collect()
    assert alive() is None
    assert len(newer) == 2
