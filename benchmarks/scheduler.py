"""What does the batch scheduler cost per request, and how much delay does it add to a lone one?

    python benchmarks/scheduler.py --json

Every executor here does nothing, so what is left is the scheduler and its binding:

- ``cost``: four Python threads send single requests as fast as they can. Wall time and processor time of the whole
  process, per request, Python's own work included; then the same calls refused at the door, and lists of a thousand.
- ``memory``: the process's resident memory after a tenth of a million single requests, and after all of them.
- ``delay``: one request at a time through ``score``, against calling the same executor directly.

The scheduler by itself, without Python, at a fixed rate of 100,000 requests a second: ``make bench`` or
``csrc/build/default/modelsat_benchmarks``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine import errors
from modelsat_engine._core import BatchScheduler, CandidateTable, NoOpExecutor

TOKENS = 64
CANDIDATES = 10
PRODUCERS = 4
LIST = 1000
QUEUE = 1 << 16


def percentiles(values_us: list[float]) -> dict[str, Any]:
    """A row's figures, in microseconds."""
    return {"n": len(values_us), **{f"p{q}_us": round(float(np.percentile(values_us, q)), 2) for q in (50, 90, 99)}}


def per_request(total: int, produce: Callable[[int], None], finish: Callable[[], object]) -> dict[str, float]:
    """Wall and processor time of ``produce(total / 4)`` in four threads until ``finish`` returns, per request."""
    threads = [threading.Thread(target=produce, args=(total // PRODUCERS,)) for _ in range(PRODUCERS)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_us_per_request": round(wall / total * 1e6, 3), "cpu_us_per_request": round(cpu / total * 1e6, 3)}


def cost(total: int) -> list[dict[str, Any]]:
    """Rows of the cost per request from four producers."""
    one = np.ones(TOKENS, dtype=np.int32)
    table = CandidateTable(None, CANDIDATES)

    def singles(scheduler: BatchScheduler) -> Callable[[int], None]:
        def produce(count: int) -> None:
            for _ in range(count):
                while True:
                    try:
                        scheduler.submit(one, None, table, deadline_us=10_000_000)
                        break
                    except errors.Overloaded:
                        time.sleep(0.001)

        return produce

    def refused(scheduler: BatchScheduler) -> Callable[[int], None]:
        """The same calls up to the scheduler's door: a drained one admits nothing."""

        def produce(count: int) -> None:
            for _ in range(count):
                with contextlib.suppress(errors.ShuttingDown):
                    scheduler.submit(one, None, table, deadline_us=10_000_000)

        return produce

    def lists(scheduler: BatchScheduler) -> Callable[[int], None]:
        token_ids = np.ones(TOKENS * LIST, dtype=np.int32)
        cu_seqlens = np.arange(0, TOKENS * LIST + 1, TOKENS, dtype=np.int32)

        def produce(count: int) -> None:
            for _ in range(count // LIST):
                scheduler.score(token_ids, cu_seqlens, table)

        return produce

    rows = []
    for name, make in (("single requests", singles), ("refused requests", refused), ("lists of 1000", lists)):
        with BatchScheduler(NoOpExecutor(), max_queue_requests=QUEUE, max_queue_tokens=QUEUE * TOKENS) as scheduler:
            if make is refused:
                scheduler.drain()
            row = {"what": "cost", "how": name, "n": total, **per_request(total, make(scheduler), scheduler.drain)}
            batches = max(1, scheduler.stats()["batches"])
            row["requests_per_batch"] = round(scheduler.stats()["batch_requests"]["sum"] / batches, 1)
            rows.append(row)
    return rows


def memory(total: int) -> list[dict[str, Any]]:
    """One row: resident memory after a tenth of ``total`` requests, each submitted alone, and after all of them."""
    one = np.ones(TOKENS, dtype=np.int32)
    table = CandidateTable(None, CANDIDATES)
    resident = []
    with BatchScheduler(NoOpExecutor(), max_queue_requests=QUEUE, max_queue_tokens=QUEUE * TOKENS) as scheduler:
        for _ in range(10):
            for _ in range(total // 10 // LIST):
                for _ in range(LIST - 1):
                    scheduler.submit(one, None, table, deadline_us=10_000_000)
                scheduler.score(one, None, table)  # waits for those before it
            resident.append(resident_mb())
    row = {"what": "memory", "how": "single requests", "n": total}
    return [{**row, "resident_mb_after_a_tenth": resident[0], "resident_mb_after_all": resident[-1]}]


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def delay(count: int) -> list[dict[str, Any]]:
    """Rows of one request at a time: the executor called directly, through the scheduler, and the native one."""
    one = np.ones(TOKENS, dtype=np.int32)
    offsets = np.array([0, TOKENS], dtype=np.int32)
    table = CandidateTable(None, CANDIDATES)
    answer = np.zeros((1, CANDIDATES), dtype=np.float32)

    def no_op(token_ids: np.ndarray, cu_seqlens: np.ndarray, payload: object) -> np.ndarray:
        return answer

    def timed(call: Callable[[], object]) -> list[float]:
        for _ in range(count // 10):
            call()
        values = []
        for _ in range(count):
            start = time.perf_counter_ns()
            call()
            values.append((time.perf_counter_ns() - start) / 1e3)
        return values

    rows = [
        {
            "what": "delay",
            "how": "python executor, direct call",
            **percentiles(timed(lambda: no_op(one, offsets, None))),
        }
    ]
    for name, executor in (("python executor", no_op), ("native executor", NoOpExecutor())):
        with BatchScheduler(executor) as scheduler:
            row = percentiles(timed(lambda scheduler=scheduler: scheduler.score(one, None, table)))  # type: ignore[misc]
        for q in (50, 99):
            row[f"added_p{q}_us"] = round(row[f"p{q}_us"] - (rows[0][f"p{q}_us"] if executor is no_op else 0.0), 2)
        rows.append({"what": "delay", "how": f"{name}, scheduled", **row})
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000, help="of every cost row")
    parser.add_argument("--calls", type=int, default=10_000, help="of every delay row")
    parser.add_argument("--memory-requests", type=int, default=1_000_000, help="of the memory row")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.requests < PRODUCERS * LIST or options.memory_requests < 10 * LIST or options.calls < 10:
        parser.error(f"at least: --requests {PRODUCERS * LIST}, --memory-requests {10 * LIST}, --calls 10")
    rows = [*cost(options.requests), *delay(options.calls), *memory(options.memory_requests)]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "tokens": TOKENS,
        "candidates": CANDIDATES,
        "producers": PRODUCERS,
        "rows": rows,
    }
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['command']}\n{result['machine']}")
        for row in rows:
            print("  ".join(f"{key}={value}" for key, value in row.items() if key != "what"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
