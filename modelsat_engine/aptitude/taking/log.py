"""The log of a run: every question and answer on a line of its own, appended at once, so that nothing is asked twice.

The first line is the header: the model, the test and the protocol that the answers belong to. A run with other
settings is refused. Every other line is an answer, or a failure (a question that brought none and is asked again).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from modelsat_engine.errors import DataError

FORMAT_VERSION = 1
SYNC_AFTER_S = 2.0
HEADER, ANSWER, FAILURE = "header", "answer", "failure"


class AnswerLog:
    """An append-only jsonl file, a context manager that holds its lock.

    Args:
        path: the file; a missing or empty one is started.
        pinned: what the answers depend on, JSON-able, by the name that a user knows it by.
        notes: more for the header of a new log; not compared. After opening, :attr:`header` holds what is there.
        restart: begin anew, whatever the file holds.

    Raises:
        DataError: not writable, in use by another run, damaged, or made with other settings.
    """

    def __init__(
        self, path: Path, pinned: Mapping[str, Any], notes: Mapping[str, Any], *, restart: bool = False
    ) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self.header: dict[str, Any] = {}
        self._pinned: dict[str, Any] = json.loads(json.dumps(pinned))
        self._notes = dict(notes)
        self._restart = restart
        self._descriptor: int | None = None
        self._size = 0
        self._created = False
        self._synced_s = time.monotonic()

    def __enter__(self) -> AnswerLog:
        try:
            self._created = not self.path.exists()
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._take_lock()
            if self._restart:
                os.ftruncate(self._descriptor, 0)
            self._load()
        except OSError as error:
            self.close()
            raise DataError(f"cannot write the log {self.path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            self._sync()
        if self._created and not self.records:  # nothing was learnt: leave nothing behind
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the file and its lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def answers(self) -> Iterator[dict[str, Any]]:
        """The answers that are there, in the order they came."""
        return (record for record in self.records if record["kind"] == ANSWER)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record; once this returns, a kill of the process cannot lose it.

        The disk is synchronised by the first record after every :data:`SYNC_AFTER_S`, and at the end.

        Raises:
            DataError: the disk is full or fails; the records before it stay valid.
        """
        self._write(record)
        self.records.append(dict(record))
        if time.monotonic() - self._synced_s > SYNC_AFTER_S:
            self._sync()

    def _sync(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):  # a file system that cannot do it is no reason to lose a run
            os.fsync(self._descriptor)
        self._synced_s = time.monotonic()

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._descriptor is not None
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)  # no half line stays behind
            raise DataError(
                f"cannot write the log {self.path}: {error.strerror or error}; what it holds is kept, make room and "
                "run the same command again"
            ) from error
        self._size += len(line)

    def _load(self) -> None:
        assert self._descriptor is not None
        content = self._whole()
        kept = content.rfind(b"\n") + 1
        if kept < len(content):
            if not kept and not b'{"kind": "header"'.startswith(content[:17]):
                raise DataError(f"{self.path} is no log of an aptitude run; choose another file with --log")
            os.ftruncate(self._descriptor, kept)  # a line that was being written when the run was killed
        self._size = kept
        if not kept:
            header = {"kind": HEADER, "format_version": FORMAT_VERSION, "pinned": self._pinned, **self._notes}
            self._write(header)
            self.header = header
            return
        records = [self._parsed(number, line) for number, line in enumerate(content[:kept].splitlines(), start=1)]
        self._check(records[0])
        self.header, self.records = records[0], records[1:]

    def _whole(self) -> bytes:
        assert self._descriptor is not None
        blocks = []
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while block := os.read(self._descriptor, 1 << 20):
            blocks.append(block)
        return b"".join(blocks)

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._damaged(number, str(error)) from error
        if not isinstance(record, dict) or record.get("kind") not in (HEADER, ANSWER, FAILURE):
            raise self._damaged(number, "no record of a run")
        if record["kind"] != HEADER and not (isinstance(record.get("id"), str) and _is_count(record.get("rotation"))):
            raise self._damaged(number, "no id or rotation")
        if record["kind"] == ANSWER and not isinstance(record.get("correct"), bool):
            raise self._damaged(number, "no grade")
        return record

    def _damaged(self, number: int, why: str) -> DataError:
        if number == 1:
            return DataError(f"{self.path} is no log of an aptitude run ({why}); choose another file with --log")
        return DataError(
            f"{self.path}, line {number} is damaged ({why}); remove that line to ask its question again, or start "
            "over with --restart"
        )

    def _check(self, header: dict[str, Any]) -> None:
        if header["kind"] != HEADER or not isinstance(header.get("pinned"), dict):
            raise DataError(f"{self.path} is no log of an aptitude run; choose another file with --log")
        if header.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{self.path} has format version {header.get('format_version')!r}, this version reads "
                f"{FORMAT_VERSION}; install the version that wrote it, or name another file with --log"
            )
        earlier, now = _flat(header["pinned"]), _flat(self._pinned)
        changed = [name for name in sorted({*earlier, *now}) if earlier.get(name) != now.get(name)]
        if changed:
            was = ", ".join(f"{name} {_shown(earlier.get(name))}, not {_shown(now.get(name))}" for name in changed[:3])
            raise DataError(
                f"{self.path} was made with another setting ({was}): answers of two settings are not one profile. "
                "Use the same settings to go on, another --log, or --restart to forget its answers"
            )

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once are not detected
            return
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another run is writing {self.path}; wait for it, or choose another file with --log"
            ) from error


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _flat(pinned: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in pinned.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _shown(value: Any, most: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 3] + "..."
