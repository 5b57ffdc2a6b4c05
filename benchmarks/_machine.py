"""Where a benchmark ran, for the JSON that it prints."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ("modelsat_engine", "csrc", "kernels", "benchmarks")


def machine(*packages: str) -> dict[str, Any]:
    """Processor, usable CPUs, load, Python, versions and commit.

    Args:
        packages: distributions whose versions matter beside our own.
    """
    return {
        "cpu": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_1_min": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{package.replace("-", "_"): version(package) for package in ("modelsat-engine", *packages)},
        "commit": _git("rev-parse", "--short", "HEAD") or None,
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", *MEASURED, ":!benchmarks/results")),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.strip()
