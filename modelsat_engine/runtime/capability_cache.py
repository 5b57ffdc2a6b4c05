"""Keeps encoded candidates on disk, so that a candidate is encoded once a machine and not once a process.

    <cache>/modelsat-engine/capabilities/<router>/<capability>        sha256, 32 bytes; then float32 arrays

The name of the folder stands for the bundle and the version of ONNX Runtime, whose last bits may differ; the name of a
file for all that the encoder reads of a profile. The sum is over both and the content, so that a file which is damaged,
cut short, or lies under another's name is computed again. Anything that fails here is as good as no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modelsat_engine.user_files import cache_directory

MAX_BYTES = 64 * 2**20
_BLOCK_BYTES = 4096  # what a small file takes on a disk
_SUM_BYTES = 32


class CapabilityCache:
    """Files of one router, by capability. Its owner locks; other processes may use the same folder.

    Args:
        bundle_hash: :attr:`Bundle.hash`.
        directory: where all routers' folders lie; None: :func:`cache_directory`, which may say that nothing is kept.
        max_bytes: of all routers together; beyond it the files used longest ago go.
    """

    def __init__(self, bundle_hash: str, directory: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._root = cache_directory("capabilities") if directory is None else directory
        self._router = hashlib.sha256(f"{bundle_hash} onnxruntime {_version_of('onnxruntime')}".encode()).digest()
        self._max_bytes = max_bytes
        self._bytes: int | None = None  # of the whole cache; not known before the first write

    @property
    def directory(self) -> Path | None:
        """The folder of this router, or None when nothing is kept."""
        return None if self._root is None else self._root / self._router.hex()[:24]

    def get(self, key: bytes, size: int) -> bytes | None:
        """The ``size`` bytes that :meth:`put` left under ``key``, or None."""
        path = self._path(key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        payload = content[_SUM_BYTES:]
        if len(payload) != size or content[:_SUM_BYTES] != self._sum(key, payload):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def put(self, key: bytes, payload: bytes) -> None:
        """Keep ``payload`` under ``key``, whole or not at all; what cannot be kept is forgotten in silence."""
        path = self._path(key)
        if path is None:
            return
        scratch = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(scratch, "xb") as file:
                file.write(self._sum(key, payload) + payload)
            os.replace(scratch, path)  # not synchronised: after a power cut the sum tells
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink()
            return
        if self._bytes is not None:
            self._bytes += _on_disk(_SUM_BYTES + len(payload))
        if self._bytes is None or self._bytes > self._max_bytes:
            self._prune()

    def _path(self, key: bytes) -> Path | None:
        folder = self.directory
        return None if folder is None else folder / hashlib.sha256(key).hexdigest()[:40]

    def _sum(self, key: bytes, payload: bytes) -> bytes:
        return hashlib.sha256(self._router + hashlib.sha256(key).digest() + payload).digest()

    def _prune(self) -> None:
        """Count the files; if they are too many, delete those used longest ago until a quarter is free."""
        assert self._root is not None
        files: list[tuple[float, int, Path]] = []
        for folder, _, names in os.walk(self._root):
            for name in names:
                with contextlib.suppress(OSError):  # another process prunes too
                    path = Path(folder, name)
                    found = path.stat()
                    files.append((found.st_mtime, _on_disk(found.st_size), path))
        self._bytes = sum(size for _, size, _ in files)
        if self._bytes <= self._max_bytes:
            return
        for _, size, path in sorted(files):
            if self._bytes <= 3 * self._max_bytes // 4:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            self._bytes -= size


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "?"
