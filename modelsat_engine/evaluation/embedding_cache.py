"""Keeps instruction embeddings on disk, so that measuring a router a second time costs no embedding.

Embedding twelve thousand training questions for the nearest-neighbour baselines is most of an evaluation's work, and
depends on nothing but the texts and the trunk. Files hold digests and vectors, no text:

    <cache>/modelsat-engine/embeddings/<trunk>/<part>.npz      digest uint8 [n, 16], embedding float32 [n, D]

``<cache>`` is MODELSAT_CACHE (``off`` for none), else XDG_CACHE_HOME, else ``~/.cache``. Folders of the trunks used
longest ago go first when all of them together exceed MAX_BYTES. A cache that cannot be read or written is as good as
none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from modelsat_engine import user_files
from modelsat_engine.evaluation.router import Share, instruction_embeddings
from modelsat_engine.export.bundle import Bundle

MAX_BYTES = 256 * 2**20
TEXTS_PER_PART = 1024  # saved at least this often: an interrupted run loses minutes, not all
_EMBEDDING_FILES = ("weights.safetensors", "router.onnx", "tokenizer.json")


def cached_embeddings(
    bundle: Bundle,
    texts: Sequence[str],
    threads: int | None = None,
    progress: Share | None = None,
    directory: Path | None = None,
    embed: Callable[..., np.ndarray] = instruction_embeddings,
) -> np.ndarray:
    """:func:`instruction_embeddings` of all texts, computing only those that no earlier call has left on disk.

    Args:
        texts: N instructions.
        threads, progress: as :func:`instruction_embeddings`; progress is over the texts that are computed.
        directory: where embeddings are kept; default :func:`cache_directory`.
        embed: what computes them.

    Returns:
        float32 ``[N, D]``.

    Raises:
        BundleError: router.onnx has no output ``instruction_embedding``.
    """
    root = cache_directory() if directory is None else directory
    if root is None:
        return embed(bundle, texts, threads=threads, progress=progress)
    folder = root / trunk_key(bundle)
    digests = [hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()[:16] for text in texts]
    known = _read(folder)
    text_of = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
    # Like lengths stand together, so that a part's batches have little padding.
    missing = sorted(text_of, key=lambda digest: (len(text_of[digest]), digest))
    for start in range(0, len(missing), TEXTS_PER_PART):
        part = missing[start : start + TEXTS_PER_PART]

        def report(share: float, start: int = start, size: int = len(part)) -> None:
            if progress is not None:
                progress((start + share * size) / len(missing))

        rows = embed(bundle, [text_of[digest] for digest in part], threads=threads, progress=report)
        known.update(zip(part, rows, strict=True))
        _write(folder, part, rows)
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)
        prune(root, keep=folder)
    if progress is not None:
        progress(1.0)
    return np.stack([known[digest] for digest in digests]).astype(np.float32, copy=False)


def cache_directory() -> Path | None:
    """Where embeddings are kept for this user; it need not exist. None when nothing is kept."""
    return user_files.cache_directory("embeddings")


def trunk_key(bundle: Bundle) -> str:
    """A name that bundles share if and only if they embed alike: over weights, graph, tokenizer and length limit.

    Not the bundle's hash: recording a measured quality in router.json changes that.
    """
    manifest = json.loads((bundle.path / "MANIFEST.json").read_text(encoding="utf-8"))
    parts = [manifest["files"][name]["sha256"] for name in _EMBEDDING_FILES]
    parts.append(str(bundle.config["tokenizer"]["max_instruction_tokens"]))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]


def prune(root: Path, keep: Path, max_bytes: int = MAX_BYTES) -> None:
    """Delete the folders used longest ago, never ``keep``, until the rest holds at most ``max_bytes``."""
    try:
        folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        size = {path: sum(file.stat().st_size for file in path.iterdir()) for path in folders}
    except OSError:
        return  # another process is pruning
    for path in folders:
        if sum(size.values()) <= max_bytes:
            break
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)
            del size[path]


def _read(folder: Path) -> dict[bytes, np.ndarray]:
    """Digest -> embedding, of every part that is whole."""
    known: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as archive:
                digests, rows = archive["digest"], archive["embedding"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        known.update((digest.tobytes(), row) for digest, row in zip(digests, rows, strict=True))
    return known


def _write(folder: Path, digests: list[bytes], rows: np.ndarray) -> None:
    name = hashlib.sha256(b"".join(digests)).hexdigest()[:24]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=folder, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, digest=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16), embedding=rows)
            os.replace(scratch, folder / f"{name}.npz")
        except OSError:
            Path(scratch).unlink(missing_ok=True)
