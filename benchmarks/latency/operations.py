"""Where the native executor's time goes, operation by operation, from its C++ benchmarks on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROWS = 64  # at which the operations are measured; also the instruction's tokens
CANDIDATES = 10


def rows_of_a_call(layers: int, inject_at: int) -> dict[str, float]:
    """How many rows pass each operation in one call of S = 64, M = 10, without memory rows.

    The instruction's rows stop at the last layer's keys and values. Inquiry rows enter at ``inject_at``, where their
    query, key and value come from the candidate table.
    """
    full = (layers - 1) * ROWS  # instruction rows through whole layers
    inquiry = (layers - inject_at) * CANDIDATES
    projected = 4 * full + 2 * ROWS + 4 * inquiry - 3 * CANDIDATES
    return {
        "query, key, value and attention output GEMMs": projected,
        "feed-forward up GEMM, GELU, quantise": full + inquiry,
        "feed-forward down GEMM": full + inquiry,
        "attention": full + inquiry,
        "quantise the attended rows": full + inquiry,
        "residual, LayerNorm, quantise": 2 * (full + inquiry) + ROWS,  # and the embeddings' norm
    }


#: Operation -> its benchmark at 64 rows, with weights that do not stay in the second-level cache.
_BENCHMARKS = {
    "query, key, value and attention output GEMMs": "BM_NativeLinear/64/384/384/64",
    "feed-forward up GEMM, GELU, quantise": "BM_NativeLinearGeluQuantize/64",
    "feed-forward down GEMM": "BM_NativeLinear/64/1536/384/16",
    "attention": "BM_NativeAttention/64",
    "quantise the attended rows": "BM_NativeQuantize/64",
    "residual, LayerNorm, quantise": "BM_NativeAddNormQuantize/64",
}
_BARE, _WHOLE = "BM_NativeBareMicrokernel", "BM_NativeScore/64/10/1"


def measure_operations(program: Path, layers: int = 6, inject_at: int = 4, repetitions: int = 5) -> dict[str, Any]:
    """Share of each operation in the sum of all, and each GEMM's rate as a share of the bare microkernel's.

    Args:
        program: ``modelsat_benchmarks`` of the C++ build; its operations have the sizes of the shipped router.

    Returns:
        ``operations``: for each ``us`` per call, ``share`` and, for GEMMs, ``of_bare_rate``; ``bare_gops``,
        ``sum_us``, and ``whole_us`` as measured in one piece. Medians over repetitions in random order.
    """
    command = [
        str(program),
        "--benchmark_filter=Native",
        "--benchmark_format=json",
        f"--benchmark_repetitions={repetitions}",
        "--benchmark_enable_random_interleaving=true",
        "--benchmark_min_time=0.05",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    median = {
        row["run_name"].removesuffix("/min_time:0.050"): row
        for row in json.loads(done.stdout)["benchmarks"]
        if row.get("aggregate_name") == "median"
    }
    scale_us = {"ns": 1e-3, "us": 1.0, "ms": 1e3}

    def cpu_us(name: str) -> float:
        return float(median[name]["cpu_time"]) * scale_us[median[name]["time_unit"]]

    rows = rows_of_a_call(layers, inject_at)
    taken = {name: cpu_us(benchmark) * rows[name] / ROWS for name, benchmark in _BENCHMARKS.items()}
    total = sum(taken.values())
    bare = float(median[_BARE]["GOP/s"]) if _BARE in median and "GOP/s" in median[_BARE] else None
    operations: dict[str, dict[str, float]] = {}
    for name, us in taken.items():
        operations[name] = {"us": round(us, 1), "share": round(us / total, 4)}
        if bare is not None and "GEMM" in name:
            operations[name]["of_bare_rate"] = round(float(median[_BENCHMARKS[name]]["GOP/s"]) / bare, 4)
    return {
        "program": program.name,
        "operations": operations,
        "bare_gops": None if bare is None else round(bare / 1e9, 1),
        "sum_us": round(total, 1),
        "whole_us": round(cpu_us(_WHOLE), 1),
    }
