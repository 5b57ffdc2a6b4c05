"""Where built engines are kept: one file for each identity, one timing cache for each device, one builder at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from modelsat_engine.aptitude.files import locked
from modelsat_engine.commands.files.atomic import atomic_file
from modelsat_engine.errors import DataError, ExecutorError
from modelsat_engine.export.tensorrt.engine_file import SUFFIX, Device, EngineFile, EngineIdentity
from modelsat_engine.user_files import CACHE_VARIABLE, cache_directory

#: A build takes minutes; whoever waits this long waits for something that hangs.
LOCK_TIMEOUT_S = 3600.0
_ELSEWHERE = f"make room there, name another file with -o, or another folder with {CACHE_VARIABLE}"


class EngineCache:
    """A folder of engine files.

    Args:
        directory: the folder, made when something is first written; by default the user's own,
            ``~/.cache/modelsat-engine/tensorrt`` or where ``MODELSAT_CACHE`` points. Where that switches caches off,
            nothing is kept.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory if directory is not None else cache_directory("tensorrt")

    def path_for(self, identity: EngineIdentity) -> Path:
        """Where the engine of an identity lies; it need not exist.

        Raises:
            ExecutorError: caches are switched off.
        """
        if self.directory is None:
            raise ExecutorError(f"{CACHE_VARIABLE} switches caches off, so no engine is kept; name a file with -o")
        return self.directory / f"{identity.key}{SUFFIX}"

    def engines(self) -> list[EngineFile]:
        """Every engine of the folder whose header can be read, the newest first."""
        found = []
        for path in () if self.directory is None else self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(ExecutorError, OSError):
                found.append((path.stat().st_mtime, EngineFile.open(path)))
        return [engine for _, engine in sorted(found, key=lambda pair: (-pair[0], str(pair[1].path)))]

    def read_timings(self, device: Device) -> bytes:
        """What earlier builds on a device measured, empty at first."""
        path = self._timings(device)
        try:
            return b"" if path is None else path.read_bytes()
        except OSError:
            return b""

    def write_timings(self, device: Device, timings: bytes) -> None:
        """Keep what a build measured, where caches are kept.

        Raises:
            ExecutorError: the folder cannot be written, or the disk is full.
        """
        path = self._timings(device)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                file.write(timings)
        except (DataError, OSError) as error:
            raise ExecutorError(f"{error}; {_ELSEWHERE}") from error

    def _timings(self, device: Device) -> Path | None:
        if self.directory is None:
            return None
        name = "-".join((device.gpu, device.compute_capability, device.tensorrt))
        return self.directory / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.timings"


@contextlib.contextmanager
def building(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Be the only process that builds the engine at `path`; a second one waits, and finds it built.

    Raises:
        ExecutorError: the folder cannot be made or written, or another process has been building for too long.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path, timeout_s))
        except TimeoutError:
            raise ExecutorError(
                f"another process has been building {path.name} for {timeout_s:g} s; wait for it, or end it"
            ) from None
        except OSError as error:
            raise ExecutorError(f"cannot write to {path.parent}: {error.strerror}; {_ELSEWHERE}") from error
        _check_writable(path)  # before a build of minutes, not after it
        yield


def find_built(path: Path, identity: EngineIdentity) -> EngineFile | None:
    """The engine of an identity at a path, or None; a damaged one counts as none."""
    try:
        found = EngineFile.open(path)
        found.plan()
    except ExecutorError:
        return None
    return found if found.identity == identity else None


def _check_writable(path: Path) -> None:
    probe = path.with_name(f".{path.name}.probe")
    try:
        with atomic_file(probe) as file:
            file.write(b"0")
    except DataError as error:
        raise ExecutorError(f"{error}; {_ELSEWHERE}") from error
    probe.unlink(missing_ok=True)
