"""What the native executor is told of a bundle: the network's sizes, and where each tensor lies in the weights file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from modelsat_engine.errors import BundleError
from modelsat_engine.export.bundle import Bundle

_EXPORT = "export the bundle again"
_TRUNK_SIZES = ("layers", "hidden", "heads", "intermediate", "vocab", "max_positions")
_ROUTER_SIZES = ("inject_at", "memory_rows", "views")
_OPTIONAL_SIZES = ("evidence_size", "relevance_hidden")  # 0 in a router without a relevance head

#: dtype, shape, offset in the file and length, both in bytes.
Place = tuple[str, tuple[int, ...], int, int]


def unsupported_reason(bundle: Bundle) -> str | None:
    """Why the native executor is not made for a bundle, whatever the machine, or None.

    This is about what kind a router is; a bundle that is damaged is an error, not a reason.
    """
    config = bundle.config
    if config.get("layout") != "shared":
        return f"it runs the layout 'shared', not {config.get('layout')!r}"
    kind = (config.get("trunk") or {}).get("kind", "encoder")
    if kind != "encoder":
        return f"it runs encoder trunks, not {kind!r}"
    weights = (config.get("quantization") or {}).get("weights")
    if weights != "int8":
        return f"it reads int8 weights; router.json states {weights!r} under quantization.weights"
    return None


def network_sizes(bundle: Bundle) -> dict[str, int | float]:
    """The sizes that the C++ executor asks for, as router.json states them; whether they fit together it checks.

    Raises:
        BundleError: a size is missing or is no number.
    """
    config = bundle.config
    try:
        trunk = config["trunk"]
        return {
            **{name: int(trunk[name]) for name in _TRUNK_SIZES},
            **{name: int(config[name]) for name in _ROUTER_SIZES},
            **{name: int(config.get(name, 0)) for name in _OPTIONAL_SIZES},
            "max_instruction_tokens": int(config["tokenizer"]["max_instruction_tokens"]),
            "layer_norm_eps": float(trunk["layer_norm_eps"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"bundle {bundle.path}: router.json lacks {error}; {_EXPORT}") from error


def tensor_table(path: Path) -> dict[str, Place]:
    """Name -> place of every tensor of a safetensors file.

    Raises:
        BundleError: the file is no safetensors file, or is cut short; the message names the tensor.
    """
    header, start, size = _read_header(path)
    table: dict[str, Place] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(extent) for extent in entry["shape"])
            first, last = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} does not say where {name} lies ({error!r}); {_EXPORT}") from error
        if not 0 <= first <= last or start + last > size or math.prod(shape) < 0:
            raise BundleError(f"{path} is cut short: {name} would end at byte {start + last} of {size}; {_EXPORT}")
        table[name] = dtype, shape, start + first, last - first
    return table


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The JSON header of a safetensors file, where the data starts, and the file's size."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise BundleError(f"{path} is cut short: its header would take {length} of {size} bytes; {_EXPORT}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not a safetensors file ({error}); {_EXPORT}") from error
    if not isinstance(header, dict):
        raise BundleError(f"{path} is not a safetensors file (its header is no object); {_EXPORT}")
    return header, 8 + length, size
