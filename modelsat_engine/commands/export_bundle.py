"""`modelsat export CHECKPOINT -o DIR`: a bundle from a trained checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from modelsat_engine.commands.console import one_line, print_json
from modelsat_engine.errors import BundleError, DataError


def export_bundle(
    checkpoint: Path,
    output: Path,
    max_instruction_tokens: int | None,
    quality: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Writes the bundle and says so; the arguments are the command's."""
    if output.exists() and not overwrite:
        raise BundleError(f"{output} exists; pass --overwrite to replace it, or choose another output")
    measured = None if quality is None else _read_quality(quality)

    from modelsat_engine.export.run import export

    record = export(checkpoint, output, max_instruction_tokens, measured)
    if as_json:
        print_json(record)
        return
    click.echo(
        f"Wrote {one_line(str(output))}: {record['bytes'] / 1e6:.1f} MB, {record['hash']}; ONNX Runtime and the "
        f"network differ by {record['largest_difference']:.1e} at most."
    )
    click.echo(f"Try it: modelsat doctor --bundle {one_line(str(output))}")


def _read_quality(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not what 'modelsat evaluate -o FILE' writes: need a JSON object")
    return value
