"""Several writers of one zoo file lose nothing, and one that is killed blocks nobody."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelsat_engine.aptitude import CapabilityProfile, edit_zoo, files, load_zoo, save_zoo
from modelsat_engine.aptitude.refinement import Refinement
from modelsat_engine.aptitude.zoo import joined
from modelsat_engine.errors import ProfileError


def profile(name: str, right: int = 1) -> CapabilityProfile:
    return CapabilityProfile(name, {"t": right}, {"t": 9}, test_id="sha256:x")


def add_many(path: str, writer: int, count: int) -> None:
    for index in range(count):
        with edit_zoo(path) as zoo:
            zoo[f"{writer}-{index}"] = profile(f"{writer}-{index}")


def fail_after_a_change(zoo: dict[str, CapabilityProfile]) -> None:
    zoo["b"] = profile("b")
    raise ZeroDivisionError


def test_changes_are_written_on_leaving(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [profile("a"), profile("b"), profile("c")])
    with edit_zoo(path) as zoo:
        del zoo["b"]
        zoo["a"] = profile("a", 7)
        zoo["d"] = profile("d")
        assert [p.name for p in load_zoo(path)] == ["a", "b", "c"], "not before"
    assert load_zoo(path) == [profile("a", 7), profile("c"), profile("d")]


def test_nothing_is_written_when_nothing_changed_or_something_failed(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [profile("a")])
    before = path.stat()
    with edit_zoo(path):
        pass
    with pytest.raises(ZeroDivisionError), edit_zoo(path) as zoo:
        fail_after_a_change(zoo)
    with pytest.raises(ProfileError, match="'b' stands under the name 'a'"), edit_zoo(path) as zoo:
        zoo["a"] = profile("b")
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_new_file_starts_from_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "zoo.json"
    with edit_zoo(path, start=[profile("a")]) as zoo:
        zoo["b"] = profile("b")
    with edit_zoo(path, start=[profile("not again")]) as zoo:
        zoo["c"] = profile("c")
    assert [p.name for p in load_zoo(path)] == ["a", "b", "c"]
    with pytest.raises(ProfileError, match="cannot read the zoo"), edit_zoo(tmp_path / "absent.json"):
        pass


def test_threads_and_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [])
    spawn = multiprocessing.get_context("spawn")
    workers: list[threading.Thread | multiprocessing.process.BaseProcess] = [
        *(spawn.Process(target=add_many, args=(str(path), writer, 11)) for writer in range(3)),
        *(threading.Thread(target=add_many, args=(str(path), writer, 11)) for writer in range(3, 5)),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {p.name for p in load_zoo(path)} == {f"{writer}-{index}" for writer in range(5) for index in range(11)}


HOLDER = """
import sys
from modelsat_engine.aptitude import edit_zoo
with edit_zoo(sys.argv[1]) as zoo:
    zoo.clear()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_blocks_nobody_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [profile("a")])
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), files.locked(path, timeout_s=0.05):
            pass
        holder.kill()
        holder.wait()
        with edit_zoo(path) as zoo:
            zoo["b"] = profile("b")
    assert [p.name for p in load_zoo(path)] == ["a", "b"]


def test_who_waits_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [])
    monkeypatch.setattr("modelsat_engine.aptitude.zoo.LOCK_TIMEOUT_S", 0.05)
    message = "cannot change the zoo .*zoo.json: somebody else has been changing it for 0.05 s"
    with files.locked(path), pytest.raises(ProfileError, match=message), edit_zoo(path):
        pass


def test_a_link_shares_the_lock_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "zoo.json", tmp_path / "link.json"
    save_zoo(path, [])
    link.symlink_to(path)
    with files.locked(link), pytest.raises(TimeoutError), files.locked(path, timeout_s=0.02):
        pass
    with edit_zoo(link) as zoo:
        zoo["a"] = profile("a")
    assert link.is_symlink()
    assert [p.name for p in load_zoo(path)] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [])
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ProfileError, match=r"cannot change the zoo .*Permission denied"), edit_zoo(path):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_place_that_is_no_directory_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for start in (None, []):
        with (
            pytest.raises(ProfileError, match="cannot change the zoo"),
            edit_zoo(tmp_path / "file" / "zoo.json", start),
        ):
            pass


def test_a_full_disk_leaves_the_old_file_and_frees_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.json"
    save_zoo(path, [profile("a")])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(ProfileError, match="No space left"), edit_zoo(path) as zoo:
            zoo["b"] = profile("b")
    assert load_zoo(path) == [profile("a")]
    with edit_zoo(path) as zoo:
        zoo["c"] = profile("c")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".zoo.json.lock", "zoo.json"]


def refined(name: str, own: float, shared: float, axes: str = "sha256:axes", answers: int = 30) -> CapabilityProfile:
    refinement = Refinement(axes, (own, -own), answers, (shared, 2 * shared))
    return dataclasses.replace(profile(name), refinement=refinement)


def test_who_is_new_to_a_refined_zoo_takes_what_all_share(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    old = refined("old", 1.0, 0.5)
    save_zoo(path, [old])
    with edit_zoo(path) as zoo:
        zoo["new"] = profile("new")
    assert load_zoo(path) == [old, refined("new", 0.0, 0.5, answers=0)]
    with edit_zoo(path) as zoo:
        for name in zoo:
            zoo[name] = profile(name)
    assert load_zoo(path) == [profile("old"), profile("new")]


@pytest.mark.parametrize(
    ("zoo", "comes", "joins"),
    [
        ([], refined("x", 1.0, 0.5), refined("x", 1.0, 0.5)),
        ([profile("a")], profile("x"), profile("x")),
        ([profile("a")], refined("x", 1.0, 0.5), refined("x", 1.0, 0.0)),
        ([refined("a", 2.0, 0.25)], refined("x", 1.0, 0.5), refined("x", 1.0, 0.25)),
        ([refined("a", 2.0, 0.25)], refined("x", 1.0, 0.5, "sha256:other"), refined("x", 0.0, 0.25, answers=0)),
        (
            [refined("a", 2.0, 9.0, "sha256:other"), refined("b", 2.0, 0.25), profile("c"), refined("d", 1.0, 0.25)],
            profile("x"),
            refined("x", 0.0, 0.25, answers=0),
        ),
    ],
    ids=["empty", "neither", "zoo is not refined", "other traffic", "other router", "a zoo of several"],
)
def test_what_a_profile_keeps_when_it_joins(
    zoo: list[CapabilityProfile], comes: CapabilityProfile, joins: CapabilityProfile
) -> None:
    assert joined([comes], zoo) == [joins]
