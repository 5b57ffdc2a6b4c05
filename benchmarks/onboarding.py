"""How long do requests wait while a thousand candidates join, and what does joining cost?

    python benchmarks/onboarding.py --json

Open loop: request i is due at i / rate, and its latency counts from then. The rate is a third of what the engine
answers with one request at a time. The candidates join through a watched zoo file, with no cache on disk; only requests
that were still answered from the old zoo count as beside the join, since a wider one costs more for ever. Then the same
number is added from Python in one call and one by one, and last comes what a range beside each probability costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine import CapabilityProfile, Engine
from modelsat_engine.aptitude import edit_zoo, save_zoo
from modelsat_engine.export.bundle import Bundle

TEXT = "Which amino acid substitution causes sickle cell disease, and why does it make haemoglobin polymerise?"


def newcomers(bundle: Bundle, count: int, seed: int) -> list[CapabilityProfile]:
    """Random profiles that no seed before has given."""
    rng = np.random.default_rng(seed)
    test = bundle.aptitude_test
    totals = dict.fromkeys(test.task_names, 20)
    return [
        CapabilityProfile(
            f"new-{seed}-{index}", {task: int(rng.integers(0, 21)) for task in totals}, totals, test_id=test.id
        )
        for index in range(count)
    ]


async def ask(engine: Engine, rate: float, go_on: Any) -> list[tuple[int, float]]:
    """Requests at a constant rate while ``go_on(candidates of the last answer)``; (candidates, ms) of each."""
    seen: list[tuple[int, float]] = []

    async def one(due: float) -> None:
        decision = await engine.aroute(TEXT)
        seen.append((len(decision.probabilities), (time.perf_counter() - due) * 1e3))

    started = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    while go_on(seen):
        due = started + len(tasks) / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return seen


def quantiles_ms(values: list[float]) -> dict[str, float]:
    """n, p50, p90, p99 in ms."""
    return {"n": len(values), **{f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 90, 99)}}


def beside_joins(bundle: Bundle, folder: Path, joining: int, joins: int, rate: float) -> dict[str, Any]:
    """Latencies with nothing else to do, and beside joins of so many candidates."""
    alone: list[float] = []
    beside: list[float] = []
    seconds: list[float] = []
    for seed in range(joins):
        path = folder / f"zoo-{seed}.json"
        save_zoo(path, bundle.zoo)
        with Engine.load(bundle, zoo=path, watch=True) as engine:
            engine.warmup()
            if not rate:
                started = time.perf_counter()
                for _ in range(100):
                    engine.route(TEXT)
                rate = 100 / (time.perf_counter() - started) / 3
            end = time.perf_counter() + 4
            alone += [took for _, took in asyncio.run(ask(engine, rate, lambda _, end=end: time.perf_counter() < end))]
            new = newcomers(bundle, joining, seed)
            started = time.perf_counter()
            with edit_zoo(path) as zoo:
                zoo.update({profile.name: profile for profile in new})
            full = len(bundle.zoo) + joining
            answers = asyncio.run(ask(engine, rate, lambda seen, full=full: not seen or seen[-1][0] < full))
            seconds.append(time.perf_counter() - started)
            assert {width for width, _ in answers} <= {len(bundle.zoo), full}, "half a zoo"
            beside += [took for width, took in answers if width == len(bundle.zoo)]
    return {
        "candidates_joining": joining,
        "joins": joins,
        "requests_per_second": round(rate, 1),
        "latency_ms_alone": quantiles_ms(alone),
        "latency_ms_beside_a_join": quantiles_ms(beside),
        "seconds_until_an_answer_has_all": [round(value, 2) for value in seconds],
    }


def cost_of_adding(bundle: Bundle, joining: int) -> dict[str, Any]:
    """Seconds from Python: at once, the same again from the disk's cache, and one by one."""

    def seconds(zoo: list[CapabilityProfile], one_by_one: bool) -> float:
        with Engine.load(bundle) as engine:
            started = time.perf_counter()
            if one_by_one:
                for profile in zoo:
                    engine.candidates.add(profile)
            else:
                engine.candidates.add(*zoo)
            return round(time.perf_counter() - started, 2)

    new = newcomers(bundle, joining, 1000)
    result = {"at_once_s": seconds(new, False), "one_by_one_s": seconds(new, True)}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MODELSAT_CACHE"] = cache
        seconds(new, False)
        result["at_once_from_disk_s"] = seconds([replace(profile, name="x" + profile.name) for profile in new], False)
        os.environ["MODELSAT_CACHE"] = "off"
    return result


def cost_of_ranges(bundle: Bundle) -> dict[str, Any]:
    """Milliseconds of one call for the bundle's zoo, in turns without and with ranges."""
    took: dict[str, list[float]] = {"without": [], "with": []}
    with Engine.load(bundle) as engine:
        engine.warmup()
        engine.route(TEXT, interval=0.9)
        for _ in range(200):
            for name, interval in (("without", None), ("with", 0.9)):
                started = time.perf_counter()
                engine.route(TEXT, interval=interval)
                took[name].append((time.perf_counter() - started) * 1e3)
    return {f"latency_ms_{name}_ranges": quantiles_ms(values) for name, values in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joining", type=int, default=1000, help="candidates that join (default 1000)")
    parser.add_argument("--joins", type=int, default=5, help="how often (default 5)")
    parser.add_argument("--rate", type=float, help="requests a second (default: a third of what is possible)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    os.environ["MODELSAT_CACHE"] = "off"
    bundle = Bundle.load()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "bundle": bundle.label,
            "machine": machine(),
            **beside_joins(bundle, Path(folder), options.joining, options.joins, options.rate or 0.0),
            **cost_of_adding(bundle, options.joining),
            **cost_of_ranges(bundle),
        }
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            print(f"{name:38s} {value}")


if __name__ == "__main__":
    main()
