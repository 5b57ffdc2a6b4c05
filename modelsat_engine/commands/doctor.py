"""`modelsat doctor`: does routing work here, with what, and if not, why?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from modelsat_engine.commands.console import one_line, print_json
from modelsat_engine.commands.doctor_cuda import cuda_report, cuda_state
from modelsat_engine.commands.doctor_providers import examine_onnxruntime, provider_lines
from modelsat_engine.commands.options import bundle_option, executor_option, json_option, zoo_option

DISTRIBUTION = "modelsat-engine"
SELF_TEST = "What is the capital of France?"

# Several of one group share one import name; the last one installed wins and the others break
CLASHES = {
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-training",
    ),
    "triton": ("triton", "triton-windows", "pytorch-triton"),
}
CPU_FEATURES_SHOWN = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "amx_int8")


@click.command("doctor", short_help="Check this installation.")
@bundle_option
@zoo_option
@executor_option
@json_option
@click.pass_context
def command(ctx: click.Context, bundle: Path | None, zoo: Path | None, executor: str, as_json: bool) -> None:
    """Check this installation: CPU, versions, executors, bundle, clashes, and one instruction routed.

    Exits 0 when routing works, 1 when it does not.

    \b
    Examples:
      modelsat doctor
      modelsat doctor --executor cuda
      modelsat doctor --bundle my-bundle --json
    """
    report = examine(bundle, zoo, executor)
    if as_json:
        print_json(report)
    else:
        _print(report)
    ctx.exit(0 if report["self_test"]["ok"] else 1)


def examine(bundle: Path | None, zoo: Path | None, executor: str = "auto") -> dict[str, Any]:
    """Everything that `doctor` shows, JSON-able. No finding is raised: what fails is part of the report."""
    return {
        "system": _system(),
        "cpu": _cpu(),
        "versions": _versions(),
        "extras": _extras(),
        "clashes": find_clashes(importlib.metadata.distributions()),
        "executors": _executors(),
        "native": _native(bundle),
        "cuda": cuda_report(bundle),
        "onnxruntime": examine_onnxruntime(),
        "tensorrt": _tensorrt(bundle),
        "bundle": _bundle(bundle, zoo),
        "self_test": _self_test(bundle, zoo, executor),
    }


def find_clashes(distributions: Iterable[importlib.metadata.Distribution]) -> list[str]:
    """Installed distributions that overwrite each other's files, each as a sentence that says what to do."""
    installed = {_normalised(found.metadata["Name"]) for found in distributions if found.metadata["Name"]}
    findings = []
    for module, group in CLASHES.items():
        both = [name for name in group if name in installed]
        if len(both) > 1:
            findings.append(
                f"{' and '.join(both)} are installed side by side and overwrite each other, so that the one installed "
                f"last decides what works: "
                f"pip uninstall {' '.join(both)}, then install the one you want ('import {module}' is theirs)"
            )
    return findings


def _system() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _cpu() -> dict[str, Any]:
    try:
        from modelsat_engine import _core
    except ImportError as error:
        return {
            "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "error": f"the compiled extension cannot be loaded ({error}); reinstall {DISTRIBUTION}",
        }
    return {"usable": _core.usable_cpu_count(), **_core.cpu_features()}


def _versions() -> dict[str, str | None]:
    names = [DISTRIBUTION, *(_requirement_name(r) for r in _requirements() if "extra ==" not in r)]
    return {name: _version(name) or _version_of_another_build(name) for name in names}


def _version_of_another_build(name: str) -> str | None:
    """Another distribution may bring the same module, as onnxruntime-gpu does."""
    return next((f"{_version(other)} ({other})" for other in CLASHES.get(name, ()) if _version(other)), None)


def _extras() -> dict[str, dict[str, Any]]:
    """Extra -> whether all it needs is installed, and what is missing."""
    extras: dict[str, dict[str, Any]] = {}
    for requirement in _requirements():
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if extra is None or not _applies_here(requirement):
            continue
        name = _requirement_name(requirement)
        entry = extras.setdefault(extra[1], {"installed": True, "missing": []})
        if _version(name) is None:
            entry["installed"] = False
            entry["missing"].append(name)
    return dict(sorted(extras.items()))


def _executors() -> dict[str, str | None]:
    try:
        from modelsat_engine.runtime.executors import available_executors

        return available_executors()
    except Exception as error:
        return {"onnxruntime": _why(error)}


def _native(bundle: Path | None) -> dict[str, str | None]:
    """The instruction set of the native executor, or why this bundle is routed through ONNX Runtime instead."""
    try:
        from modelsat_engine.errors import BundleError
        from modelsat_engine.export.bundle import Bundle
        from modelsat_engine.runtime.executors.native import instruction_set
        from modelsat_engine.runtime.executors.native_weights import unsupported_reason

        isa = instruction_set()
    except Exception as error:
        return {"instruction_set": None, "falls_back_because": _why(error)}
    try:
        reason = unsupported_reason(Bundle.load(bundle))
    except BundleError:  # nothing runs it; the bundle's own entry says why
        reason = None
    return {"instruction_set": isa, "falls_back_because": reason}


def _tensorrt(bundle: Path | None) -> dict[str, Any]:
    try:
        from modelsat_engine.commands.doctor_tensorrt import examine_tensorrt

        return examine_tensorrt(bundle)
    except Exception as error:
        return {"usable": False, "reason": _why(error)}


def _bundle(bundle: Path | None, zoo: Path | None) -> dict[str, Any]:
    try:
        from modelsat_engine.commands.zoo import read_zoo
        from modelsat_engine.export.bundle import Bundle

        opened = Bundle.load(bundle)
        found = read_zoo(opened, zoo)
    except Exception as error:
        return {"ok": False, "error": _why(error)}
    return {
        "ok": True,
        "path": str(opened.path),
        "name": opened.config.get("name"),
        "hash": opened.hash,
        "aptitude_test_id": opened.aptitude_test.id,
        "zoo": found.label,
        "candidates": len(found.profiles),
    }


def _self_test(bundle: Path | None, zoo: Path | None, executor: str) -> dict[str, Any]:
    from modelsat_engine.commands.engine import open_engine

    try:
        with open_engine(bundle, zoo, executor=executor) as engine:
            engine.warmup()
            decision = engine.route(SELF_TEST)
            fallback = engine.stats()["executor_fallback"]
    except Exception as error:
        return {"ok": False, "instruction": SELF_TEST, "error": _why(error)}
    return {
        "ok": True,
        "instruction": SELF_TEST,
        "candidate": decision.candidate,
        "probability": round(float(decision.probability), 7),
        "executor": decision.executor,
        "executor_fallback": fallback,
        "total_us": round(float(decision.timing_us["total"]), 1),
    }


def _print(report: dict[str, Any]) -> None:
    from rich.text import Text

    from modelsat_engine.commands.console import console

    out = console()

    def line(label: str, value: str, style: str = "") -> None:
        out.print(Text.assemble((f"{label:<12}", "bold"), (one_line(value), style)), soft_wrap=True)

    system, cpu = report["system"], report["cpu"]
    line("python", f"{system['python']} on {system['platform']}")
    if "error" in cpu:
        line("cpu", f"{cpu['usable']} usable; {cpu['error']}", "red")
    else:
        features = " ".join(name for name in CPU_FEATURES_SHOWN if cpu.get(name))
        name = cpu["brand"] or cpu["architecture"]
        line("cpu", f"{name}, {cpu['usable']} usable; {features or 'no vector extension'}")
    line("versions", ", ".join(f"{name} {version or 'missing'}" for name, version in report["versions"].items()))
    for i, (name, reason) in enumerate(report["executors"].items()):
        state = reason or "available"
        if name.startswith("onnxruntime-") and reason is not None:
            state = "not usable; its provider below says why"
        if name == "native" and reason is None:
            state = _native_state(report["native"])
        if name == "cuda":
            state = cuda_state(report["cuda"])
        if name == "tensorrt" and reason is None:
            state = report["tensorrt"]["reason"] or state
        line("executors" if i == 0 else "", f"{name}: {state}", "green" if reason is None else "dim")
    for label, text, style in provider_lines(report["onnxruntime"]):
        line(label, text, style)
    complete = [extra for extra, entry in report["extras"].items() if entry["installed"]]
    line("extras", f"installed: {', '.join(complete) or 'none'}")
    for extra, entry in report["extras"].items():
        if not entry["installed"]:
            line("", f"{extra}: needs {', '.join(entry['missing'])} (pip install '{DISTRIBUTION}[{extra}]')", "dim")
    bundle = report["bundle"]
    if bundle["ok"]:
        line("bundle", f"{bundle['name']} {bundle['hash']}, every checksum right, at {bundle['path']}")
        line("zoo", f"{bundle['candidates']} candidates ({bundle['zoo']})")
    else:
        line("bundle", bundle["error"], "red")
    for clash in report["clashes"]:
        line("clash", clash, "yellow")
    test = report["self_test"]
    if test["ok"]:
        took = f"{test['total_us'] / 1000:.1f} ms on {test['executor']}"
        line("routing", f'works: "{test["instruction"]}" -> {test["candidate"]} in {took}', "green")
        if test["executor_fallback"] is not None:
            line("", f"executor {test['executor']} took over: {test['executor_fallback']}", "yellow")
    else:
        line("routing", f"does not work: {test['error']}", "red")


def _native_state(native: dict[str, str | None]) -> str:
    if native["falls_back_because"] is None:
        return f"available, instruction set {native['instruction_set']}"
    return f"not for this bundle ({native['falls_back_because']}); it is routed through ONNX Runtime"


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _requirement_name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]


def _applies_here(requirement: str) -> bool:
    """Whether a requirement's markers other than `extra` hold here, for the markers this project uses."""
    before = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", requirement)
    if before is not None and sys.version_info >= (int(before[1]), int(before[2])):
        return False
    system = re.search(r"platform_system\s*==\s*['\"](\w+)['\"]", requirement)
    return system is None or platform.system() == system[1]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _why(error: Exception) -> str:
    from modelsat_engine.errors import ModelSatError

    return str(error) if isinstance(error, ModelSatError) else f"{type(error).__name__}: {error}"
