"""Writing a file so that a reader sees the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modelsat_engine.errors import DataError


def what_failed(error: OSError) -> str:
    """The system's own words for an error ("No space left on device"), without number and path."""
    return error.strerror or str(error) or type(error).__name__


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable; file systems that cannot sync a folder are left as they are."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, scratch: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the file to write.
        scratch: the folder of the temporary file, on the same file system; default: the folder of `path`.

    Raises:
        DataError: the file cannot be created, written, made durable or renamed; the message names the reason.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=scratch or path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp gives 0600; an ordinary new file follows the umask, a replaced one keeps its mode
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"cannot write {path}: {what_failed(error)}") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
