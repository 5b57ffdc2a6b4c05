"""The engine cache: one builder at a time, nothing half written, and clear words where nothing can be written."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from modelsat_engine.errors import ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.tensorrt.cache import EngineCache, building, find_built
from modelsat_engine.export.tensorrt.engine_file import write_engine
from modelsat_engine.user_files import CACHE_VARIABLE
from tests.export.tensorrt.identities import H100, identity_of
from tests.runtime.tiny_bundle import write_tiny_bundle

PLAN = bytes(range(256)) * 400
_SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_tiny_bundle(tmp_path / "bundle"))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def _build(folder: Path, bundle_path: Path, started: Event, go_on: Event, results: multiprocessing.Queue[str]) -> None:
    """What `modelsat export --to tensorrt` does around a build, with an event in the place of TensorRT."""
    identity = identity_of(Bundle.load(bundle_path))
    path = EngineCache(folder).path_for(identity)
    started.set()
    with building(path):
        if find_built(path, identity) is not None:
            results.put("found")
            return
        results.put("building")
        assert go_on.wait(60)
        write_engine(path, identity, PLAN, {})
        results.put("built")


def test_of_two_builders_one_builds_and_the_other_finds_it(bundle: Bundle, cache: EngineCache) -> None:
    assert cache.directory is not None
    go_on, results = _SPAWN.Event(), _SPAWN.Queue()
    started = [_SPAWN.Event(), _SPAWN.Event()]
    arguments = [(cache.directory, bundle.path, event, go_on, results) for event in started]
    builders = [_SPAWN.Process(target=_build, args=given) for given in arguments]
    for builder in builders:
        builder.start()
    for event in started:
        assert event.wait(60)
    assert results.get(timeout=60) == "building"
    go_on.set()
    assert [results.get(timeout=60), results.get(timeout=60)] == ["built", "found"]
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0


def _hold(path: Path, held: Event) -> None:
    with building(path):
        held.set()
        signal.pause()


def test_a_builder_that_hangs_is_waited_for_so_long_and_one_that_died_not_at_all(
    bundle: Bundle, cache: EngineCache
) -> None:
    path = cache.path_for(identity_of(bundle))
    held = _SPAWN.Event()
    other = _SPAWN.Process(target=_hold, args=(path, held))
    other.start()
    assert held.wait(60)
    waited = f"another process has been building {path.name} for 0.1 s"
    with pytest.raises(ExecutorError, match=waited), building(path, timeout_s=0.1):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join(60)
    with building(path, timeout_s=0.1):
        pass


def test_engines_are_found_by_identity_newest_first_and_damaged_ones_are_none(
    bundle: Bundle, cache: EngineCache
) -> None:
    identity, other = identity_of(bundle), identity_of(bundle, precision="bf16")
    assert cache.engines() == []
    for age, one in ((50, identity), (10, other)):
        path = cache.path_for(one)
        path.parent.mkdir(exist_ok=True)
        write_engine(path, one, PLAN, {})
        now = time.time()
        os.utime(path, (now - age, now - age))
    assert [engine.identity for engine in cache.engines()] == [other, identity]
    path = cache.path_for(identity)
    assert find_built(path, identity) is not None
    assert find_built(path, other) is None
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert find_built(path, identity) is None
    assert [engine.identity for engine in cache.engines()] == [other]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert find_built(path, identity) is None


def test_a_folder_that_cannot_be_made_is_known_before_the_build(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = EngineCache(tmp_path / "file" / "engines").path_for(identity_of(bundle))
    said = r"cannot write to .*: (Not a directory|File exists); make room there"
    with pytest.raises(ExecutorError, match=said), building(path):
        raise AssertionError("the build began")


def _in_a_read_only_folder(folder: Path, results: multiprocessing.Queue[str]) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        with building(folder / "x.engine"):
            results.put("the build began")
    except ExecutorError as error:
        results.put(str(error))


def test_a_read_only_folder_is_known_before_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    for parent in (*folder.parents,):
        if parent.is_relative_to(tmp_path.parent.parent):
            parent.chmod(0o755)
    folder.chmod(0o555)
    results = multiprocessing.get_context("fork").Queue()
    other = multiprocessing.get_context("fork").Process(target=_in_a_read_only_folder, args=(folder, results))
    other.start()
    said = results.get(timeout=60)
    other.join(60)
    assert said == (
        f"cannot write to {folder}: Permission denied; make room there, name another file with -o, or another folder "
        f"with {CACHE_VARIABLE}"
    )


def _on_a_full_disk(folder: Path, bundle_path: Path, results: multiprocessing.Queue[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    identity = identity_of(Bundle.load(bundle_path))
    path = EngineCache(folder).path_for(identity)
    with building(path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        try:
            write_engine(path, identity, PLAN, {})
        except ExecutorError as error:
            results.put(str(error))


def test_a_disk_that_fills_up_leaves_nothing_behind_but_what_was_there(bundle: Bundle, cache: EngineCache) -> None:
    assert cache.directory is not None
    cache.directory.mkdir()
    identity = identity_of(bundle)
    path = cache.path_for(identity)
    write_engine(path, identity, b"the old plan", {})
    results = _SPAWN.Queue()
    other = _SPAWN.Process(target=_on_a_full_disk, args=(cache.directory, bundle.path, results))
    other.start()
    said = results.get(timeout=60)
    other.join(60)
    assert said == f"cannot write {path}: File too large; make room there, or name another file with -o"
    found = find_built(path, identity)
    assert found is not None
    assert found.plan() == b"the old plan"
    assert sorted(file.name for file in cache.directory.iterdir()) == sorted([f".{path.name}.lock", path.name])


def test_timings_are_kept_for_each_device_and_version(cache: EngineCache) -> None:
    assert cache.read_timings(H100) == b""
    cache.write_timings(H100, b"fast")
    assert cache.read_timings(H100) == b"fast"
    assert cache.read_timings(type(H100)(H100.gpu, H100.compute_capability, "11.5.0.1")) == b""


def test_without_a_cache_an_engine_needs_a_file(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    cache = EngineCache()
    assert cache.engines() == []
    cache.write_timings(H100, b"fast")
    assert cache.read_timings(H100) == b""
    with pytest.raises(ExecutorError, match=f"{CACHE_VARIABLE} switches caches off.*name a file with -o"):
        cache.path_for(identity_of(bundle))
