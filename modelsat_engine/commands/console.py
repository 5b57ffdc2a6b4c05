"""What every command prints with: one-line complaints, JSON for programs, small bars for people."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

WIDE_ENOUGH = 200


def one_line(text: str) -> str:
    """The text without line breaks and control characters, which a file name or a model name may hold."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def complain(message: str) -> None:
    """One "error: ..." line on stderr."""
    click.echo(f"error: {one_line(message)}", err=True)


def warn(message: str) -> None:
    """One "warning: ..." line on stderr."""
    click.echo(f"warning: {one_line(message)}", err=True)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Takes the place of `warnings.showwarning`, whose file name and source line help no user."""
    warn(str(message))


class OneLineHandler(logging.Handler):
    """Shows the package's log records the way `warn` shows warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print "warning: ..." or "error: ..." on stderr."""
        click.echo(f"{record.levelname.lower()}: {one_line(record.getMessage())}", err=True)


def show_log_records() -> None:
    """Send what the package logs, from WARNING on, to stderr, once however often it is asked for."""
    logger = logging.getLogger("modelsat_engine")
    if not any(isinstance(handler, OneLineHandler) for handler in logger.handlers):
        logger.addHandler(OneLineHandler(logging.WARNING))


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A JSON document on stdout, non-ASCII text readable where the output can carry it."""
    click.echo(json.dumps(value, indent=indent, ensure_ascii=not unicode_output()))


def console(*, stderr: bool = False) -> Console:
    """A rich console; wide when nobody's window limits it, so that a pipe gets whole names."""
    from rich.console import Console

    class ConsoleThatRaises(Console):
        def on_broken_pipe(self) -> None:
            raise  # the command line's entry knows what to do; rich would exit with 1

    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and "COLUMNS" not in os.environ
    return ConsoleThatRaises(stderr=stderr, width=WIDE_ENOUGH if wide else None, highlight=False, soft_wrap=False)


def bar(share: float, width: int = 10) -> str:
    """A bar for a share in [0, 1], in eighths of a character where the output is Unicode."""
    share = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
    if not unicode_output():
        return ("#" * round(share * width)).ljust(width, ".")
    eighths = round(share * width * 8)
    text = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
    return text.ljust(width)


def mark() -> str:
    """The sign that stands before the chosen candidate."""
    return "➜" if unicode_output() else ">"


def price(usd_per_million_tokens: float | None) -> str:
    """A price for people; an unknown one is a dash, never a zero."""
    if usd_per_million_tokens is None or math.isnan(usd_per_million_tokens):
        return "–" if unicode_output() else "-"
    return f"${usd_per_million_tokens:,.2f}" if usd_per_million_tokens >= 0.1 else f"${usd_per_million_tokens:.3g}"


def percent(share: float) -> str:
    """A share for people, one decimal; NaN is a dash."""
    if math.isnan(share):
        return "–" if unicode_output() else "-"
    return f"{share:.1%}"


def quiet_reconfigure(stream: TextIO) -> None:
    """Let an ASCII terminal show "\\u2713" where the default is to fail."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def let_output_go() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about a pipe or a disk."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def unicode_output() -> bool:
    """Whether stdout can carry what ASCII cannot."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")
