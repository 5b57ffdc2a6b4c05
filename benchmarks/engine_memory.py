"""Does the engine's memory stay flat over many requests of random length, while the zoo changes now and then?

    python benchmarks/engine_memory.py --json

Sends instructions of random length, alone and in lists, and swaps a candidate every hundred requests. Resident memory
is read after garbage collection at twenty points; the growth that counts is from the tenth part of the requests on,
when every length has been seen, to the end. Exits 1 when it exceeds ``--allow-mb``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine import Engine

TEXT = "prove that the square root of two is not a ratio of whole numbers , why does ice float on water ?"
POINTS = 20


def resident_mb() -> float:
    """Resident memory of this process in MB (2**20 bytes)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(engine: Engine, requests: int, longest_words: int, seed: int) -> dict[str, Any]:
    """Send ``requests`` calls of random shape; memory over time and latency of the single ones."""
    rng = random.Random(seed)
    words = TEXT.split()
    guest = replace(engine.candidates.profiles[0], name="guest of the benchmark")

    def text() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, longest_words)))

    engine.warmup()
    memory: list[tuple[int, float]] = []
    single_us: list[float] = []
    for done in range(1, requests + 1):
        if rng.random() < 0.95:
            started = time.perf_counter()
            engine.route(text())
            single_us.append((time.perf_counter() - started) * 1e6)
        else:
            engine.score([text() for _ in range(rng.randint(2, 16))])
        if done % 100 == 50:
            engine.candidates.add(guest)
        elif done % 100 == 0:
            engine.candidates.remove(guest.name)
        if done % max(1, requests // POINTS) == 0:
            memory.append((done, round(resident_mb(), 1)))
    settled = next(mb for done, mb in memory if done >= requests / 10)
    return {
        "resident_mb": memory,
        "growth_mb": round(memory[-1][1] - settled, 1),
        "largest_growth_mb": round(max(mb for done, mb in memory if done >= requests / 10) - settled, 1),
        "route_us": {
            "n": len(single_us),
            **{f"p{q}": round(float(np.percentile(single_us, q)), 1) for q in (50, 90, 99)},
        },
        "instructions": engine.stats()["instructions"],
    }


def main() -> int:
    """Measure, print, and say by the exit code whether memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", help="bundle directory (default: the shipped router)")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--longest-words", type=int, default=200, help="words of the longest instruction")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--allow-mb", type=float, default=32.0, help="growth that still counts as flat")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with Engine.load(options.bundle, threads=options.threads) as engine:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "machine": machine("onnxruntime"),
            "bundle": engine.bundle.label,
            "executor": engine.executor,
            "candidates": len(engine.candidates),
            "requests": options.requests,
            "seed": options.seed,
            **measure(engine, options.requests, options.longest_words, options.seed),
        }
    result["flat"] = result["largest_growth_mb"] <= options.allow_mb
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['command']}\n{result['bundle']} on {result['executor']}, {result['machine']}")
        print("\n".join(f"{done:>9,} requests {mb:>9,.1f} MB" for done, mb in result["resident_mb"]))
        print(f"growth {result['growth_mb']} MB, at most {result['largest_growth_mb']} MB: flat = {result['flat']}")
        print(f"route, us: {result['route_us']}")
    return 0 if result["flat"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
