"""How fast is a decision on an NVIDIA GPU, beside PyTorch and beside what the GPU can do at most?

    python benchmarks/gpu.py
    python benchmarks/gpu.py --json build/gpu.json --no-compile     # without torch.compile and FlexAttention

Device time is from a pass's first kernel to its last one, with a cold second-level cache. Time to an answer is what a
caller of the executor waits for numbers on the host, or of the network in PyTorch, whose inputs lie on the device
already; time to a decision is what a caller of the engine waits. Ceilings are measured in the same run. Every bar that
is missed is said to be missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine.runtime.executors.cuda import DTYPE_VARIABLE
from modelsat_engine.runtime.executors.cuda_device import unavailable_reason

#: Instructions, tokens of each, candidates.
BASE = (1, 64, 16)
SIZES = (BASE, (1, 128, 16), (1, 64, 128), (8, 64, 16), (64, 128, 16))
LARGEST = (64, 128, 16)
TEXT = "Prove that the sum of two odd numbers is even, and say where the proof uses that they are odd."


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Without a GPU it says so and measures nothing."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile and FlexAttention")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="what to compute in")
    options = parser.parse_args()
    reason = unavailable_reason()
    if reason is not None:
        print(f"nothing measured: {reason}", file=sys.stderr)
        return 0
    os.environ[DTYPE_VARIABLE] = options.dtype  # of the executor, as of everybody

    def keep(result: dict[str, Any]) -> None:
        if options.json is not None:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    print_result(measure(options.dtype, not options.no_compile, keep))
    return 0


def measure(dtype_name: str, compiled: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Everything, JSON-able; `keep` is given all there is after each part, should a later one fail."""
    import torch
    from accelerator.ceilings import measure_ceilings
    from accelerator.kernels import measure_attention, measure_bandwidth
    from accelerator.timing import DeviceTimer
    from latency.material import Material

    from modelsat_engine.export.bundle import Bundle

    torch.manual_seed(0)
    device, dtype = torch.device("cuda", 0), getattr(torch, dtype_name)
    bundle, timer = Bundle.load(), DeviceTimer(device)
    material = Material(bundle, None, 128)
    ceilings = measure_ceilings(device, timer)
    passes: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "machine": {**device_facts(device), **machine("torch", "triton")},
        "dtype": dtype_name,
        "ceilings": ceilings,
        "passes": passes,
    }
    for size in SIZES:
        passes.append(measure_pass(bundle, material, timer, device, dtype, size, ceilings, compiled))
        keep(result)
    parts: dict[str, Callable[[], Any]] = {
        "decisions": measure_decisions,
        "attention": lambda: measure_attention(device, timer, dtype, flex=compiled),
        "bandwidth": lambda: measure_bandwidth(device, timer, dtype, ceilings["copy_bytes_per_s"]),
        "bars": lambda: bars(result),
    }
    for name, part in parts.items():
        result[name] = part()
        keep(result)
    return result


def measure_pass(
    bundle: Any,
    material: Any,
    timer: Any,
    device: Any,
    dtype: Any,
    size: tuple[int, int, int],
    ceilings: dict[str, float],
    compiled: bool,
) -> dict[str, Any]:
    """Device time of every contender at one size, and how far each is from the first."""
    from accelerator.ceilings import pass_flops
    from accelerator.contenders import OURS, on_the_host, our_answer, our_pass, torch_calls
    from accelerator.timing import wall_us

    from modelsat_engine.model.config import NetworkConfig
    from modelsat_engine.runtime.candidate_table import CandidateTable

    requests, tokens, candidates = size
    instructions, encoded = material.instructions(tokens, requests), material.candidates(candidates)
    table = CandidateTable(profiles_for(bundle, candidates), encoded)
    replay, scores = our_pass(bundle, device, dtype, instructions, table)
    ours = timer.device_us(replay)
    flops = pass_flops(NetworkConfig.from_json(dict(bundle.config)), requests, tokens, candidates)
    rate = flops / (ours["p50_us"] * 1e-6)
    name = str(dtype).removeprefix("torch.")
    rows: dict[str, Any] = {OURS: ours}
    if size == BASE:
        answer, executor = our_answer(bundle, instructions, table)
        ours["answer_us"] = wall_us(answer)
        ours["answer_by"] = executor.name
        executor.close()
    use_compiler = compiled and size in (BASE, LARGEST)
    for contender, call in torch_calls(bundle, device, dtype, instructions, encoded, use_compiler):
        row = measure_contender(timer, call, scores() if contender.startswith("torch") else None)
        if size == BASE and "error" not in row:
            row["answer_us"] = wall_us(on_the_host(call), repeats=50)
        rows[contender] = row
    return {
        "requests": requests,
        "tokens": tokens,
        "candidates": candidates,
        "flop": flops,
        "share_of_matrix_rate": round(rate / ceilings[f"{name}_flop_per_s"], 4),
        "contenders": rows,
    }


def measure_contender(timer: Any, call: Any, expected: Any) -> dict[str, Any]:
    """Device time, and the distance from `expected`; what fails says why and takes no other's numbers away."""
    try:
        row: dict[str, Any] = timer.device_us(call, repeats=20)
        if expected is not None:
            row["max_abs_dp"] = float(np.abs(call().float().cpu().numpy() - expected).max())
    except Exception as error:  # a compiler's errors have no class in common
        return {"error": str(error).splitlines()[0][:200]}
    return row


def profiles_for(bundle: Any, candidates: int) -> list[Any]:
    """As many profiles with names of their own."""
    from dataclasses import replace

    zoo = bundle.zoo
    return [replace(zoo[index % len(zoo)], name=f"candidate-{index}") for index in range(candidates)]


def measure_decisions() -> dict[str, Any]:
    """Time from the Python call to the answer: the whole engine, one request at a time, shipped zoo."""
    from accelerator.timing import wall_us

    from modelsat_engine import Engine

    found: dict[str, Any] = {}
    for name in ("cuda", "native"):
        with Engine.load(executor=name) as engine:
            engine.warmup()
            found[name] = {"route": wall_us(lambda engine=engine: engine.route(TEXT)), "executor": engine.executor}  # type: ignore[misc]
            found[name]["candidates"] = len(engine.candidates.names)
    return found


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each promise, what was measured, and whether it was kept."""
    base, largest = (
        next(p for p in result["passes"] if (p["requests"], p["tokens"], p["candidates"]) == size)
        for size in (BASE, LARGEST)
    )
    attention = min(row["speedup_over_sdpa"] for row in result["attention"])
    flex = [row["speedup_over_flex"] for row in result["attention"] if row.get("flex_us")]
    found = [
        ("device time, B=1 S=64 M=16, us", base["contenders"]["modelsat"]["p50_us"], "<=", 150.0),
        ("Python call to decision, us", result["decisions"]["cuda"]["route"]["p50_us"], "<=", 250.0),
        ("largest batch, share of the matrix rate", largest["share_of_matrix_rate"], ">=", 0.4),
        ("candidate attention over SDPA, least", attention, ">=", 1.3),
        *([("candidate attention over FlexAttention, least", min(flex), ">=", 1.0)] if flex else []),
        *((f"{row['kernel']}, share of copy", row["share_of_copy"], ">=", 0.85) for row in result["bandwidth"]),
    ]
    return [
        {
            "what": what,
            "measured": value,
            "bar": f"{sign} {bar}",
            "kept": value <= bar if sign == "<=" else value >= bar,
        }
        for what, value, sign, bar in found
    ]


def device_facts(device: Any) -> dict[str, Any]:
    """The GPU, and the CUDA that torch was built for."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }


def print_result(result: dict[str, Any]) -> None:
    """Tables for people."""
    print(json.dumps(result["machine"]))
    for name, rate in result["ceilings"].items():
        print(f"{name}: {rate / 1e12:.2f}e12")
    for part in result["passes"]:
        size = f"B={part['requests']} S={part['tokens']} M={part['candidates']}"
        print(f"\n{size}: {part['share_of_matrix_rate']:.1%} of the matrix rate ({result['dtype']})")
        for name, row in part["contenders"].items():
            told = row.get("error") or f"{row['p50_us']:>10.1f} us  p99 {row['p99_us']:>10.1f} us"
            distance = f"  max |dP| {row['max_abs_dp']:.4f}" if "max_abs_dp" in row else ""
            answer = f"  to the answer {row['answer_us']['p50_us']:>10.1f} us" if "answer_us" in row else ""
            print(f"  {name:<28}{told}{answer}{distance}")
    print("\none decision, from the Python call")
    for name, row in result["decisions"].items():
        route = row["route"]
        print(f"  {name:<8}{route['p50_us']:>10.1f} us  p99 {route['p99_us']:>10.1f} us  ran on {row['executor']}")
    for heading in ("attention", "bandwidth", "bars"):
        print(f"\n{heading}")
        for row in result[heading]:
            print("  " + "  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    sys.exit(main())
