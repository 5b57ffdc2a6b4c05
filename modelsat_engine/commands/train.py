"""`modelsat train`: a router from a recipe and real outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelsat_engine.commands.console import print_json
from modelsat_engine.commands.options import json_option, recipe_options
from modelsat_engine.commands.progress import ProgressBar


@click.command("train", short_help="Train a router on outcomes of real LLMs.")
@recipe_options
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The checkpoint to write."
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What 'modelsat teach' wrote, for a recipe with a teacher_share.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in OUTPUT that was interrupted.")
@json_option
def command(
    config: Path,
    data: Path,
    base: Path,
    output: Path,
    aptitude: Path | None,
    teacher: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train a router on outcomes of real LLMs.

    The checkpoint becomes a bundle with 'modelsat export'. Needs pip install 'modelsat-engine[train]'.

    \b
    Examples:
      modelsat train --config mini.toml --data outcomes/ --base all-MiniLM-L6-v2/ -o run/
      modelsat train --config mini.toml --data outcomes/ --base all-MiniLM-L6-v2/ -o run/ --resume
      modelsat export run/ -o my-bundle/
    """
    from modelsat_engine.training.run import train

    with ProgressBar("Training") as progress:
        record = train(
            config,
            data,
            base,
            output,
            resume=resume,
            progress=lambda event: _show(progress, event),
            aptitude_test=aptitude,
            teacher=teacher,
        )
    if as_json:
        print_json(record)
        return
    calibration = record["calibration"]
    click.echo(
        f"Trained {record['steps']:,} steps, the best after {record['best_step']:,}; expected calibration error "
        f"{calibration['expected_calibration_error_before']:.3f} before calibration, "
        f"{calibration['expected_calibration_error_after']:.3f} after."
    )
    click.echo(f"Checkpoint: {output}; make a bundle of it with: modelsat export {output} -o BUNDLE")


def _show(progress: ProgressBar, event: dict[str, Any]) -> None:
    note = f"{event['stage']} step {event['step']:,} of {event['steps']:,}, loss {event['loss']:.4f}"
    if "validation_auc" in event:
        note += f", validation AUC {event['validation_auc']:.4f}"
    progress.update(event["step"] / max(event["steps"], 1), note)
