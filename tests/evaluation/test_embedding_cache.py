"""Embeddings on disk: computed once, equal after, bounded in size, and no harm when the disk is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.evaluation import embedding_cache
from modelsat_engine.evaluation.embedding_cache import cache_directory, cached_embeddings, prune, trunk_key
from modelsat_engine.export.bundle import Bundle, write_manifest
from tests.runtime.tiny_bundle import write_tiny_bundle

SIZE = 7


class Embedder:
    """Embeds a text as numbers of its length, and counts the texts it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, bundle: Bundle, texts: list[str], threads: object = None, progress: object = None) -> np.ndarray:
        self.seen += texts
        if callable(progress):
            progress(1.0)
        return np.array([[len(text) + d / 10 for d in range(SIZE)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def test_a_text_is_embedded_once(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "TEXTS_PER_PART", 5)
    texts = [f"{'x' * (number * 7 % 11)} {number}" for number in range(17)]
    embed, shares = Embedder(), []
    first = cached_embeddings(
        bundle, [*texts, texts[3]], directory=tmp_path, embed=embed, progress=lambda share: shares.append(share)
    )
    assert sorted(embed.seen) == sorted(texts), "a text that occurs twice is embedded once"
    assert [row[0] for row in first] == [len(text) for text in [*texts, texts[3]]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    again = Embedder()
    second = cached_embeddings(bundle, [texts[16], *texts[:4], "a new one"], directory=tmp_path, embed=again)
    assert again.seen == ["a new one"]
    np.testing.assert_array_equal(second[:-1], first[[16, 0, 1, 2, 3]])
    assert second.dtype == np.float32


def test_no_text_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    cached_embeddings(bundle, ["a secret instruction"], directory=tmp_path, embed=Embedder())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert b"secret" not in files[0].read_bytes()


def test_an_interrupted_run_keeps_what_it_had(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "TEXTS_PER_PART", 4)
    texts = [f"text {number}" for number in range(10, 22)]
    embed = Embedder()

    def third_part_fails(bundle: Bundle, part: list[str], **options: object) -> np.ndarray:
        if len(embed.seen) >= 8:
            raise KeyboardInterrupt
        return embed(bundle, part)

    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(bundle, texts, directory=tmp_path, embed=third_part_fails)
    rest = Embedder()
    cached_embeddings(bundle, texts, directory=tmp_path, embed=rest)
    assert len(rest.seen) == 4


def test_the_key_follows_the_trunk_and_not_the_record_of_its_quality(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    before = Bundle.load(path)
    config = json.loads((path / "router.json").read_text())
    (path / "router.json").write_text(json.dumps({**config, "quality": {"auc": 0.7}}))
    write_manifest(path)
    measured = Bundle.load(path)
    assert measured.hash != before.hash
    assert trunk_key(measured) == trunk_key(before)
    config["tokenizer"]["max_instruction_tokens"] -= 1
    (path / "router.json").write_text(json.dumps(config))
    write_manifest(path)
    assert trunk_key(Bundle.load(path)) != trunk_key(before)


def test_the_oldest_trunks_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.npz").write_bytes(b"0" * 1000)
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    prune(tmp_path, keep=tmp_path / "newest", max_bytes=2500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "newest"]
    prune(tmp_path, keep=tmp_path / "middle", max_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["middle"], "what is in use stays, however large"
    prune(tmp_path / "nowhere", keep=tmp_path)


def test_a_broken_cache_is_as_good_as_none(bundle: Bundle, tmp_path: Path) -> None:
    texts = ["one", "another"]
    whole = cached_embeddings(bundle, texts, directory=tmp_path, embed=Embedder())
    part = next(tmp_path.rglob("*.npz"))
    part.write_bytes(part.read_bytes()[:-40])
    embed = Embedder()
    np.testing.assert_array_equal(cached_embeddings(bundle, texts, directory=tmp_path, embed=embed), whole)
    assert len(embed.seen) == 2
    (tmp_path / "file").write_text("no directory")
    for _ in range(2):
        embed = Embedder()
        np.testing.assert_array_equal(
            cached_embeddings(bundle, texts, directory=tmp_path / "file" / "below", embed=embed), whole
        )
        assert len(embed.seen) == 2


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MODELSAT_CACHE", raising=False)
    assert cache_directory() == tmp_path / "xdg" / "modelsat-engine" / "embeddings"
    monkeypatch.setenv("MODELSAT_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own" / "modelsat-engine" / "embeddings"
    monkeypatch.setenv("MODELSAT_CACHE", "off")
    assert cache_directory() is None


def test_switched_off_it_keeps_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSAT_CACHE", "off")
    for _ in range(2):
        embed = Embedder()
        assert len(cached_embeddings(bundle, ["one", "another"], embed=embed)) == 2
        assert len(embed.seen) == 2
