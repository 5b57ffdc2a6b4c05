"""`modelsat export`: what it takes, and which target takes what; each target has a module of its own."""

from __future__ import annotations

from pathlib import Path

import click

from modelsat_engine.commands.options import bundle_option, json_option, zoo_option

# option -> the targets that take it; an option that another target is given is bad usage, not ignored
TAKES = {
    "checkpoint": {"bundle"},
    "max_instruction_tokens": {"bundle"},
    "quality": {"bundle"},
    "bundle": {"onnx", "tensorrt"},
    "zoo": {"onnx"},
    "precision": {"onnx", "tensorrt"},
    "calibration": {"onnx"},
    "verify": {"onnx"},
    "from_onnx": {"tensorrt"},
    "plugins": {"tensorrt"},
    "version_compatible": {"tensorrt"},
    "refittable": {"tensorrt"},
}
_BY_ENVIRONMENT = click.core.ParameterSource.ENVIRONMENT


@click.command("export", short_help="Make a bundle of a checkpoint, an ONNX file or a TensorRT engine of a bundle.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Choice(["bundle", "onnx", "tensorrt"]),
    help="What to write: a bundle of a CHECKPOINT, one ONNX file of a bundle, or a TensorRT engine of a bundle for "
    "this machine's GPU.  [default: bundle]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The bundle or the file to write.  [default for onnx: NAME-PRECISION.onnx here; for tensorrt: the "
    "user's cache, where the executor finds it]",
)
@bundle_option
@zoo_option
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="The numbers inside the graph; its inputs and outputs stay float32.  [default: fp32, for tensorrt fp16]",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instructions that int8 scales are set on, as 'score' reads them.  [default: the package's own]",
)
@click.option("--verify", is_flag=True, help="Compare the file with PyTorch on many shapes; exit 1 if it is off.")
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
@click.option(
    "--from-onnx",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Build the engine from what --to onnx wrote earlier.  [default: a graph made anew]",
)
@click.option(
    "--plugins",
    type=click.Choice(["auto", "on", "off"]),
    help="Whether our kernels go into the engine: where that works, in any case, or not at all.  [default: auto]",
)
@click.option("--version-compatible", is_flag=True, help="Later versions of TensorRT load the engine too; no plugins.")
@click.option("--refittable", is_flag=True, help="The engine's weights can be replaced without building it again.")
@click.option("--overwrite", is_flag=True, help="Replace what is at PATH; for tensorrt, build even what is built.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    checkpoint: Path | None,
    target: str | None,
    output: Path | None,
    bundle: Path | None,
    zoo: Path | None,
    precision: str | None,
    calibration: Path | None,
    verify: bool,
    max_instruction_tokens: int | None,
    quality: Path | None,
    from_onnx: Path | None,
    plugins: str | None,
    version_compatible: bool,
    refittable: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export a trained CHECKPOINT as a bundle, or a bundle as an ONNX file or a TensorRT engine.

    --to bundle: ONNX graphs, int8 weights, checksums; the graphs are compared with the network they came from.

    --to onnx: one file with everything inside, for ONNX Runtime or TensorRT without this package, and beside it
    the tokenizer and the candidates of the zoo.

    --to tensorrt: an engine for the GPU of this machine, compared with the fp32 graph before it is kept. Takes
    minutes; nothing else ever builds one. Needs pip install 'modelsat-engine[tensorrt]' as well.

    Needs pip install 'modelsat-engine[export]'.

    \b
    Examples:
      modelsat export run/ -o my-bundle/
      modelsat export run/ -o my-bundle/ --quality quality.json --overwrite
      modelsat export --to onnx --precision fp16 --verify
      modelsat export --to onnx --precision int8 --bundle my-bundle/ -o router.onnx --json
      modelsat export --to tensorrt --precision fp16
    """
    target = target or "bundle"
    _refuse_what_it_does_not_take(ctx, target)
    if target == "bundle":
        from modelsat_engine.commands.export_bundle import export_bundle

        if checkpoint is None or output is None:
            raise click.UsageError("a bundle is made of a checkpoint: modelsat export CHECKPOINT -o DIR")
        export_bundle(checkpoint, output, max_instruction_tokens, quality, overwrite, as_json)
        return
    if target == "tensorrt":
        from modelsat_engine.commands.export_tensorrt import export_engine_file

        options = (from_onnx, plugins, version_compatible, refittable)
        export_engine_file(bundle, output, precision, *options, overwrite, as_json)  # type: ignore[arg-type]
        return
    from modelsat_engine.commands.export_onnx import export_onnx_file

    sound = export_onnx_file(bundle, zoo, output, precision or "fp32", calibration, verify, overwrite, as_json)
    ctx.exit(0 if sound else 1)


def _refuse_what_it_does_not_take(ctx: click.Context, target: str) -> None:
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if target in TAKES.get(name, {target}) or not ctx.params[name]:
            continue
        if ctx.get_parameter_source(name) is not _BY_ENVIRONMENT:
            shown = "CHECKPOINT" if name == "checkpoint" else parameter.opts[-1]
            hint = "; make a bundle of it first" if name == "checkpoint" else ""
            raise click.UsageError(f"--to {target} takes no {shown}{hint}")
