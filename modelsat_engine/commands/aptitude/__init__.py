"""`modelsat aptitude`: build the aptitude test, let an LLM take it, import results, look at what it showed."""

from __future__ import annotations

from importlib import import_module

import click

# name -> module of this package; each holds a click command called `command`
SUBCOMMANDS: dict[str, str] = {
    "build": "build",
    "run": "run",
    "import": "import_profile",
    "show": "show",
    "compare": "compare",
}


class AptitudeGroup(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{SUBCOMMANDS[cmd_name]}").command
        return command


@click.group("aptitude", cls=AptitudeGroup, short_help="Build, take, import and compare aptitude tests.")
def command() -> None:
    """Build the aptitude test, let an LLM take it, import results that exist, and look at what it showed.

    \b
    Examples:
      modelsat aptitude run --endpoint http://127.0.0.1:8000/v1 --model my-model --questions questions.jsonl
      modelsat aptitude import --format lm-eval results/ --name my-model
      modelsat aptitude show my-model.json
      modelsat aptitude compare my-model.json Qwen2.5-7B-Instruct
      modelsat aptitude build questions.jsonl --outcomes outcomes.csv -o aptitude.json
    """
