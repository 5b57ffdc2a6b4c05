"""Candidates are encoded once a machine, and whatever is wrong with the cache is as good as none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime import capability_cache
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.capability_cache import CapabilityCache
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.user_files import cache_directory
from tests.runtime.tiny_bundle import tiny_profile, tiny_tokenizer

TOKENIZER = InstructionTokenizer(tiny_tokenizer(), 64)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSAT_CACHE", str(tmp_path / "cache"))


def entries(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def stats(encoded: int = 0, from_memory: int = 0, from_disk: int = 0) -> dict[str, int]:
    return {"encoded": encoded, "from_memory": from_memory, "from_disk": from_disk}


def test_another_process_finds_the_same_bits(bundle_of_any_memory: Bundle, tmp_path: Path) -> None:
    bundle = bundle_of_any_memory
    first, second = (CapabilityEncoder(bundle, TOKENIZER) for _ in range(2))
    computed, found = first.encode(bundle.zoo), second.encode(bundle.zoo)
    assert (first.stats(), second.stats()) == (stats(encoded=3), stats(from_disk=3))
    assert computed.inquiry_start.tobytes() == found.inquiry_start.tobytes()
    assert computed.memory is None or computed.memory.tobytes() == found.memory.tobytes()  # type: ignore[union-attr]
    assert second._session is None, "the graph need not even be opened"
    assert len(entries(tmp_path)) == 3, "no scratch file is left"


def test_a_new_name_or_price_is_no_new_capability_but_a_note_is(bundle: Bundle) -> None:
    CapabilityEncoder(bundle, TOKENIZER).encode(bundle.zoo)
    encoder = CapabilityEncoder(bundle, TOKENIZER)
    encoder.encode([replace(bundle.zoo[0], name="other", usd_per_million_tokens=9.0)])
    encoder.encode([replace(bundle.zoo[0], notes="prove")])
    assert encoder.stats() == stats(encoded=1, from_disk=1)


def test_routers_do_not_share_entries(bundle: Bundle) -> None:
    CapabilityEncoder(bundle, TOKENIZER).encode(bundle.zoo)
    encoder = CapabilityEncoder(replace(bundle, hash="sha256:other"), TOKENIZER)
    encoder.encode(bundle.zoo)
    assert encoder.stats() == stats(encoded=3)


def damaged(content: bytes) -> list[bytes]:
    flipped = bytearray(content)
    flipped[50] ^= 1
    return [b"", content[:-1], content + b"\0", bytes(flipped), bytes(len(content))]


@pytest.mark.parametrize("kind", range(5), ids=["empty", "cut", "longer", "one bit", "zeros"])
def test_a_damaged_entry_is_computed_again_and_repaired(bundle: Bundle, tmp_path: Path, kind: int) -> None:
    expected = CapabilityEncoder(bundle, TOKENIZER).encode(bundle.zoo[:1])
    (entry,) = entries(tmp_path)
    good = entry.read_bytes()
    entry.write_bytes(damaged(good)[kind])
    encoder = CapabilityEncoder(bundle, TOKENIZER)
    assert encoder.encode(bundle.zoo[:1]).inquiry_start.tobytes() == expected.inquiry_start.tobytes()
    assert encoder.stats() == stats(encoded=1)
    assert entry.read_bytes() == good


def test_an_entry_under_another_ones_name_is_computed_again(bundle: Bundle, tmp_path: Path) -> None:
    CapabilityEncoder(bundle, TOKENIZER).encode(bundle.zoo[:2])
    first, second = entries(tmp_path)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    encoder = CapabilityEncoder(bundle, TOKENIZER)
    encoder.encode(bundle.zoo[:2])
    assert encoder.stats() == stats(encoded=2)


def a_file(path: Path) -> None:
    path.write_text("in the way")


def a_folder_of_folders(path: Path) -> None:
    CapabilityCache("sha256:x", path / "modelsat-engine" / "capabilities").put(b"key", b"value")
    for entry in path.rglob("*"):
        if entry.is_file():
            entry.unlink()
            entry.mkdir()


def a_read_only_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o500)


@pytest.mark.parametrize("obstacle", [a_file, a_folder_of_folders, a_read_only_folder])
def test_a_place_that_cannot_be_written_is_no_error(bundle: Bundle, tmp_path: Path, obstacle: object) -> None:
    obstacle(tmp_path / "cache")  # type: ignore[operator]
    encoder = CapabilityEncoder(bundle, TOKENIZER)
    assert np.isfinite(encoder.encode(bundle.zoo).inquiry_start).all()
    assert encoder.stats() == stats(encoded=3)


def test_a_full_disk_is_no_error_and_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(capability_cache.os, "replace", full)
    CapabilityEncoder(bundle, TOKENIZER).encode(bundle.zoo)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("value", ["off", "OFF", "none", "0"])
def test_it_can_be_switched_off(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MODELSAT_CACHE", value)
    assert cache_directory("capabilities") is None
    for _ in range(2):
        encoder = CapabilityEncoder(bundle, TOKENIZER)
        encoder.encode(bundle.zoo)
        assert encoder.stats() == stats(encoded=3)
    assert entries(tmp_path) == []


def test_it_lies_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory("x") == tmp_path / "cache" / "modelsat-engine" / "x"
    monkeypatch.delenv("MODELSAT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("x") == tmp_path / "xdg" / "modelsat-engine" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory("x") == tmp_path / "home" / ".cache" / "modelsat-engine" / "x"


def test_it_is_bounded_and_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = CapabilityCache("sha256:x", tmp_path / "cache", max_bytes=8 * 4096)
    for index in range(8):
        cache.put(b"%d" % index, bytes(100))
    for age, path in enumerate(sorted(entries(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.get(b"0", 100) == bytes(100), "used again just now"
    cache.put(b"8", bytes(100))
    kept = [index for index in range(9) if cache.get(b"%d" % index, 100) is not None]
    assert len(kept) == 6
    assert {0, 8} <= set(kept)


def test_two_encoders_may_fill_it_together(bundle: Bundle) -> None:
    profiles = [tiny_profile(f"m{index}", index, bundle.aptitude_test) for index in range(17)]
    one, other = CapabilityEncoder(bundle, TOKENIZER), CapabilityEncoder(bundle, TOKENIZER)
    one.encode(profiles[:9])
    other.encode(profiles)
    one.encode(profiles)
    assert other.stats()["from_disk"] >= 9
    assert one.stats()["encoded"] == len({(tuple(p.correct.values()), p.notes) for p in profiles[:9]})
