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
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Draws of zoos and pairs."
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="seen-models, new-models, new-datasets, size-classes, release-stream, cost-pairs or routerbench; may be "
    "repeated.  [default: all]",
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
@click.option(
    "--executor",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What runs the router; 'modelsat doctor' lists what can.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
@click.option("--no-cache", is_flag=True, help="Embed every question anew, and keep nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Also write the JSON here.")
@json_option
def command(
    bundle: Path | None,
    data: Path,
    seeds: int,
    scenarios: tuple[str, ...],
    zoo_size: int,
    max_questions: int | None,
    executor: str,
    plot: Path | None,
    no_cache: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure a router on outcomes of real LLMs: AUC, calibration, routed accuracy, cost saved.

    Beside it stand random choice, the best single model, nearest neighbours, matrix factorisation and the oracle.
    Embeddings of the questions, for the baselines, are kept in ~/.cache/modelsat-engine (256 MB at most; set
    MODELSAT_CACHE for another place). Needs pip install 'modelsat-engine[evaluate]'.

    \b
    Examples:
      modelsat evaluate --data outcomes/
      modelsat evaluate --data outcomes/ --bundle my-bundle/ --json -o quality.json
      modelsat evaluate --data outcomes/ --scenario cost-pairs --scenario release-stream --plot cost.svg
    """
    from modelsat_engine.commands.files.atomic import atomic_file
    from modelsat_engine.commands.files.parts import check_writable_folder
    from modelsat_engine.evaluation.embedding_cache import cache_directory
    from modelsat_engine.evaluation.run import evaluate

    if output is not None:
        check_writable_folder(output)
    if plot is not None:
        from modelsat_engine.evaluation.plot import check_plot

        check_writable_folder(plot)
        check_plot(plot)
    with ProgressBar("Evaluating") as progress:
        result: dict[str, Any] = evaluate(
            bundle,
            data,
            seeds=seeds,
            scenarios=scenarios or None,
            zoo_size=zoo_size,
            max_questions=max_questions,
            progress=progress.update,
            cache=None if no_cache else cache_directory(),
            executor=executor,
        )
    if output is not None:
        with atomic_file(output) as file:
            file.write(json.dumps(result, indent=2).encode() + b"\n")
    if plot is not None:
        from modelsat_engine.evaluation.plot import draw

        draw(result, plot)
    if as_json:
        print_json(result)
        return
    from modelsat_engine.evaluation.report import render

    console().print(render(result))
    for written in (output, plot):
        if written is not None:
            click.echo(f"Written to {one_line(str(written))}")
