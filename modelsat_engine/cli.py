"""The entry of the `modelsat` command: finds the command asked for, and turns every failure into one line.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted, 141 the reader of our output went away.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from modelsat_engine import __version__
from modelsat_engine.commands.console import (
    complain,
    let_output_go,
    one_line,
    quiet_reconfigure,
    show_log_records,
    show_warning,
)
from modelsat_engine.errors import ModelSatError

FAILED, BAD_USAGE, INTERRUPTED, READER_GONE = 1, 2, 130, 141

# name -> module of modelsat_engine.commands; each holds a click command called `command`
COMMANDS = ("route", "score", "candidates", "aptitude", "teach", "train", "evaluate", "export", "doctor")


class ModelSatGroup(click.Group):
    """Imports a command when it is asked for, and reports errors the same way for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"modelsat_engine.commands.{cmd_name}").command
        return command

    def main(  # type: ignore[override]  # never returns, and has no standalone mode
        self, args: Sequence[str] | None = None, prog_name: str | None = "modelsat", **extra: Any
    ) -> NoReturn:
        """Run the command line and exit; no exception leaves it."""
        extra.pop("standalone_mode", None)
        run = super().main
        exit_with(lambda: run(args, prog_name, standalone_mode=False, **extra))

    # click would make an exit with 1 of a broken pipe, as if something had failed

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


def exit_with(run: Callable[[], Any]) -> NoReturn:
    """Exit with the code of a click command that `run` runs out of its standalone mode; no exception leaves it."""
    warnings.showwarning = show_warning
    show_log_records()
    quiet_reconfigure(sys.stdout)
    try:
        code = run()
        sys.stdout.flush()
    except Exception as error:
        if os.environ.get("MODELSAT_DEBUG"):
            raise
        code = report(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


class ReaderGoneError(Exception):
    """Nobody reads our output any more (`modelsat ... | head -1`)."""


def report(error: Exception) -> int:
    """Say what went wrong in one line on stderr; returns the exit code."""
    if isinstance(error, ReaderGoneError | BrokenPipeError):
        let_output_go()
        return READER_GONE
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "modelsat"
        complain(f"{one_line(error.format_message()).rstrip('.')}; see '{path} --help'")
        return BAD_USAGE
    if isinstance(error, click.ClickException):
        complain(error.format_message())
        return FAILED
    if isinstance(error, ModelSatError):
        complain(str(error))
        return FAILED
    if isinstance(error, MemoryError):
        complain("out of memory; use fewer candidates or a smaller batch")
        return FAILED
    if isinstance(error, OSError) and error.strerror:
        if not error.filename:
            let_output_go()  # the interpreter would try once more at its end, and exit with 120
        where = f"{error.filename}: " if error.filename else "cannot write the output: "
        complain(f"{where}{error.strerror} (MODELSAT_DEBUG=1 shows where it happened)")
        return FAILED
    complain(
        f"{type(error).__name__}: {error}; this is a defect, or the installation is damaged "
        "(MODELSAT_DEBUG=1 shows the traceback)"
    )
    return FAILED


@click.command(
    "modelsat",
    cls=ModelSatGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, message="modelsat-engine %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Predict which LLM will answer an instruction correctly, before any of them runs, and route by it.

    \b
    Examples:
      modelsat route "Prove that the square root of 2 is irrational."
      modelsat score questions.jsonl -o scores.parquet
      modelsat candidates list
      modelsat doctor

    MODELSAT_BUNDLE and MODELSAT_ZOO give the defaults of --bundle and --zoo; MODELSAT_CACHE says where
    embeddings are kept, or off.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """The console script."""
    cli.main()


if __name__ == "__main__":
    main()
