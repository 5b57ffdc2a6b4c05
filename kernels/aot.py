"""`python -m modelsat_engine.kernels.aot`: compile every kernel for a named GPU, without a GPU."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from modelsat_engine.errors import MissingExtraError, ModelSatError

MANIFEST_NAME = "kernels.json"
_TARGETS = ("sm_80", "sm_90", "sm_100")
_DTYPES = ("fp16", "bf16", "fp32")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--target",
    "targets",
    multiple=True,
    type=click.Choice(_TARGETS),
    help="GPU to compile for, may be given several times: sm_80 (A100), sm_90 (H100, H200), sm_100 (B200). "
    "Default: all of them.",
)
@click.option(
    "--kernel", "kernels", multiple=True, help="Only this kernel, such as linear; may be given several times."
)
@click.option("--form", "patterns", multiple=True, help="Only forms of such names, such as 'linear-up-*'.")
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(_DTYPES), help="Only this dtype, may be given several times."
)
@click.option(
    "--bundle",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the router whose sizes count. Default: the one that ships with this package.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Write the cubins and {MANIFEST_NAME}, which says how to launch each, to this directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def main(
    ctx: click.Context,
    targets: tuple[str, ...],
    kernels: tuple[str, ...],
    patterns: tuple[str, ...],
    dtypes: tuple[str, ...],
    bundle: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compile every kernel for a named GPU, without a GPU, and report registers, shared memory and spills.

    Exits 1 when a kernel does not compile, spills registers, or needs more shared memory than the GPU has.

    \b
    Examples:
      python -m modelsat_engine.kernels.aot --target sm_90
      python -m modelsat_engine.kernels.aot --target sm_90 --json
      python -m modelsat_engine.kernels.aot --target sm_80 --target sm_90 -o cubins
    """
    from modelsat_engine.commands.console import complain, print_json

    try:
        report = compile_all(targets or _TARGETS, kernels, patterns or ("*",), dtypes or _DTYPES, bundle, output)
    except ModelSatError as error:
        complain(str(error))
        ctx.exit(2 if isinstance(error, _UsageError) else 1)
    if as_json:
        print_json(report)
    else:
        _print(report)
    bad = [form for form in report["forms"] if form["problem"]]
    for form in bad:
        complain(f"{form['name']} for {form['target']}: {form['problem']}")
    ctx.exit(1 if bad else 0)


class _UsageError(ModelSatError):
    """A bad option, found after the options were parsed."""


def compile_all(
    targets: tuple[str, ...],
    kernels: tuple[str, ...] = (),
    patterns: tuple[str, ...] = ("*",),
    dtypes: tuple[str, ...] = _DTYPES,
    bundle: Path | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Compile all forms for some targets, and write them where an output directory is given.

    Args:
        targets: such as ``sm_90``.
        kernels: only these operations; empty for all.
        patterns: only forms of these names, ``*`` for any letters. dtypes: only what computes with these.
        bundle: directory of the router whose sizes count, None for the shipped one.
        output: directory for cubins and manifest, made where it is missing.

    Returns:
        What the manifest holds: versions, and of every form what `CompiledForm` says.

    Raises:
        ModelSatError: a kernel does not compile, the bundle cannot be read, or the directory cannot be written.
    """
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise _UsageError("TRITON_INTERPRET is set, and the interpreter compiles nothing; unset it")
    try:
        import torch  # noqa: F401
        import triton
    except ImportError as error:
        raise MissingExtraError("compiling kernels", "gpu") from error
    from modelsat_engine.commands.progress import ProgressBar
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.kernels.compilation import CompiledForm, compile_form
    from modelsat_engine.kernels.inventory import GRIDS, all_forms
    from modelsat_engine.model.config import NetworkConfig

    config = NetworkConfig.from_json(dict(Bundle.load(bundle).config))
    forms = all_forms(config)
    known = sorted({form.kernel for form in forms})
    unknown = [kernel for kernel in kernels if kernel not in known]
    if unknown:
        raise _UsageError(f"no kernel is called {unknown[0]!r}; there are {', '.join(known)}")
    wanted = [
        form
        for form in forms
        if (not kernels or form.kernel in kernels)
        and form.dtype in dtypes
        and any(fnmatchcase(form.name, pattern) for pattern in patterns)
    ]
    if not wanted:
        raise _UsageError("no form is left to compile; leave out --form to see the names of all")
    if output is not None:
        _make_folders(output, targets)  # before the work, not after it
    compiled: list[CompiledForm] = []
    with ProgressBar("compiling kernels") as bar:
        for target in targets:
            for form in wanted:
                bar.update(len(compiled) / (len(targets) * len(wanted)), f"{form.name} for {target}")
                compiled.append(compile_form(form, target))
    report: dict[str, Any] = {
        "format_version": 1,
        "triton": triton.__version__,
        "pointer_alignment_bytes": 16,
        "grids": {kernel: GRIDS[kernel] for kernel in sorted({form.kernel for form in compiled})},
        "forms": [form.as_json() for form in compiled],
    }
    if output is not None:
        _write(output, compiled, report)
    return report


def _make_folders(output: Path, targets: tuple[str, ...]) -> None:
    try:
        for target in targets:
            (output / target).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(output, error) from error


def _write(output: Path, compiled: list[Any], report: dict[str, Any]) -> None:
    """Cubins first and the manifest last, so that a manifest never names a file that is not there."""
    from modelsat_engine.aptitude.files import write_json

    try:
        for form in compiled:
            (output / form.file_name).write_bytes(form.cubin)
        write_json(output / MANIFEST_NAME, report)
    except OSError as error:
        raise _cannot_write(output, error) from error


def _cannot_write(output: Path, error: OSError) -> ModelSatError:
    return ModelSatError(f"cannot write {error.filename or output}: {error.strerror}; name another directory")


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    from modelsat_engine.commands.console import console

    table = Table(box=None, pad_edge=False)
    table.add_column("kernel")
    table.add_column("target")
    for heading in ("warps", "registers", "shared KB", "spilled"):
        table.add_column(heading, justify="right")
    for form in report["forms"]:
        style = "red" if form["problem"] else ""
        numbers = (form["num_warps"], form["registers"], f"{form['shared_bytes'] / 1024:.1f}", form["spill_bytes"])
        table.add_row(form["name"], form["target"], *(str(number) for number in numbers), style=style)
    console().print(table)


if __name__ == "__main__":
    from modelsat_engine.cli import exit_with

    exit_with(lambda: main(standalone_mode=False))
