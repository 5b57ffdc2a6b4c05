"""The parts a long job is saved in, so that a killed one goes on where it stopped.

Rows `i * part_rows + 1` to `(i + 1) * part_rows` of the input stand in part `i`. A part is there whole or not
at all; which parts are there is the whole state of the job. `manifest.json` pins what they were made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from modelsat_engine.commands.files.atomic import atomic_file, sync_folder, what_failed
from modelsat_engine.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LOCK = "lock"


class PartsFolder:
    """The folder `OUTPUT.parts` of one job; a context manager that holds the job's lock.

    Args:
        output: the file the parts will become.
        pinned: what the parts depend on, JSON-able, by name; a later run must pin the same.
        restart: forget the parts of an earlier run, whatever they were made from.

    Raises:
        DataError: another process works on it, the folder cannot be made, or an earlier run pinned something else.
    """

    def __init__(self, output: Path, pinned: Mapping[str, Any], *, restart: bool = False) -> None:
        self.output = output
        self.folder = folder_of(output)
        self._pinned = {"format_version": FORMAT_VERSION, **pinned}
        self._restart = restart
        self._lock: Any = None

    def __enter__(self) -> PartsFolder:
        try:
            self.folder.mkdir(exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise DataError(f"cannot write {self.folder}: {what_failed(error)}") from error
        try:
            if self._restart:
                self._forget()
            self._check_or_pin()
        except BaseException:
            self._release_lock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.any_there:
            self._release_lock()
        else:  # nothing was saved: leave nothing behind
            self._remove()

    def has(self, index: int) -> bool:
        """Whether an earlier run finished this part."""
        return self._path(index).exists()

    @property
    def any_there(self) -> bool:
        """Whether any part is there."""
        return any(self._parts())

    def write(self, index: int, write: Callable[[BinaryIO], None]) -> None:
        """Write one part; it is there once this returns, and it is there whole.

        Raises:
            DataError: the part cannot be written; the parts before it stay valid.
        """
        with atomic_file(self._path(index)) as file:
            write(file)

    def merge(self, count: int, join: Callable[[BinaryIO, list[Path]], None]) -> None:
        """Make the parts 0 to count - 1 the output file and remove the folder.

        Raises:
            DataError: the output cannot be written; all parts stay.
        """
        with atomic_file(self.output, scratch=self.folder) as file:
            join(file, [self._path(index) for index in range(count)])
        self._remove()

    def _path(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}{self.output.suffix.lower()}"

    def _parts(self) -> Iterator[Path]:
        return self.folder.glob("part-*")

    def _forget(self) -> None:
        try:
            for path in self._own_files():
                path.unlink()
        except OSError as error:
            raise DataError(f"cannot empty {self.folder}: {what_failed(error)}") from error

    def _own_files(self) -> list[Path]:
        """What this class wrote here; a file that somebody else put here is left alone."""
        return [*self._parts(), *self.folder.glob(MANIFEST), *self.folder.glob(".*.tmp")]

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            for path in self._own_files():
                path.unlink()
            (self.folder / LOCK).unlink(missing_ok=True)
            self._release_lock()
            self.folder.rmdir()
        self._release_lock()
        sync_folder(self.output.parent)

    def _check_or_pin(self) -> None:
        for left_over in self.folder.glob(".*.tmp"):  # of a run that was killed while it wrote
            left_over.unlink(missing_ok=True)
        path = self.folder / MANIFEST
        if not self.any_there:
            with atomic_file(path) as file:
                file.write(json.dumps(self._pinned, indent=2, sort_keys=True).encode() + b"\n")
            return
        try:
            earlier = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is missing or damaged ({error}); start over with --restart") from error
        if not isinstance(earlier, dict):
            raise DataError(f"{path} is damaged; start over with --restart")
        now = json.loads(json.dumps(self._pinned))
        changed = [name for name in sorted({*earlier, *now}) if earlier.get(name) != now.get(name)]
        if changed:
            raise DataError(
                f"{self.folder} was made from another {_listed(changed)}; "
                "start over with --restart, or run the same command again to continue"
            )

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once are not detected
            return
        self._lock = (self.folder / LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._release_lock()
            raise DataError(f"another run is writing {self.output}; wait for it or choose another output") from error

    def _release_lock(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None


def folder_of(output: Path) -> Path:
    """Where the parts of an output are kept: beside it, so that they can be renamed into place."""
    return output.with_name(output.name + ".parts")


def fingerprint(path: Path) -> dict[str, Any]:
    """{"bytes", "sha256"} of a file.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {what_failed(error)}") from error
    return {"bytes": size, "sha256": digest.hexdigest()}


def check_writable_folder(output: Path) -> None:
    """Say before hours of work that the output's folder is missing or read-only (DataError)."""
    folder = output.parent
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist; create it or choose another output")
    if output.is_dir():
        raise DataError(f"{output} is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise DataError(f"the folder {folder} is not writable; choose another output")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
