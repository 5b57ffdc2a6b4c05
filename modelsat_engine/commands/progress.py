"""A progress bar that keeps quiet: only on a terminal, only for work that lasts, always on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any

SHOWN_AFTER_S = 2.0


class ProgressBar:
    """A context manager around long work; `update` is cheap and may be called as often as one likes.

    Args:
        label: what is being done, for the left of the bar.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._silent = not sys.stderr.isatty()
        self._started = time.monotonic()
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
        if self._silent or time.monotonic() - self._started < SHOWN_AFTER_S:
            return
        if self._shown is None:
            self._show()
        self._shown.update(self._task, completed=fraction or 0.0, total=None if fraction is None else 1.0, note=note)

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
