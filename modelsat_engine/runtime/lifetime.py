"""Whether an engine may be called: open, closed, or left behind in a forked child; and who is still inside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelsat_engine.errors import ForkedProcess, ShuttingDown

CLOSED_MESSAGE = "the engine is closed; load another one with Engine.load()"


class Lifetime:
    """The door of one engine. Thread-safe.

    Attributes:
        closed: whether it was shut.
    """

    def __init__(self) -> None:
        self.closed = False
        self._process = os.getpid()
        self._changed = threading.Condition()  # guards closed and _inside
        self._inside = 0

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that made the engine."""
        return os.getpid() != self._process

    def require_same_process(self) -> None:
        """Raise ForkedProcess in a forked child."""
        # Before any lock is touched: a thread of the parent may have held it at the fork, and holds it for ever.
        if self.forked:
            raise ForkedProcess(
                "this engine was loaded before the process was forked, and its threads stayed in the parent; "
                "call Engine.load() after the fork, or use the spawn start method"
            )

    def require_open(self) -> None:
        """Raise ForkedProcess in a forked child, ShuttingDown when closed."""
        self.require_same_process()
        if self.closed:
            raise ShuttingDown(CLOSED_MESSAGE)

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call of a thread, which :meth:`shut` waits for; raises as :meth:`require_open`."""
        self.require_same_process()
        with self._changed:
            self.require_open()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        """Let nobody in any more, and wait until everybody who came in as a :meth:`call` has left."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: self._inside == 0)
