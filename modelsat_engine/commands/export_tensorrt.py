"""`modelsat export --to tensorrt`: an engine of a router for this machine's GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import one_line, percent, print_json
from modelsat_engine.errors import DataError, ExecutorError

if TYPE_CHECKING:
    from modelsat_engine.export.precision import Precision


def export_engine_file(
    bundle: Path | None,
    output: Path | None,
    precision: Precision | None,
    from_onnx: Path | None,
    plugins: str | None,
    version_compatible: bool,
    refittable: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Builds the engine, or finds it built, and says so; the arguments are the command's."""
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    if output is not None:
        _refuse_to_replace(output, overwrite)

    from modelsat_engine.export.tensorrt.network import BuildOptions
    from modelsat_engine.export.tensorrt.run import export_engine

    record = export_engine(
        opened,
        precision,
        output,
        from_onnx,
        plugins or "auto",
        BuildOptions(version_compatible, refittable),
        rebuild=overwrite,
    )
    if as_json:
        print_json(record)
    else:
        _print(record, output)


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    """An earlier engine may be replaced unasked; anything else is somebody's."""
    from modelsat_engine.export.tensorrt.engine_file import EngineFile

    if path.is_dir():
        raise DataError(f"{path} is a directory; name a file with -o")
    if overwrite or not path.exists():
        return
    try:
        EngineFile.open(path)
    except ExecutorError:
        raise DataError(f"{path} exists and is no engine of this package; pass --overwrite to replace it") from None


def _print(record: dict[str, Any], output: Path | None) -> None:
    measured = record["measured"]
    kernels = "with our kernels" if record["plugins"] else "of the plain graph"
    click.echo(
        f"{'Built' if record['built'] else 'Found'} {one_line(record['engine'])}: {record['precision']}, "
        f"{record['bytes'] / 1e6:.1f} MB, {kernels}, for {record['gpu']} (compute capability "
        f"{record['compute_capability']}) with TensorRT {record['tensorrt']}."
    )
    if record["plugins_left_out_because"]:
        click.echo(f"Our kernels are left out: {one_line(record['plugins_left_out_because'])}")
    click.echo(
        f"Against the fp32 graph on {measured['instructions']} instructions: max |dP| "
        f"{measured['largest_difference']:.1e}, mean |dP| {measured['mean_difference']:.1e}, same choice "
        f"{percent(measured['route_agreement'])}."
    )
    where = "" if output is None else f"MODELSAT_TENSORRT_ENGINE={one_line(str(output))} "
    click.echo(f"Use it: {where}modelsat route --executor tensorrt ...")
