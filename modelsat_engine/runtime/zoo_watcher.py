"""Follows a zoo file: what it holds becomes the engine's zoo soon after it changes, by whatever means it changed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.aptitude.zoo import parse_zoo, read_zoo_bytes
from modelsat_engine.errors import ModelSatError, ProfileError, SchedulerError
from modelsat_engine.runtime.candidates import Candidates

POLL_S = 0.5
# A file system's clock may stand still for up to two seconds, so that a second change leaves no trace in the metadata:
# after one was seen, the content is compared for as long.
_LOOKS_AFTER_A_CHANGE = 5
_NICER_BY = 5  # a third of the processor time that a request's thread gets
_log = logging.getLogger(__name__)

_Stamp = tuple[int, ...]


def _let_requests_in() -> None:
    """Give the GIL to whoever waits for it; a sleep of nothing would take it back before they wake."""
    time.sleep(1e-6)


def _step_back() -> None:
    """Let requests go first where every processor is busy: to encode a thousand candidates takes a second."""
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER_BY)


class ZooFile:
    """A zoo file and what was last seen of it. Not thread-safe.

    It is asked for its metadata, not for events: those of the kernel do not tell of changes on network file systems,
    nor of a link somewhere along the path that now points elsewhere, which is how Kubernetes updates a mounted file.

    Args:
        path: of the file, or of a link to it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))  # the process may change its directory; links stay links
        self._stamp: _Stamp | None = None
        self._digest = b""
        self._looks = 0

    def load(self, breathe: Callable[[], object] = lambda: None) -> list[CapabilityProfile]:
        """What the file holds now.

        Args:
            breathe: as for :func:`parse_zoo`.

        Raises:
            ProfileError: as :func:`load_zoo`; a folder, a pipe, a device.
        """
        self._stamp, self._digest, self._looks = self._look(), b"", _LOOKS_AFTER_A_CHANGE
        if self._stamp is None and self.path.exists():
            raise ProfileError(f"cannot read the zoo {self.path}: it is no file")  # a pipe would hold the reader
        content = read_zoo_bytes(self.path)
        self._digest = hashlib.sha256(content).digest()
        return parse_zoo(content, self.path, breathe)

    def changed(self) -> bool:
        """Whether the file may hold something else than at the last :meth:`load`; a file that is gone does."""
        stamp = self._look()
        if stamp != self._stamp:
            return True
        if not self._looks or stamp is None:
            return False
        self._looks -= 1
        try:
            return hashlib.sha256(self.path.read_bytes()).digest() != self._digest
        except OSError:
            return self._digest != b""

    def _look(self) -> _Stamp | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ZooWatcher:
    """Looks at a zoo file twice a second, in a thread of its own, and hands what it holds to the engine's candidates.

    The thread ends with :meth:`stop`, and by itself when the engine is gone.

    Args:
        file: already loaded once.
        candidates: of the engine; they refuse changes that do not come from the file from now on.
    """

    def __init__(self, file: ZooFile, candidates: Candidates) -> None:
        candidates.followed = file.path
        self._file = file
        self._candidates = weakref.ref(candidates)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="modelsat-zoo-watcher", daemon=True)
        self._loads, self._failures = 1, 0
        self._error: str | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a change that is being made is finished first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll(self) -> None:
        """Look once. A file that cannot be used leaves the zoo as it was, and is logged once."""
        candidates = self._candidates()
        if candidates is None or not self._file.changed():
            return
        try:
            profiles = self._file.load(_let_requests_in)
            different = candidates.follow(profiles)
        except SchedulerError:  # the engine was closed meanwhile
            self._stop.set()
        except Exception as error:  # whatever it is: a watcher that dies in silence leaves an old zoo for ever
            self._failures += 1
            self._report(str(error) if isinstance(error, ModelSatError) else f"{type(error).__name__}: {error}")
        else:
            self._loads += 1
            if different or self._error is not None:
                _log.info("the zoo has %d candidates now, from %s", len(profiles), self._file.path)
            self._error = None

    def stats(self) -> dict[str, Any]:
        """The path, how often the file was loaded, how often it could not be used, and why it cannot now."""
        return {
            "path": str(self._file.path),
            "loads": self._loads,
            "failures": self._failures,
            "error": self._error,
        }

    def _report(self, reason: str) -> None:
        if reason != self._error:
            _log.warning("the zoo stays as it was: %s", reason)
        self._error = reason

    def _run(self) -> None:
        _step_back()
        while not self._stop.wait(POLL_S) and self._candidates() is not None:
            self.poll()
