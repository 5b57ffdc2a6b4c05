"""What TensorRT gives on this machine's GPU: numbers against the fp32 graph, and milliseconds beside other executors.

    python benchmarks/tensorrt_engines.py [--precision fp16 ...] [--json FILE]

Builds an engine of the shipped router for each precision, with our kernels and without, unless there is one, and times
single instructions of 16, 64 and 128 tokens and a batch of 64, with 10 candidates, from the call to the array.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from _machine import machine

from modelsat_engine.errors import ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.run import export_engine
from modelsat_engine.export.tensorrt.verify import compare_with_fp32
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.executors import Executor, PackedBatch, create_executor, executors_for
from modelsat_engine.runtime.executors.tensorrt_device import ENGINE_VARIABLE, this_device, unavailable_reason
from modelsat_engine.runtime.instruction import InstructionTokenizer

SIZES = ((1, 16), (1, 64), (1, 128), (64, 64))
BESIDE = ("cuda", "onnxruntime-cuda", "onnxruntime-tensorrt")
_SECONDS = 2.0


def percentiles(call: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of one call: p50, p90, p99 and how often it was called."""
    for _ in range(20):
        call()
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(taken) < 50:
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    p50, p90, p99 = np.percentile(taken, (50, 90, 99))
    return {"p50_ms": float(p50), "p90_ms": float(p90), "p99_ms": float(p99), "n": len(taken)}


def rows(name: str, executor: Executor, bundle: Bundle, table: CandidateTable, precision: str) -> list[dict[str, Any]]:
    """One row a size: the times, and beside them how far the numbers are from the fp32 graph."""
    quality = compare_with_fp32(executor, bundle, precision)
    rng = np.random.default_rng(7)
    found = []
    for batch, tokens in SIZES:
        ids = [rng.integers(1000, 20000, tokens).astype(np.int32) for _ in range(batch)]
        packed = PackedBatch.pack(ids)
        times = percentiles(lambda packed=packed: executor.score(packed, table))  # type: ignore[misc]
        row = {"executor": name, "batch": batch, "tokens": tokens, "candidates": len(table), **times, **quality}
        found.append(row)
        click.echo(
            f"{name:<28} {batch:>3} x {tokens:>3} tokens: p50 {times['p50_ms']:.3f} ms, p99 {times['p99_ms']:.3f} ms, "
            f"max |dP| {quality['largest_difference']:.1e}, same choice {quality['route_agreement']:.3f}"
        )
    return found


@click.command()
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp32", "fp16", "bf16", "int8"]))
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the rows to this file.")
def main(precisions: tuple[str, ...], output: Path | None) -> None:
    """Build, check and time engines of the shipped router."""
    reason = unavailable_reason()
    if reason is not None:
        click.echo(f"nothing to measure: {reason}")
        return
    bundle = Bundle.load()
    tokenizer = InstructionTokenizer.from_file(bundle.file("tokenizer.json"), 128)
    table = CandidateTable.build(bundle.zoo, CapabilityEncoder(bundle, tokenizer))
    found: list[dict[str, Any]] = []
    failed = False
    for precision in precisions or ("fp16", "bf16", "int8", "fp32"):
        for plugins in ("off", "on"):
            name = f"tensorrt {precision}, " + ("our kernels" if plugins == "on" else "plain graph")
            try:
                record = export_engine(bundle, precision, plugins=plugins)  # type: ignore[arg-type]
                os.environ[ENGINE_VARIABLE] = record["engine"]
                executor = create_executor("tensorrt", bundle, 1)
                found += rows(name, executor, bundle, table, precision)
                executor.close()
            except ModelSatError as error:
                failed = True
                click.echo(f"{name}: {error}")
    reasons = executors_for(bundle)
    for name in BESIDE:
        if reasons.get(name, "unknown") is not None:
            click.echo(f"{name}: {reasons.get(name)}")
            continue
        executor = create_executor(name, bundle, 1)
        found += rows(name, executor, bundle, table, "fp16")
        executor.close()
    if output is not None:
        output.write_text(
            json.dumps({"machine": {**asdict(this_device()), **machine()}, "rows": found}, indent=1) + "\n",
            encoding="utf-8",
        )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
