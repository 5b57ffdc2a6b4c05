"""How long do requests wait at a fixed arrival rate, from a fifth of what the engine can do to twice as much?

    python benchmarks/load.py --seconds 20 --json

Open loop: request i is due at i / rate, whether or not earlier ones were answered, and its latency counts from the
moment it was due. A server that stalls is charged for every request that came meanwhile (no coordinated omission).
Capacity is measured first, with 64 requests outstanding. Every request has a deadline; what the engine cannot answer
by then it should refuse at once, and what it accepts it should answer in time: ``late`` counts where it did not.
Everything is measured twice, alone and beside a Python thread that never stops computing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine import Engine, errors

TEXT = "prove that the square root of two is not a ratio of whole numbers , why does ice float on water ?"
SHARES = (0.2, 0.5, 0.8, 1.0, 1.5, 2.0)
OUTSTANDING = 64


def quantiles_us(values: list[float]) -> dict[str, Any]:
    """n, p50, p90, p99, p99.9 in us."""
    if not values:
        return {"n": 0}
    return {"n": len(values), **{f"p{q:g}": round(float(np.percentile(values, q)), 1) for q in (50, 90, 99, 99.9)}}


async def capacity(engine: Engine, texts: list[str], seconds: float) -> float:
    """Requests per second with 64 always outstanding."""
    end = time.perf_counter() + seconds
    done = 0

    async def work(offset: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await engine.aroute(texts[(offset + done) % len(texts)])
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(work(offset) for offset in range(OUTSTANDING)))
    return done / (time.perf_counter() - started)


async def at_rate(engine: Engine, texts: list[str], rate: float, seconds: float, deadline_ms: float) -> dict[str, Any]:
    """One point: a constant rate for some seconds, then every answer is awaited."""
    answered: list[float] = []
    refused: list[float] = []
    behind: list[float] = []
    before = engine.stats()

    async def ask(due: float, text: str) -> None:
        began = time.perf_counter()
        behind.append((began - due) * 1e6)
        try:
            await engine.aroute(text, deadline_ms=deadline_ms)
        except errors.Overloaded:
            refused.append((time.perf_counter() - began) * 1e6)
        except errors.DeadlineExceeded:
            pass  # the engine counts those it had accepted
        else:
            answered.append((time.perf_counter() - due) * 1e6)

    started = time.perf_counter()
    tasks = []
    for index in range(max(1, int(rate * seconds))):
        due = started + index / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(due, texts[index % len(texts)])))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - started
    after = engine.stats()

    def grown(name: str, field: str | None = None) -> int:
        old, new = before[name], after[name]
        return int(new - old if field is None else new[field] - old[field])

    batches = max(1, grown("batches"))
    return {
        "rate": round(rate, 1),
        "sent": len(tasks),
        "accepted": grown("accepted"),
        "answered_per_second": round(len(answered) / took, 1),
        "latency_us": quantiles_us(answered),
        "late": grown("late"),
        "refused": {name: grown("rejected", name) for name in ("overloaded", "deadline_exceeded")},
        "refusal_us": quantiles_us(refused),
        "requests_per_batch": round(grown("batch_requests", "sum") / batches, 2),
        "batch_fill_percent": round(grown("batch_fill_percent", "sum") / batches, 1),
        "sender_behind_us": quantiles_us(behind),
    }


async def all_points(engine: Engine, texts: list[str], able: float, seconds: float, deadline_ms: float) -> list[Any]:
    """Every share of the capacity in turn."""
    return [{"load": share, **await at_rate(engine, texts, share * able, seconds, deadline_ms)} for share in SHARES]


@contextmanager
def busy_thread() -> Iterator[None]:
    """A Python thread that asks for the GIL all the time."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", help="bundle directory (default: the shipped router)")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--seconds", type=float, default=20.0, help="of every point")
    parser.add_argument("--deadline-ms", type=float, default=500.0)
    parser.add_argument("--words", type=int, default=50, help="words of an instruction, on average")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds <= 0 or options.deadline_ms <= 0 or options.words < 1:
        parser.error("--seconds, --deadline-ms and --words must be positive")
    rng = random.Random(options.seed)
    texts = [" ".join(rng.choices(TEXT.split(), k=rng.randint(1, 2 * options.words - 1))) for _ in range(997)]
    with Engine.load(options.bundle, executor=options.executor) as engine:
        engine.warmup()
        able = asyncio.run(capacity(engine, texts, options.seconds))
        points = all_points(engine, texts, able, options.seconds, options.deadline_ms)
        runs = {"alone": asyncio.run(points)}
        with busy_thread():
            points = all_points(engine, texts, able, options.seconds, options.deadline_ms)
            runs["beside a busy Python thread"] = asyncio.run(points)
        result = {
            "command": " ".join(["python", *sys.argv]),
            "machine": machine("onnxruntime"),
            "bundle": engine.bundle.label,
            "executor": engine.executor,
            "threads": engine.threads,
            "candidates": len(engine.candidates),
            "capacity_per_second": round(able, 1),
            "deadline_ms": options.deadline_ms,
            "seed": options.seed,
            "runs": runs,
        }
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['command']}\n{result['bundle']} on {result['executor']}, {result['machine']}")
        print(f"capacity {able:,.0f}/s, deadline {options.deadline_ms:g} ms")
        for name, rows in runs.items():
            print(name)
            for row in rows:
                print("  " + "  ".join(f"{key}={value}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
