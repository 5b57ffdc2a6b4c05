"""What each policy chooses, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from modelsat_engine.errors import CandidateError, PolicyError
from modelsat_engine.runtime.policies import CheapestAbove, HighestProbability, MaximumUtility, Policy

NAN = float("nan")


def zoo(*prices: float) -> SimpleNamespace:
    names = tuple(f"model-{i}" for i in range(len(prices)))
    return SimpleNamespace(names=names, usd_per_million_tokens=np.array(prices, np.float32))


def choose(policy: Policy, table: SimpleNamespace, *rows: list[float]) -> list[int]:
    return policy.choose(np.array(rows, np.float32), table).tolist()


def test_highest_probability_takes_the_largest_and_the_earlier_among_equals() -> None:
    table = zoo(NAN, 1, 2)
    assert choose(HighestProbability(), table, [0.1, 0.9, 0.5], [0.7, 0.7, 0.2]) == [1, 0]


def test_cheapest_above_takes_the_cheapest_that_is_likely_enough() -> None:
    table = zoo(3, 0.5, 1, 0)
    assert choose(CheapestAbove(0.6), table, [0.9, 0.6, 0.7, 0.5], [0.9, 0.59, 0.7, 0.1]) == [1, 2]


def test_cheapest_above_falls_back_to_the_most_probable() -> None:
    assert choose(CheapestAbove(0.9), zoo(3, 1, 2), [0.3, 0.2, 0.8]) == [2]


def test_cheapest_above_takes_the_more_probable_of_equal_prices() -> None:
    assert choose(CheapestAbove(0.5), zoo(1, 1, 1), [0.6, 0.8, 0.8]) == [1]


def test_cheapest_above_zero_is_the_cheapest_and_above_one_the_certain() -> None:
    table = zoo(3, 1, 2)
    assert choose(CheapestAbove(0), table, [0.9, 0.0, 0.5]) == [1]
    assert choose(CheapestAbove(1.0), table, [1.0, 0.99, 1.0]) == [2]


def test_maximum_utility_weighs_the_answer_against_its_price() -> None:
    table = zoo(10, 1)  # 0.01 and 0.001 USD a request of 1,000 tokens
    rows = [0.9, 0.6]
    assert choose(MaximumUtility(1.0), table, rows) == [0]
    assert choose(MaximumUtility(0.02), table, rows) == [1]  # 0.3 more correct is worth 0.006, and costs 0.009
    assert choose(MaximumUtility(0.02, tokens_per_request=100), table, rows) == [0]
    assert choose(MaximumUtility(0), table, rows) == [1]


@pytest.mark.parametrize("policy", [HighestProbability(), CheapestAbove(0.4), MaximumUtility(0.01)])
def test_many_instructions_are_decided_as_each_alone(policy: Policy) -> None:
    rng = np.random.default_rng(5)
    table = zoo(*rng.choice([0.1, 0.5, 2.0], 7))
    rows = rng.random((101, 7), np.float32)
    together = policy.choose(rows, table)
    assert together.shape == (101,)
    assert together.tolist() == [int(policy.choose(row, table)) for row in rows]


@pytest.mark.parametrize("policy", [CheapestAbove(0.1), MaximumUtility(1)])
def test_an_unknown_price_is_refused_by_name(policy: Policy) -> None:
    with pytest.raises(PolicyError, match=r"price of 'model-1' and 1 more.*usd_per_million_tokens"):
        policy.choose(np.full((1, 3), 0.5, np.float32), zoo(1, NAN, NAN))


@pytest.mark.parametrize("policy", [HighestProbability(), CheapestAbove(0.1), MaximumUtility(1)])
def test_an_empty_zoo_is_refused(policy: Policy) -> None:
    with pytest.raises(CandidateError, match="zoo is empty"):
        policy.choose(np.empty((1, 0), np.float32), zoo())


@pytest.mark.parametrize("threshold", [-0.1, 1.1, NAN, float("inf"), "0.5", None, True])
def test_a_threshold_that_is_no_probability_is_refused(threshold: object) -> None:
    with pytest.raises(PolicyError, match="threshold"):
        CheapestAbove(threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(-1,), (NAN,), ("1",), (1, 0), (1, -5), (1, float("inf"))])
def test_a_utility_out_of_range_is_refused(arguments: tuple) -> None:
    with pytest.raises(PolicyError, match=r"usd_value_of_correct|tokens_per_request"):
        MaximumUtility(*arguments)


def test_a_policy_prints_as_it_is_written() -> None:
    assert repr(CheapestAbove(0.6)) == "CheapestAbove(threshold=0.6)"
    assert isinstance(CheapestAbove(0.6), Policy)
