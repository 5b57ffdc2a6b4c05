"""A watched zoo file: what it holds becomes the zoo, whatever is wrong with it leaves the zoo as it was."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelsat_engine.aptitude import CapabilityProfile, edit_zoo, load_zoo, save_zoo
from modelsat_engine.errors import CandidateError, OptionError, ProfileError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime import zoo_watcher
from modelsat_engine.runtime.engine import Engine
from modelsat_engine.runtime.zoo_watcher import ZooWatcher
from tests.runtime.tiny_bundle import tiny_profile

TIMEOUT_S = 60.0  # only reached by a failure


class Watched:
    """An engine on a zoo file that looks when it is told to."""

    def __init__(self, bundle: Bundle, path: Path) -> None:
        self.path = path
        self.engine = Engine.load(bundle, zoo=path, watch=True)
        assert self.engine._watcher is not None
        self.watcher: ZooWatcher = self.engine._watcher

    @property
    def names(self) -> tuple[str, ...]:
        return self.engine.candidates.names

    @property
    def version(self) -> int:
        return self.engine.candidates.table.version

    def encoded(self) -> int:
        return sum(self.engine.stats()["capabilities"].values())

    def state(self) -> tuple[int, int, bool]:
        """Loads, failures, and whether the file is in order."""
        found = self.watcher.stats()
        return found["loads"], found["failures"], found["error"] is None


@pytest.fixture
def profiles(bundle: Bundle) -> list[CapabilityProfile]:
    return [tiny_profile(f"m{index}", index, bundle.aptitude_test) for index in range(7)]


@pytest.fixture
def watched(
    bundle: Bundle, profiles: list[CapabilityProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    monkeypatch.setattr(zoo_watcher, "POLL_S", 3600.0)  # the thread stays out of the way
    path = tmp_path / "zoo.json"
    save_zoo(path, profiles[:3])
    found = Watched(bundle, path)
    yield found
    found.engine.close()


def test_only_the_difference_is_encoded_and_it_comes_in_one_step(
    watched: Watched, profiles: list[CapabilityProfile]
) -> None:
    assert watched.encoded() == 3
    before = watched.engine.score(["prove that"])
    with edit_zoo(watched.path) as zoo:
        del zoo["m1"]
        zoo["m0"] = replace(profiles[0], usd_per_million_tokens=9.0)
        zoo["m2"] = replace(profiles[2], notes="square root")
        zoo["m5"] = profiles[5]
    assert watched.names == ("m0", "m1", "m2")
    watched.watcher.poll()
    assert watched.names == ("m0", "m2", "m5")
    assert watched.version == 1
    assert watched.encoded() == 3 + 2, "a new price is not a new capability"
    assert watched.engine.candidates["m0"].usd_per_million_tokens == 9.0
    after = watched.engine.score(["prove that"])
    assert after[0, 0] == before[0, 0]
    assert after[0, 1] != before[0, 2]


def test_an_untouched_or_rewritten_file_changes_nothing(watched: Watched) -> None:
    for _ in range(9):
        watched.watcher.poll()
    assert watched.state() == (1, 0, True)
    watched.path.write_bytes(watched.path.read_bytes())
    watched.watcher.poll()
    assert watched.state() == (2, 0, True)
    assert watched.version == 0


def cut(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def delete(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.unlink()


def replace_by_a_folder(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_pipe(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.unlink()
    os.mkfifo(path)


def name_one_twice(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.write_text(path.read_text().replace('"m1"', '"m0"'))


def bring_another_test(path: Path, profiles: list[CapabilityProfile]) -> None:
    save_zoo(path, [replace(profiles[0], test_id="sha256:0000000000000000")])


def bring_another_version(path: Path, profiles: list[CapabilityProfile]) -> None:
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))


@pytest.mark.parametrize(
    "damage",
    [cut, delete, replace_by_a_folder, replace_by_a_pipe, name_one_twice, bring_another_test, bring_another_version],
)
def test_a_file_that_cannot_be_used_keeps_the_last_good_zoo(
    watched: Watched,
    profiles: list[CapabilityProfile],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path, list[CapabilityProfile]], None],
) -> None:
    damage(watched.path, profiles)
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            watched.watcher.poll()
    assert watched.names == ("m0", "m1", "m2")
    assert watched.engine.route("prove that").candidate in watched.names
    assert watched.state() == (1, 1, False)
    assert len([record for record in caplog.records if "stays as it was" in record.getMessage()]) == 1
    assert str(watched.path) in str(watched.engine.stats()["zoo_file"])

    if watched.path.is_dir():
        watched.path.rmdir()
    save_zoo(watched.path, profiles[3:5])
    watched.watcher.poll()
    assert watched.names == ("m3", "m4")
    assert watched.state() == (2, 1, True)


def test_a_change_that_leaves_no_trace_in_the_metadata_is_seen(watched: Watched) -> None:
    """Same size, same inode, same times: two writes within one tick of the file system's clock."""
    found = watched.path.stat()
    watched.watcher._file._look = lambda: watched.watcher._file._stamp  # type: ignore[method-assign]
    content = watched.path.read_text().replace('"m1"', '"x1"')
    assert len(content) == found.st_size
    watched.path.write_text(content)
    watched.watcher.poll()
    assert watched.names == ("m0", "x1", "m2")


def test_links_that_are_swapped_as_kubernetes_does_are_seen(
    bundle: Bundle, profiles: list[CapabilityProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_watcher, "POLL_S", 3600.0)
    for version in (1, 2):
        (tmp_path / f"..v{version}").mkdir()
        save_zoo(tmp_path / f"..v{version}" / "zoo.json", profiles[: version + 1])
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "zoo.json").symlink_to(os.path.join("..data", "zoo.json"))
    watched = Watched(bundle, tmp_path / "zoo.json")
    with watched.engine:
        (tmp_path / "..new").symlink_to("..v2")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        watched.watcher.poll()
        assert watched.names == ("m0", "m1", "m2")


def test_two_engines_follow_one_file(watched: Watched, bundle: Bundle, profiles: list[CapabilityProfile]) -> None:
    other = Watched(bundle, watched.path)
    with other.engine:
        save_zoo(watched.path, profiles[2:])
        for one in (watched, other):
            one.watcher.poll()
            assert one.names == tuple(profile.name for profile in profiles[2:])


def test_a_zoo_that_follows_a_file_changes_through_the_file_alone(
    watched: Watched, profiles: list[CapabilityProfile]
) -> None:
    for change in (
        lambda: watched.engine.candidates.add(profiles[5]),
        lambda: watched.engine.candidates.replace(profiles[0]),
        lambda: watched.engine.candidates.replace_all(profiles),
        lambda: watched.engine.candidates.remove("m0"),
    ):
        with pytest.raises(CandidateError, match=r"follows .*zoo.json.*change the file"):
            change()
    assert load_zoo(watched.path) == profiles[:3]


def test_the_thread_sees_a_change_by_itself_and_ends_with_the_engine(
    bundle: Bundle, profiles: list[CapabilityProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_watcher, "POLL_S", 0.01)
    path = tmp_path / "zoo.json"
    save_zoo(path, profiles[:2])
    watched = Watched(bundle, path)
    save_zoo(path, profiles)
    until(lambda: len(watched.names) == 7)
    watched.engine.close()
    assert not watched.watcher._thread.is_alive()
    save_zoo(path, profiles[:1])
    watched.watcher.poll()
    assert len(watched.names) == 7, "a closed engine keeps its zoo"
    assert watched.engine.stats()["zoo_file"]["error"] is None


def test_the_thread_ends_when_the_engine_is_forgotten(
    bundle: Bundle, profiles: list[CapabilityProfile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_watcher, "POLL_S", 0.01)
    save_zoo(tmp_path / "zoo.json", profiles)
    thread: threading.Thread = Watched(bundle, tmp_path / "zoo.json").watcher._thread
    gc.collect()
    until(lambda: not thread.is_alive())


def test_what_cannot_be_watched_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for zoo in (None, bundle.zoo):
        with pytest.raises(OptionError, match="watch follows a zoo file"):
            Engine.load(bundle, zoo=zoo, watch=True)
    with pytest.raises(ProfileError, match="cannot read the zoo"):
        Engine.load(bundle, zoo=tmp_path / "absent.json", watch=True)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()
