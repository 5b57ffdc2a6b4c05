"""A bundle opens only when it is whole, unchanged, and of a format that this version reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.errors import BundleError
from modelsat_engine.export import bundle as bundle_module
from modelsat_engine.export.bundle import MANIFEST_FILES, MANIFEST_NAME, Bundle, write_manifest
from tests.runtime.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "sealed")


@pytest.fixture
def path(sealed: Path, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_whole_bundle_opens(path: Path) -> None:
    bundle = Bundle.load(str(path))
    assert bundle.path == path
    assert bundle.config["name"] == "tiny"
    assert [task.name for task in bundle.aptitude_test.tasks][:2] == ["algebra", "botany"]
    assert [profile.name for profile in bundle.zoo] == ["model-0", "model-1", "model-2"]
    assert bundle.file("router.onnx") == path / "router.onnx"
    assert bundle.label == f"tiny@{bundle.hash.removeprefix('sha256:')[:12]}"


def test_the_hash_follows_the_content_alone(path: Path, tmp_path: Path) -> None:
    before = Bundle.load(path).hash
    moved = Path(shutil.copytree(path, tmp_path / "elsewhere"))
    (moved / MANIFEST_NAME).write_text(json.dumps(json.loads((path / MANIFEST_NAME).read_text()), sort_keys=True))
    assert Bundle.load(moved).hash == before == write_manifest(path)
    edit(path / "router.json", lambda config: config.update(note="changed"))
    assert write_manifest(path) == Bundle.load(path).hash != before


@pytest.mark.parametrize("name", MANIFEST_FILES)
def test_a_missing_file_is_named(path: Path, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(BundleError, match=rf"lacks {name}"):
        Bundle.load(path)


@pytest.mark.parametrize("name", MANIFEST_FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_flipped_bit_names_its_file(path: Path, name: str, where: float) -> None:
    content = bytearray((path / name).read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} was changed after the bundle was written"):
        Bundle.load(path)


def test_a_truncated_file_names_both_sizes(path: Path) -> None:
    content = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(content[:-1])
    with pytest.raises(BundleError, match=rf"weights\.safetensors has {len(content) - 1} bytes.*says {len(content)}"):
        Bundle.load(path)


def test_files_that_the_manifest_does_not_list_are_ignored(path: Path) -> None:
    before = Bundle.load(path).hash
    (path / "NOTES.txt").write_text("mine")
    assert Bundle.load(path).hash == before


@pytest.mark.parametrize("name", [MANIFEST_NAME, "router.json"])
def test_a_newer_format_version_says_to_upgrade(path: Path, name: str) -> None:
    edit(path / name, lambda value: value.update(format_version=2))
    if name == "router.json":
        write_manifest(path)
    with pytest.raises(BundleError, match=rf"{name} has format version 2.*upgrade the package"):
        Bundle.load(path)


@pytest.mark.parametrize("version", [0, None, "1", True, 1.5])
def test_a_version_that_never_was_is_refused(path: Path, version: object) -> None:
    edit(path / MANIFEST_NAME, lambda value: value.update(format_version=version))
    with pytest.raises(BundleError, match="format version"):
        Bundle.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_named(path: Path, content: bytes) -> None:
    (path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError, match=MANIFEST_NAME):
        Bundle.load(path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (None, "lists no files"),
        ([], "lists no files"),
        ({}, r"does not list router\.json, weights"),
        ({name: {"sha256": 5, "bytes": 1} for name in MANIFEST_FILES}, "states no sha256"),
        (dict.fromkeys(MANIFEST_FILES, "abc"), "states no sha256"),
        ({name: {} for name in (*MANIFEST_FILES, "../outside")}, r"lacks \.\./outside"),
        ({name: {} for name in (*MANIFEST_FILES, "/etc/hostname")}, "lacks /etc/hostname"),
    ],
)
def test_a_manifest_that_vouches_for_nothing_is_refused(path: Path, files: object, says: str) -> None:
    edit(path / MANIFEST_NAME, lambda value: value.update(files=files))
    with pytest.raises(BundleError, match=says):
        Bundle.load(path)


def test_a_directory_without_a_manifest_or_no_directory_is_named(path: Path, tmp_path: Path) -> None:
    (path / MANIFEST_NAME).unlink()
    with pytest.raises(BundleError, match=f"lacks {MANIFEST_NAME}"):
        Bundle.load(path)
    with pytest.raises(BundleError, match=r"no bundle at .*nowhere"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle.load(path / "router.json")


def test_an_installation_without_the_shipped_router_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "SHIPPED_BUNDLE", tmp_path / "mini")
    with pytest.raises(BundleError, match=r"no shipped router.*reinstall"):
        Bundle.load()


def test_parts_of_two_routers_are_refused(path: Path) -> None:
    edit(path / "router.json", lambda config: config.update(aptitude_test_id="sha256:0123456789abcdef"))
    write_manifest(path)
    with pytest.raises(BundleError, match="trained on the aptitude test 'sha256:0123456789abcdef'"):
        Bundle.load(path)


def test_a_malformed_part_names_the_bundle_and_the_file(path: Path) -> None:
    (path / "zoo.json").write_text("{}")
    write_manifest(path)
    with pytest.raises(BundleError, match=r"zoo\.json is not a zoo"):
        Bundle.load(path)


def test_an_unfinished_bundle_cannot_be_sealed(path: Path) -> None:
    (path / "capability.onnx").unlink()
    with pytest.raises(BundleError, match=r"cannot seal.*capability\.onnx is missing"):
        write_manifest(path)


def test_an_unknown_file_is_an_error(path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no file model\.plan"):
        Bundle.load(path).file("model.plan")
