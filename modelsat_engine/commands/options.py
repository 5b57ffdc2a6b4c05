"""Options that several commands share, spelt and explained once."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def together(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator for several options, listed in the order in which --help shows them."""

    def decorate(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    envvar="MODELSAT_BUNDLE",
    show_envvar=True,
    metavar="DIR",
    help="The router bundle.  [default: the one that ships with the package]",
)
zoo_option = click.option(
    "--zoo",
    type=click.Path(path_type=Path),
    envvar="MODELSAT_ZOO",
    show_envvar=True,
    metavar="FILE",
    help="The candidates, a zoo.json.  [default: your own, which 'candidates add' starts, else the bundle's]",
)
executor_option = click.option(
    "--executor",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What runs the network; 'modelsat doctor' lists what can.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

engine_options = together(
    bundle_option,
    zoo_option,
    click.option(
        "--candidates",
        multiple=True,
        metavar="A,B",
        help="Only these candidates of the zoo; may be repeated.",
    ),
    executor_option,
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads.  [default: 1 for one instruction, every usable CPU for a file]",
    ),
)

recipe_options = together(
    click.option(
        "--config", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The recipe, a TOML file."
    ),
    click.option(
        "--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Real outcomes to train on."
    ),
    click.option(
        "--base",
        required=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The base encoder: a folder with model.safetensors and tokenizer.json.",
    ),
    click.option(
        "--aptitude",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="An aptitude.json of your own.  [default: 50 MMLU subjects x 20 items, built from the data]",
    ),
)


def candidate_names(values: Sequence[str], known: Container[str]) -> list[str]:
    """The names in `--candidates a,b --candidates c`, each once, in order; a known name may hold commas."""
    names: list[str] = []
    for value in values:
        names += [value] if value in known else [name.strip() for name in value.split(",")]
    return list(dict.fromkeys(name for name in names if name))
