"""Tiles of every kernel, by GPU and by the sizes of the weights: committed, never searched for at run time.

A tile depends on what is compiled in (widths, heads, memory rows) and never on how many rows a batch has, so a row's
result does not depend on the rows beside it. `python -m modelsat_engine.kernels.tune` writes the table anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

#: GPUs that the table speaks of, oldest first. Any other takes the newest one that is not newer than itself.
TARGETS = ("sm_80", "sm_90", "sm_100")
TABLE_FILE = Path(__file__).with_name("table.json")


@cache
def read_table() -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Target -> kernel -> sizes or "any" -> tile; a copy of table.json."""
    table: dict[str, Any] = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    return table


def tile(kernel: str, dtype: torch.dtype, sizes: str, target: str) -> dict[str, int]:
    """Block sizes, `num_warps` and `num_stages` of a kernel.

    Args:
        kernel: name of the operation.
        dtype: of its inputs; fp32, which no tensor core takes in full, may have an entry of its own.
        sizes: what its compiled form is made for, as its `launch.py` writes it, such as ``1536x384``.
        target: one of :data:`TARGETS`.
    """
    names = [f"{kernel}.fp32", kernel] if dtype == torch.float32 else [kernel]
    for name in names:
        for part in (target, "default"):
            entries = read_table()[part].get(name, {})
            found = entries.get(sizes) or entries.get("any")
            if found is not None:
                return dict(found)
    raise KeyError(f"{TABLE_FILE} has no tile for {kernel}")


def target_of(device: torch.device) -> str:
    """The target whose tiles serve a device; tensors on the CPU run in Triton's interpreter, where none is better."""
    if device.type != "cuda":
        return TARGETS[0]
    return nearest_target(*torch.cuda.get_device_capability(device))


def nearest_target(major: int, minor: int) -> str:
    """The newest target that is not newer than a compute capability; the oldest for what is older still."""
    here = 10 * major + minor
    known = [target for target in TARGETS if int(target.removeprefix("sm_")) <= here]
    return known[-1] if known else TARGETS[0]
