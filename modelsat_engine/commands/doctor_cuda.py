"""What `modelsat doctor` says of the executor "cuda"."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any


def cuda_report(bundle: Path | None) -> dict[str, Any]:
    """Whether a bundle can be routed on a GPU here, JSON-able; starts nothing on it.

    Returns:
        usable; reason, exactly why not, or None; driver, its version; cuda_version, of CUDA that it is for; devices
        (name, compute_capability, memory_bytes, free_bytes); gives_way_to, the executor that takes over when the
        device fails, or None.
    """
    report: dict[str, Any] = {"usable": False, "reason": None, "driver": None, "cuda_version": None, "devices": []}
    report["gives_way_to"] = None
    try:
        from modelsat_engine.export.bundle import Bundle
        from modelsat_engine.runtime.executors import executors_for
        from modelsat_engine.runtime.executors.cuda_device import driver
        from modelsat_engine.runtime.executors.cuda_fallback import successor_for

        found = driver()
        if found is not None:
            report |= {"driver": found.version, "cuda_version": found.cuda_version}
            for device in found.devices:
                facts = asdict(device)
                major, minor = facts.pop("capability")
                report["devices"].append({"compute_capability": f"{major}.{minor}", **facts})
        opened = Bundle.load(bundle)
        report["reason"] = executors_for(opened)["cuda"]
        report["gives_way_to"] = successor_for(opened)
    except Exception as error:  # a finding like any other
        report["reason"] = str(error) or type(error).__name__
    report["usable"] = report["reason"] is None
    return report


def cuda_state(report: dict[str, Any]) -> str:
    """The same in one line."""
    parts = [report["reason"] or "available, by name only"]
    for device in report["devices"]:
        free, total = (round(device[key] / 2**30) for key in ("free_bytes", "memory_bytes"))
        parts.append(
            f"{device['name']} (compute capability {device['compute_capability']}, {free} of {total} GiB free)"
        )
    if report["driver"] is not None:
        parts.append(f"driver {report['driver']} for CUDA {report['cuda_version']}")
    if report["usable"] and report["gives_way_to"] is not None:
        parts.append(f"gives way to {report['gives_way_to']} when the device fails")
    return "; ".join(parts)
