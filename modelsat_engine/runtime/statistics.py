"""Counts and latency percentiles of an engine, in bounded memory."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_BUCKETS_PER_DECADE = 24  # a percentile is right within one bucket, 10 %
_SMALLEST_US = 1.0
_DECADES = 9  # 1 us to 1000 s


class LatencyHistogram:
    """Latencies in buckets of equal ratio. Not thread-safe; its owner locks.

    ``quantile`` answers with a bucket's upper edge, so that it never reports less than was measured.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS_PER_DECADE * _DECADES + 1, np.int64)
        self._sum_us = 0.0
        self._max_us = 0.0

    def record(self, latency_us: float, count: int = 1) -> None:
        """Count ``count`` events of one latency."""
        decades = math.log10(max(latency_us, _SMALLEST_US) / _SMALLEST_US)
        bucket = min(math.ceil(decades * _BUCKETS_PER_DECADE), len(self._counts) - 1)
        self._counts[bucket] += count
        self._sum_us += latency_us * count
        self._max_us = max(self._max_us, latency_us)

    def quantile(self, q: float) -> float:
        """Latency in us that a share ``q`` of the events stays within; 0 before the first event."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(q * total))))
        return float(min(_SMALLEST_US * 10 ** (bucket / _BUCKETS_PER_DECADE), self._max_us))

    def to_json(self) -> dict[str, Any]:
        """Count, mean, p50, p90, p99, max in us, and the buckets that are not empty as [upper edge us, count]."""
        total = int(self._counts.sum())
        edges = [
            [round(_SMALLEST_US * 10 ** (bucket / _BUCKETS_PER_DECADE), 1), int(self._counts[bucket])]
            for bucket in np.flatnonzero(self._counts).tolist()
        ]
        return {
            "n": total,
            "mean": round(self._sum_us / total, 1) if total else 0.0,
            **{f"p{round(q * 100)}": round(self.quantile(q), 1) for q in (0.5, 0.9, 0.99)},
            "max": round(self._max_us, 1),
            "buckets": edges,
        }


class Statistics:
    """What an engine did since it was made. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._instructions = 0
        self._tokens = 0
        self._truncated = 0
        self._errors = 0
        self._latency = LatencyHistogram()

    def answered(self, *, instructions: int, tokens: int, truncated: int, latency_us: float) -> None:
        """One call was answered; its latency counts once."""
        with self._lock:
            self._requests += 1
            self._instructions += instructions
            self._tokens += tokens
            self._truncated += truncated
            self._latency.record(latency_us)

    def failed(self) -> None:
        """One call ended in an error."""
        with self._lock:
            self._requests += 1
            self._errors += 1

    def to_json(self) -> dict[str, Any]:
        """A snapshot, consistent in itself."""
        with self._lock:
            return {
                "requests": self._requests,
                "instructions": self._instructions,
                "tokens": self._tokens,
                "truncated": self._truncated,
                "errors": self._errors,
                "latency_us": self._latency.to_json(),
            }
