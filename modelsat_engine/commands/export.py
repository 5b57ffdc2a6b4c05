"""`modelsat export`: a bundle from a trained checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from modelsat_engine.commands.console import one_line, print_json
from modelsat_engine.commands.options import json_option
from modelsat_engine.errors import BundleError, DataError


@click.command("export", short_help="Make a bundle of a trained checkpoint.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The bundle to write."
)
@click.option(
    "--max-instruction-tokens",
    type=click.IntRange(min=3),
    metavar="N",
    help="The longest instruction that is read whole.  [default: what the router was trained on]",
)
@click.option(
    "--quality",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What 'modelsat evaluate -o FILE' measured, to be recorded in the bundle.",
)
@click.option("--overwrite", is_flag=True, help="Replace the bundle in DIR.")
@json_option
def command(
    checkpoint: Path,
    output: Path,
    max_instruction_tokens: int | None,
    quality: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export a trained CHECKPOINT as a bundle: ONNX graphs, int8 weights, checksums.

    The graphs are compared with the network they came from before the bundle is published.
    Needs pip install 'modelsat-engine[export]'.

    \b
    Examples:
      modelsat export run/ -o my-bundle/
      modelsat export run/ -o my-bundle/ --quality quality.json --overwrite
      modelsat route "Who wrote Faust?" --bundle my-bundle/
    """
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
