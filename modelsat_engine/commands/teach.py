"""`modelsat teach`: a teacher for a recipe that has a teacher_share."""

from __future__ import annotations

from pathlib import Path

import click

from modelsat_engine.commands.console import print_json
from modelsat_engine.commands.options import json_option, recipe_options
from modelsat_engine.commands.progress import ProgressBar


@click.command("teach", short_help="Make the teacher that a router is trained with.")
@recipe_options
@click.option(
    "--language-model",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A small language model whose states the teacher reads, a .gguf file.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The .npz to write."
)
@json_option
def command(
    config: Path, data: Path, base: Path, language_model: Path, output: Path, aptitude: Path | None, as_json: bool
) -> None:
    """Make the teacher that a router is trained with.

    An ensemble on frozen encoders says of every training question what it expects of every model, by an ensemble that
    has not seen the question. 'modelsat train --teacher' mixes that into the outcomes. States of the language model
    are kept beside OUTPUT, so that the same command goes on after an interruption. Needs
    pip install 'modelsat-engine[train,teach]'.

    \b
    Examples:
      modelsat teach --config mini.toml --data outcomes/ --base encoder/ --language-model lm.gguf -o teacher.npz
      modelsat train --config mini.toml --data outcomes/ --base encoder/ --teacher teacher.npz -o run/
    """
    from modelsat_engine.training.teacher.run import teach

    with ProgressBar("Teaching") as bar:
        report = teach(config, data, base, language_model, output, progress=bar.update, aptitude_test=aptitude)
    if as_json:
        print_json(report)
        return
    click.echo(
        f"Wrote {output}: what to expect of {report['models']} models on {report['questions']:,} questions, "
        f"AUC {report['auc']:.3f} on questions it had not seen."
    )
