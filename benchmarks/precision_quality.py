"""What does each precision of an exported graph cost in quality?

    python benchmarks/precision_quality.py --data ../shared/data --json > benchmarks/results/precision_quality.json

Every precision that `modelsat export --to onnx` writes scores the same 2,000 test questions, for the bundle's own zoo
and for all models with known outcomes, beside the fp32 file and, for int8, beside the native executor. AUC and ECE are
over all (question, model) pairs of models that the router was trained on (seen) and of models that it was not (new).
bf16 runs as float32 with every bf16 value rounded, since ONNX Runtime multiplies no bf16 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from _machine import machine
from latency.contenders import NATIVE, Contender, Native, OnnxRuntime
from latency.quality import RealOutcomes

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.low_precision import rounded_to
from modelsat_engine.export.precision import PRECISIONS, export_onnx
from modelsat_engine.runtime.executors import executors_for

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("route_agreement", "mean_abs_dp", "max_abs_dp", "auc_seen_models", "ece_seen_models", "auc_new_models")


def contenders_of(bundle: Bundle, folder: Path, sizes: dict[str, int]) -> list[Contender]:
    """Every precision on the CPU, one thread each, and the native executor where it runs."""
    contenders: list[Contender] = []
    for precision in PRECISIONS:
        path = folder / f"{precision}.onnx"
        sizes[precision] = export_onnx(bundle, path, precision)["bytes"]
        if precision == "bf16":
            onnx.save(rounded_to(onnx.load(path)), path)
        contenders.append(OnnxRuntime(precision, precision == "fp32", path, 1))
    if executors_for(bundle)[NATIVE] is None:
        contenders.append(Native(bundle, 1))
    return contenders


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Exports, scores and compares."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    started = time.monotonic()
    bundle = Bundle.load(options.bundle)
    outcomes = RealOutcomes(bundle, options.data, options.questions)
    sizes: dict[str, int] = {}
    with TemporaryDirectory() as folder:
        quality = outcomes.measure(contenders_of(bundle, Path(folder), sizes), "fp32")
    for precision, size in sizes.items():
        quality[precision]["file_bytes"] = size
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("onnx", "onnxruntime", "torch", "numpy"),
        "bundle": bundle.label,
        "bundle_hash": bundle.hash,
        "seconds": round(time.monotonic() - started),
        "bf16": "emulated: float32 that rounds wherever the graph is bf16",
        "quality": quality,
    }


def show(result: dict[str, Any]) -> None:
    """The result for people."""
    print(f"{result['bundle']}, {result['seconds']} s\n{'':<8}" + "".join(f"{name:>18}" for name in SHOWN))
    for name, row in result["quality"].items():
        print(f"{name:<8}" + "".join(f"{row[key]:>18}" for key in SHOWN))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="directory of outcomes")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)


if __name__ == "__main__":
    main()
