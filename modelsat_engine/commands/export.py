"""`modelsat export`: a bundle from a trained checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from modelsat_engine.commands.console import one_line, print_json
from modelsat_engine.commands.options import json_option


@click.command("export", short_help="Make a bundle of a trained checkpoint.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The bundle to write."
)
@json_option
def command(checkpoint: Path, output: Path, as_json: bool) -> None:
    """Export a trained CHECKPOINT as a bundle: ONNX graphs, int8 weights, checksums.

    Needs pip install 'modelsat-engine[export]'.

    \b
    Examples:
      modelsat export run/ -o my-bundle/
      modelsat route "Who wrote Faust?" --bundle my-bundle/
    """
    from modelsat_engine.export.run import export

    record = export(checkpoint, output)
    if as_json:
        print_json(record)
        return
    click.echo(f"Wrote the bundle {one_line(str(output))}; try it: modelsat doctor --bundle {output}")
