"""The router bundle: one directory that holds everything a router is, checked file by file when it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile, load_zoo
from modelsat_engine.aptitude.files import sha256_hex, write_json
from modelsat_engine.errors import BundleError, DataError, ProfileError

FORMAT_VERSION = 1
MANIFEST_NAME = "MANIFEST.json"
#: What a complete bundle holds beside its manifest.
MANIFEST_FILES = (
    "router.json",
    "weights.safetensors",
    "tokenizer.json",
    "router.onnx",
    "capability.onnx",
    "aptitude.json",
    "zoo.json",
)
SHIPPED_BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "mini"

_UPGRADE = "upgrade the package: pip install --upgrade modelsat-engine"
_RESTORE = "copy or download the bundle again"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle whose every listed file has the checksum that its manifest states.

    Attributes:
        path: the directory.
        config: content of ``router.json``: layout, trunk, inject_at, memory_rows, views, tokenizer limits,
            calibration, provenance.
        aptitude_test: the test that profiles of this router's candidates must be graded on.
        zoo: the bundle's own candidates, in file order.
        hash: ``sha256:`` and 64 hexadecimal digits over the canonical manifest; equal bundles have equal hashes,
            wherever they lie.
    """

    path: Path
    config: Mapping[str, Any]
    aptitude_test: AptitudeTest
    zoo: tuple[CapabilityProfile, ...]
    hash: str

    @classmethod
    def load(cls, path: str | Path | None = None) -> Bundle:
        """Open a bundle and check it.

        Files that the manifest does not list are ignored, so that a bundle may carry notes of its own.

        Args:
            path: the directory; None opens the router that ships with this package.

        Raises:
            BundleError: no such directory, a missing or changed file (the message names it), a format version
                that this package does not read, or parts that do not belong together.
        """
        directory = SHIPPED_BUNDLE if path is None else Path(path)
        if not directory.is_dir():
            if path is None:
                raise BundleError(
                    f"this installation has no shipped router ({directory} is missing): reinstall modelsat-engine, "
                    "or name a bundle directory"
                )
            raise BundleError(f"no bundle at {directory}: need a directory that holds {MANIFEST_NAME}")
        manifest = _read_object(directory / MANIFEST_NAME)
        _check_version(manifest, directory / MANIFEST_NAME)
        _check_files(directory, manifest)
        config = _read_object(directory / "router.json")
        _check_version(config, directory / "router.json")
        try:
            aptitude_test = AptitudeTest.load(directory / "aptitude.json")
            zoo = tuple(load_zoo(directory / "zoo.json"))
        except (DataError, ProfileError) as error:
            raise BundleError(f"bundle {directory}: {error}") from error
        if config.get("aptitude_test_id") != aptitude_test.id:
            raise BundleError(
                f"bundle {directory}: router.json was trained on the aptitude test "
                f"{config.get('aptitude_test_id')!r}, but aptitude.json is {aptitude_test.id}; export the bundle again"
            )
        return cls(directory, config, aptitude_test, zoo, "sha256:" + sha256_hex(manifest))

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files.

        Raises:
            BundleError: the bundle has no such file.
        """
        path = self.path / name
        if not path.is_file():
            raise BundleError(f"bundle {self.path} has no file {name}; {_RESTORE}")
        return path

    @property
    def label(self) -> str:
        """Name and short hash, as decisions carry them: ``mini@1f2e3d4c5b6a``."""
        return f"{self.config.get('name', self.path.name)}@{self.hash.removeprefix('sha256:')[:12]}"


def write_manifest(directory: str | Path) -> str:
    """Write ``MANIFEST.json`` over the files of a finished bundle, whole or not at all.

    Returns:
        The bundle's hash, as :attr:`Bundle.hash`.

    Raises:
        BundleError: a file of :data:`MANIFEST_FILES` is missing, or the directory cannot be written.
    """
    root = Path(directory)
    files: dict[str, dict[str, str | int]] = {}
    for name in MANIFEST_FILES:
        path = root / name
        if not path.is_file():
            raise BundleError(f"cannot seal the bundle {root}: {name} is missing; write it first")
        files[name] = {"sha256": _sha256_of(path), "bytes": path.stat().st_size}
    manifest = {"format_version": FORMAT_VERSION, "files": files}
    try:
        write_json(root / MANIFEST_NAME, manifest)
    except OSError as error:
        raise BundleError(f"cannot write {root / MANIFEST_NAME}: {error.strerror}") from error
    return "sha256:" + sha256_hex(manifest)


def _check_version(value: Mapping[str, Any], path: Path) -> None:
    version = value.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(f"{path} has format version {version}, this version reads up to {FORMAT_VERSION}; {_UPGRADE}")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise BundleError(f"{path} has format version {version!r}, need {FORMAT_VERSION}; export the bundle again")


def _check_files(directory: Path, manifest: Mapping[str, Any]) -> None:
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise BundleError(f"{directory / MANIFEST_NAME} lists no files; {_RESTORE}")
    unlisted = [name for name in MANIFEST_FILES if name not in listed]
    if unlisted:
        raise BundleError(f"{directory / MANIFEST_NAME} does not list {', '.join(unlisted)}; {_RESTORE}")
    missing = [name for name in listed if name != Path(name).name or not (directory / name).is_file()]
    if missing:
        raise BundleError(f"bundle {directory} lacks {', '.join(missing)}; {_RESTORE}")
    for name, entry in listed.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            raise BundleError(f"{directory / MANIFEST_NAME} states no sha256 for {name}; {_RESTORE}")
        size = (directory / name).stat().st_size
        if size != entry.get("bytes"):
            raise BundleError(
                f"{directory / name} has {size} bytes, its manifest says {entry.get('bytes')}; {_RESTORE}"
            )
        if _sha256_of(directory / name) != entry["sha256"]:
            raise BundleError(f"{directory / name} was changed after the bundle was written (sha256); {_RESTORE}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"bundle {path.parent} lacks {path.name}; {_RESTORE}") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not a JSON file ({error}); {_RESTORE}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} must hold a JSON object; {_RESTORE}")
    return value


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()
