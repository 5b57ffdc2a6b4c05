"""Small JSON files, written whole or not at all, and the lock of those that several processes change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.02


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that hashes are taken over: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON cannot spell.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="surrogatepass")


def sha256_hex(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON; a reader sees the old file or the new one, never a part.

    A link is followed, so that the file it points to is replaced and the link stays. The permissions of an
    existing file are kept.

    Raises:
        OSError: the directory cannot be written, or the disk is full; the old file is then untouched.
    """
    target = Path(os.path.realpath(path))
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # without it the new name may be lost in a power cut
    finally:
        os.close(directory)


@contextlib.contextmanager
def locked(path: str | Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Be the only one, of all threads and processes that ask, who changes the file at ``path``.

    The lock is on ``.<name>.lock`` beside the file (beside the file that a link points to), and stays there empty:
    whoever deleted it could take it away from under somebody who waits. The system gives it up when its holder ends,
    however it ends.

    Raises:
        TimeoutError: somebody else held it for ``timeout_s``.
        OSError: the lock file cannot be made, as in a directory that is missing or read-only.
    """
    import fcntl

    target = Path(os.path.realpath(path))
    file = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"somebody else has been changing it for {timeout_s:g} s") from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(file)
