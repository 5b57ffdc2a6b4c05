"""Times several calls side by side: they take turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

CALLS_PER_TURN = 3
SLOW_CALL_S = 0.2  # its weights do not stay in a cache anyway: no call is spent on warming it


def take_turns(
    calls: Mapping[str, Callable[[], object]], seconds: float, min_rounds: int = 5
) -> dict[str, dict[str, np.ndarray]]:
    """Run all ``calls`` round after round, in alternating order, for about ``seconds``.

    A turn begins with one call that is not timed, since the contender before it took the caches.

    Returns:
        For each name ``wall_ms`` and ``cpu_ms``, float64 ``[rounds, calls of a turn]``. Processor time is that of the
        whole process, threads included: on a machine that others use, it is the one that says what a call costs.
    """
    samples: dict[str, dict[str, list[list[float]]]] = {name: {"wall_ms": [], "cpu_ms": []} for name in calls}
    slow = set()
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        if time.perf_counter() - started > SLOW_CALL_S:
            slow.add(name)
    names = list(calls)
    began = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or time.perf_counter() - began < seconds:
        for name in names if rounds % 2 == 0 else reversed(names):
            call = calls[name]
            if name not in slow:
                call()
            wall, cpu = [], []
            for _ in range(1 if name in slow else CALLS_PER_TURN):
                cpu_started, started = time.process_time_ns(), time.perf_counter_ns()
                call()
                wall.append((time.perf_counter_ns() - started) / 1e6)
                cpu.append((time.process_time_ns() - cpu_started) / 1e6)
            samples[name]["wall_ms"].append(wall)
            samples[name]["cpu_ms"].append(cpu)
        rounds += 1
    return {name: {clock: np.array(values) for clock, values in clocks.items()} for name, clocks in samples.items()}


def summarise(samples: Mapping[str, Mapping[str, np.ndarray]], base: str) -> dict[str, dict[str, Any]]:
    """A row for each contender: percentiles of its calls, and of its ratio to ``base`` in the same round.

    ``wall_ratio`` and ``cpu_ratio`` are how many times longer than ``base``; each round gives one, of the medians of
    the two turns.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, clocks in samples.items():
        row: dict[str, Any] = {"n": int(clocks["wall_ms"].size)}
        for clock, values in clocks.items():
            row[clock] = {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (50, 90, 99)}
        if base in samples:
            for clock in ("wall_ms", "cpu_ms"):
                ratio = np.median(clocks[clock], axis=1) / np.median(samples[base][clock], axis=1)  # [rounds]
                row[clock.replace("_ms", "_ratio")] = {
                    f"p{q}": round(float(np.percentile(ratio, q)), 3) for q in (1, 50, 99)
                }
        rows[name] = row
    return rows
