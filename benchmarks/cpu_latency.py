"""How fast is the native CPU executor beside every other way to run the same router on a CPU, and what does it cost?

    python benchmarks/cpu_latency.py --json
    python benchmarks/cpu_latency.py --data ../shared/data      # quality on 2,000 real instructions beside the speed

Contenders take turns on the same instructions and candidates with the same weights and threads; a ratio compares two
turns of one round. Sweeps vary one of tokens, candidates and batch at a time around S = 64, M = 10, B = 1. Wall time
and processor time are both given: on a machine that others use, only the second says what a call costs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from _machine import machine
from latency.bars import beside_a_busy_thread, load_time, one_forward_per_candidate, zoo_size
from latency.contenders import NATIVE, ONNXRUNTIME_FP32, Contender, open_contenders, versions
from latency.material import Material
from latency.operations import measure_operations
from latency.pairing import summarise, take_turns
from latency.plot import write_plot
from latency.quality import RealOutcomes, distance
from latency.verdict import verdicts

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.executors.native import instruction_set

BASE = {"seq": 64, "candidates": 10, "batch": 1}
ROOT = Path(__file__).resolve().parent.parent


def cells_of(options: argparse.Namespace) -> list[dict[str, int]]:
    """The points to measure: the base, then each axis by itself."""
    cells = [dict(BASE)]
    for axis in BASE:
        cells += [{**BASE, axis: value} for value in getattr(options, axis)]
    return [cell for index, cell in enumerate(cells) if cell not in cells[:index]]


def measure_cell(
    cell: dict[str, int], contenders: list[Contender], material: Material, options: argparse.Namespace
) -> dict[str, Any]:
    """Times and distances of every contender at one point."""
    instructions = material.instructions(cell["seq"], cell["batch"])
    candidates: EncodedCandidates = material.candidates(cell["candidates"])
    calls = {contender.name: contender.prepare(instructions, candidates) for contender in contenders}
    base = NATIVE if NATIVE in calls else ONNXRUNTIME_FP32
    exact = calls[ONNXRUNTIME_FP32]()
    rows = summarise(take_turns(calls, options.seconds), base)
    for name, call in calls.items():
        rows[name]["max_abs_dp"] = distance(call(), exact)["max_abs_dp"]
    return {**cell, "ratio_to": base, "contenders": rows}


def native_isa() -> str | None:
    """The instruction set of the native executor, or None without one."""
    try:
        return instruction_set()
    except ExecutorError:
        return None


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    everywhere = sorted(os.sched_getaffinity(0))
    pinned = everywhere[-options.threads :]
    os.sched_setaffinity(0, pinned)  # before any runtime starts a thread
    bundle = Bundle.load(options.bundle)
    positions = int(bundle.config["trunk"]["max_positions"])
    cut = [tokens for tokens in options.seq if tokens > positions]
    options.seq = [tokens for tokens in options.seq if tokens <= positions]
    outcomes = RealOutcomes(bundle, options.data, options.questions) if options.data else None
    material = Material(bundle, outcomes.texts if outcomes else None, max(options.seq, default=BASE["seq"]))
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {**machine(), "isa": native_isa(), "pinned_to": pinned, "versions": versions()},
        "bundle": bundle.label,
        "threads": options.threads,
        "instructions": "real, test questions" if outcomes else "invented",
        "seq_beyond_the_trunk": cut,
    }
    with tempfile.TemporaryDirectory() as scratch:
        contenders, missing = open_contenders(bundle, options.threads, Path(scratch))
        result["missing"] = missing
        result["cells"] = []
        for cell in cells_of(options):
            note(f"S={cell['seq']} M={cell['candidates']} B={cell['batch']}")
            result["cells"].append(measure_cell(cell, contenders, material, options))
        note("zoo size")
        result["zoo_size_100_to_1"] = zoo_size(contenders, material, options.seconds)
        note("one forward per candidate")
        result["one_forward_per_candidate"] = one_forward_per_candidate(bundle, contenders, material, options.seconds)
        note("load")
        usable = [NATIVE] * (NATIVE not in missing) + ["onnxruntime"]
        result["load"] = load_time(bundle, usable)
        if outcomes:
            note("quality")
            judged = [c for c in contenders if not c.exact or c.name == ONNXRUNTIME_FP32]
            result["quality"] = outcomes.measure(judged, ONNXRUNTIME_FP32)
        if options.operations:
            note("operations")
            result["operations"] = measure_operations(options.operations)
    os.sched_setaffinity(0, everywhere)
    note("beside a busy thread")
    result["busy_thread"] = {name: beside_a_busy_thread(bundle, name, options.busy_seconds) for name in usable}
    result["bars"] = verdicts(result)
    return result


def note(text: str) -> None:
    """Progress, for people."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    """The result for people."""
    print(f"{result['command']}\n{result['machine']}\n{result['bundle']}, {result['threads']} thread(s)")
    for name, reason in result["missing"].items():
        print(f"without {name}: {reason}")
    if result["seq_beyond_the_trunk"]:
        print(f"left out, longer than the trunk has positions: {result['seq_beyond_the_trunk']} tokens")
    for cell in result["cells"]:
        print(f"\nS={cell['seq']} M={cell['candidates']} B={cell['batch']}, ratios to {cell['ratio_to']}")
        for name, row in cell["contenders"].items():
            wall, cpu = row["wall_ms"], row["cpu_ms"]
            print(
                f"  {name:<18} wall p50 {wall['p50']:>9.3f} p99 {wall['p99']:>9.3f}  cpu p50 {cpu['p50']:>9.3f} ms"
                f"  ratio wall {row['wall_ratio']['p50']:>7.2f} cpu {row['cpu_ratio']['p50']:>7.2f}"
                f"  max |dP| {row['max_abs_dp']:.1e}"
            )
    for name in ("zoo_size_100_to_1", "one_forward_per_candidate", "load", "quality", "operations", "busy_thread"):
        if name in result:
            print(f"\n{name.replace('_', ' ')}")
            for key, value in result[name].items():
                print(f"  {key}: {value}")
    print("\nbars")
    for bar in result["bars"]:
        print(f"  {'holds ' if bar['holds'] else 'MISSED'} {bar['what']}: {bar['value']} (bar: {bar['bar']})")


def numbers(text: str) -> list[int]:
    """A comma-separated list of positive whole numbers."""
    values = [int(part) for part in text.split(",") if part]
    if any(value < 1 for value in values):
        raise ValueError(text)
    return values


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", help="bundle directory (default: the shipped router)")
    parser.add_argument("--seq", type=numbers, default=[16, 64, 128, 512], help="tokens of an instruction")
    parser.add_argument("--candidates", type=numbers, default=[1, 10, 100, 1000])
    parser.add_argument("--batch", type=numbers, default=[1, 8, 64], help="instructions in a call")
    parser.add_argument("--threads", type=int, default=1, help="of every contender, pinned to as many CPUs")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of measuring at each point, all contenders together"
    )
    parser.add_argument("--busy-seconds", type=float, default=10.0, help="of requests beside a busy Python thread")
    parser.add_argument("--data", type=Path, help="directory of real outcomes, for the quality beside the speed")
    parser.add_argument("--questions", type=int, default=2000, help="test questions of the quality figures")
    parser.add_argument("--operations", type=Path, help="modelsat_benchmarks of the C++ build: time per operation")
    parser.add_argument(
        "--plot", type=Path, help="write a plot of the sweeps to this .png or .svg file (needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads < 1 or options.threads > len(os.sched_getaffinity(0)):
        parser.error(f"--threads must be 1 to {len(os.sched_getaffinity(0))}, the CPUs of this process")
    result = run(options)
    note("")
    if options.plot:
        write_plot(result["cells"], BASE, options.plot)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
