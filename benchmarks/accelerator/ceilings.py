"""What this GPU can do at most, measured in the same run: copying, and multiplying matrices."""

from __future__ import annotations

import torch

from accelerator.timing import DeviceTimer
from modelsat_engine.model.config import NetworkConfig

_COPY_BYTES = 2 * 2**30
_MATRIX = 8192


def measure_ceilings(device: torch.device, timer: DeviceTimer) -> dict[str, float]:
    """Bytes a second of a device-to-device copy, read and written; FLOP/s of a matrix product, random numbers."""
    source = torch.empty(_COPY_BYTES, dtype=torch.int8, device=device).random_()
    target = torch.empty_like(source)
    copy_us = timer.device_us(lambda: target.copy_(source), repeats=20)["p50_us"]
    rates = {"copy_bytes_per_s": 2 * _COPY_BYTES / (copy_us * 1e-6)}
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(_MATRIX, _MATRIX, device=device).to(dtype) for _ in range(2))
        product_us = timer.device_us(lambda a=a, b=b: a @ b, repeats=20)["p50_us"]  # type: ignore[misc]
        rates[f"{name}_flop_per_s"] = 2 * _MATRIX**3 / (product_us * 1e-6)
    return rates


def pass_flops(config: NetworkConfig, requests: int, tokens: int, candidates: int) -> float:
    """Multiplications and additions of one pass over `requests` instructions of `tokens` tokens each.

    Matrix products and attention of a trunk whose last layer computes the keys and values of the instruction alone.
    """
    trunk, late = config.trunk, config.late_layers
    width, wide = trunk.hidden, trunk.intermediate
    row, full = 2 * width, 2 * (4 * width * width + 2 * width * wide)
    attention = 4 * tokens * width  # of one row
    instruction = (trunk.layers - 1) * (full + attention) + row * 2 * width
    # the first late layer's query, key and value of a candidate lie in the table
    inquiry = late * (full + attention + 4 * width * (1 + config.memory_rows)) - row * 3 * width
    return float(requests * (tokens * instruction + candidates * config.views * inquiry))
