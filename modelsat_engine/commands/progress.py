"""Progress of long work, on stderr: a bar on a terminal, a line a minute in a log; nothing for what is soon done."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any

SHOWN_AFTER_S = 2.0
#: Where stderr is no terminal.
LINE_EVERY_S = 60.0
#: Share of the work from which on the rest can be foretold.
FORETELLS_FROM = 0.02


class ProgressBar:
    """A context manager around long work; `update` is cheap and may be called as often as one likes.

    On a terminal it is a bar that vanishes in the end; elsewhere, as in a log, it is a line now and then.

    Args:
        label: what is being done, for the left of the bar.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._on_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._next_line = self._started + LINE_EVERY_S
        self._stage_started, self._last_fraction = self._started, 0.0
        self._shown: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown is not None:
            with contextlib.suppress(OSError):
                self._shown.stop()

    def update(self, fraction: float | None, note: str = "") -> None:
        """Say how far the work is.

        Args:
            fraction: the share done, 0 to 1; None when nobody knows.
            note: a few words for the right of the bar, such as "1,024 rows, 350/s".
        """
        now = time.monotonic()
        if not self._on_terminal:
            if fraction is not None and fraction < self._last_fraction:  # the next stage of the work
                self._stage_started = now
            self._last_fraction = fraction or 0.0
            if now >= self._next_line:
                self._next_line = now + LINE_EVERY_S
                self._print_line(fraction, now, note)
            return
        if now - self._started < SHOWN_AFTER_S:
            return
        if self._shown is None:
            self._show()
        self._shown.update(self._task, completed=fraction or 0.0, total=None if fraction is None else 1.0, note=note)

    def _print_line(self, fraction: float | None, now: float, note: str) -> None:
        share = "" if fraction is None else f" {fraction:.0%}"
        left = ""
        if fraction and fraction >= FORETELLS_FROM:
            left = f", about {_duration((now - self._stage_started) * (1 - fraction) / fraction)} left"
        details = f": {note}" if note else ""
        with contextlib.suppress(OSError):
            print(
                f"{self._label}{share} after {_duration(now - self._started)}{left}{details}",
                file=sys.stderr,
                flush=True,
            )

    def _show(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        from modelsat_engine.commands.console import console

        self._shown = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console(stderr=True),
            transient=True,
        )
        self._task = self._shown.add_task(self._label, total=1.0, note="")
        self._shown.start()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
