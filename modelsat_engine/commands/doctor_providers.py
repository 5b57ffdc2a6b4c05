"""What `modelsat doctor` says of ONNX Runtime: which build it is, and whether each execution provider really runs."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from modelsat_engine.errors import ExecutorError

_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-training")


def examine_onnxruntime() -> dict[str, Any]:
    """Builds installed, version imported, the graph in use, and provider -> why it cannot be used, None if it can."""
    from modelsat_engine.runtime.executors import GRAPH_VARIABLE
    from modelsat_engine.runtime.onnx_providers import PROVIDERS, runtime, unavailable_reason

    try:
        version = str(runtime().__version__)
    except ExecutorError:
        version = None
    return {
        "version": version,
        "builds": [name for name in _BUILDS if _is_installed(name)],
        "graph": os.environ.get(GRAPH_VARIABLE) or None,
        "providers": {provider.title: unavailable_reason(provider) for provider in PROVIDERS.values()},
    }


def provider_lines(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The same for people: label, text and style of each line."""
    build = ", ".join(report["builds"]) or "not installed by pip"
    graph = f", graph {report['graph']}" if report["graph"] else ""
    lines = [("onnxruntime", f"{report['version'] or 'cannot be imported'} ({build}){graph}", "")]
    for title, reason in report["providers"].items():
        lines.append(("", f"{title}: {reason or 'usable'}", "green" if reason is None else "dim"))
    return lines


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
