"""`modelsat export --to onnx`: one ONNX file of a router, and beside it what a program without this package needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelsat_engine.commands.console import console, one_line, percent, print_json
from modelsat_engine.errors import DataError

if TYPE_CHECKING:
    from modelsat_engine.export.bundle import Bundle


def export_onnx_file(
    bundle: Path | None,
    zoo: Path | None,
    output: Path | None,
    precision: str,
    calibration: Path | None,
    verify: bool,
    overwrite: bool,
    as_json: bool,
) -> bool:
    """Writes the file and says so; the arguments are the command's.

    Returns:
        Whether the file keeps the bounds of its precision, or was not to be verified.
    """
    from modelsat_engine.commands.zoo import read_zoo
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.table_file import write_table, write_tokenizer

    opened = Bundle.load(bundle)
    path = output or Path(f"{opened.config.get('name', opened.path.name)}-{precision}.onnx")
    texts = None if calibration is None else _instructions(calibration)
    _refuse_to_replace(path, opened, overwrite)
    profiles = read_zoo(opened, zoo).profiles

    from modelsat_engine.export.precision import export_onnx

    beside = {"candidates": path.with_suffix(".candidates.npz"), "tokenizer": path.with_suffix(".tokenizer.json")}
    write_table(opened, profiles, beside["candidates"])  # the graph last: where it is, the others are
    write_tokenizer(opened, beside["tokenizer"])
    record: dict[str, Any] = export_onnx(opened, path, precision, calibration=texts)  # type: ignore[arg-type]
    record |= {name: str(file) for name, file in beside.items()}
    if verify:
        from modelsat_engine.export.verify import verify_file

        record["verify"] = verify_file(opened, path)
    if as_json:
        print_json(record)
    else:
        _print(record)
    return not verify or bool(record["verify"]["holds"])


def _refuse_to_replace(path: Path, bundle: Bundle, overwrite: bool) -> None:
    """An earlier export of the same router may be replaced unasked; anything else is somebody's."""
    if path.is_dir():
        raise DataError(f"{path} is a directory; name a file with -o")
    if overwrite or not path.exists():
        return
    from modelsat_engine.export.precision import read_export

    try:
        ours = read_export(path)[1].get("bundle", "").partition("@")[0] == bundle.label.partition("@")[0]
    except DataError:
        ours = False
    if not ours:
        raise DataError(f"{path} exists and is no earlier export of this router; pass --overwrite to replace it")


def _instructions(path: Path) -> list[str]:
    from modelsat_engine.commands.files.readers import open_instructions

    texts = [row.instruction for row in open_instructions(path).rows() if isinstance(row.instruction, str)]
    if not texts:
        raise DataError(f"{path} holds no instruction in plain text to set int8 scales on")
    return texts


def _print(record: dict[str, Any]) -> None:
    click.echo(
        f"Wrote {one_line(record['onnx'])}: {record['precision']}, {record['bytes'] / 1e6:.1f} MB, "
        f"opset {record['opset']}, router {record['bundle']}."
    )
    click.echo(f"Beside it: {one_line(record['candidates'])} and {one_line(record['tokenizer'])}.")
    if "verify" not in record:
        return
    from rich.table import Table

    found = record["verify"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("instructions", "tokens", "candidates", "max |dP|", "mean |dP|", "same choice"):
        table.add_column(heading, justify="right")
    for row in [*found["shapes"], {"batch": "all", "tokens": "", "zoo": "", **found}]:
        table.add_row(
            *(str(row[name]) for name in ("batch", "tokens", "zoo")),
            *(f"{row[name]:.1e}" for name in ("max_abs_dp", "mean_abs_dp")),
            percent(row["route_agreement"]),
        )
    console().print(table)
    bounds, verdict = found["bounds"], "within" if found["holds"] else "NOT within"
    click.echo(
        f"Compared with PyTorch in float32 ({found['ran']}): {verdict} the bounds of {record['precision']}, max |dP| "
        f"{bounds['max_abs_dp']:g}, mean |dP| {bounds['mean_abs_dp']:g}, same choice "
        f"{percent(bounds['route_agreement'])}."
    )
