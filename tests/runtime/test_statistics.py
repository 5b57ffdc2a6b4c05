"""Latency percentiles are right within a bucket, in memory that does not grow."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from modelsat_engine.runtime.statistics import LatencyHistogram, Statistics


def test_quantiles_are_within_a_bucket_of_the_exact_ones() -> None:
    values = np.random.default_rng(3).lognormal(7, 2, 5001)
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(float(value))
    for q in (0.0, 0.5, 0.9, 0.99, 1.0):
        exact = float(np.quantile(values, q, method="inverted_cdf"))
        assert exact <= histogram.quantile(q) * (1 + 1e-9), q
        assert histogram.quantile(q) <= max(exact, 1.0) * 1.11, q


def test_no_event_is_not_an_error() -> None:
    assert LatencyHistogram().to_json() == {
        "n": 0,
        "mean": 0.0,
        "p50": 0,
        "p90": 0,
        "p99": 0,
        "max": 0.0,
        "buckets": [],
    }


@pytest.mark.parametrize("latency_us", [0.0, 1e-9, 1.0, 1e9, 1e15])
def test_latencies_beyond_the_buckets_count_in_the_last_ones(latency_us: float) -> None:
    histogram = LatencyHistogram()
    histogram.record(latency_us)
    assert histogram.to_json()["n"] == 1
    assert histogram.quantile(0.5) <= max(latency_us, 1.0)


def test_a_snapshot_is_json_and_its_memory_is_bounded() -> None:
    statistics = Statistics()
    for index in range(3000):
        statistics.answered(instructions=2, tokens=10, truncated=index % 2, latency_us=float(index))
    statistics.failed()
    snapshot = json.loads(json.dumps(statistics.to_json()))
    assert (snapshot["requests"], snapshot["instructions"], snapshot["tokens"]) == (3001, 6000, 30000)
    assert (snapshot["truncated"], snapshot["errors"], snapshot["latency_us"]["n"]) == (1500, 1, 3000)
    assert sum(count for _, count in snapshot["latency_us"]["buckets"]) == 3000
    assert sys.getsizeof(statistics._latency._counts) < 4096
