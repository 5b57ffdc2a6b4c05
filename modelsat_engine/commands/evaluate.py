"""`modelsat evaluate`: how good is a router on real outcomes, beside the baselines?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from modelsat_engine.commands.console import console, one_line, print_json
from modelsat_engine.commands.options import bundle_option, json_option
from modelsat_engine.commands.progress import ProgressBar


@click.command("evaluate", short_help="Measure a router beside the baselines.")
@bundle_option
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Real outcomes to measure on."
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Random zoos drawn."
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="seen-models, new-models or new-datasets; may be repeated.  [default: all]",
)
@click.option(
    "--zoo-size", type=click.IntRange(min=2), default=5, show_default=True, metavar="N", help="Candidates in a zoo."
)
@click.option(
    "--max-questions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Judge on at most N questions a scenario.  [default: all]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Also write the JSON here.")
@json_option
def command(
    bundle: Path | None,
    data: Path,
    seeds: int,
    scenarios: tuple[str, ...],
    zoo_size: int,
    max_questions: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure a router on outcomes of real LLMs: AUC, calibration, routed accuracy.

    Beside it stand random choice, the best single model, nearest neighbours, matrix factorisation and the oracle.
    Needs pip install 'modelsat-engine[evaluate]'.

    \b
    Examples:
      modelsat evaluate --data outcomes/
      modelsat evaluate --data outcomes/ --bundle my-bundle/ --json -o quality.json
      modelsat evaluate --data outcomes/ --seeds 20 --scenario new-models
    """
    from modelsat_engine.commands.files.atomic import atomic_file
    from modelsat_engine.commands.files.parts import check_writable_folder
    from modelsat_engine.evaluation.run import evaluate

    if output is not None:
        check_writable_folder(output)
    with ProgressBar("Evaluating") as progress:
        result: dict[str, Any] = evaluate(
            bundle,
            data,
            seeds=seeds,
            scenarios=scenarios or None,
            zoo_size=zoo_size,
            max_questions=max_questions,
            progress=progress.update,
        )
    if output is not None:
        with atomic_file(output) as file:
            file.write(json.dumps(result, indent=2).encode() + b"\n")
    if as_json:
        print_json(result)
        return
    from modelsat_engine.evaluation.report import render

    console().print(render(result))
    if output is not None:
        click.echo(f"Written to {one_line(str(output))}")
