"""`modelsat score` killed, interrupted, or out of disk: what was written is valid, and the same command goes on."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Finished, Start

ROWS = 1500
PART_ROWS = 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """More rows than can be scored before the test reacts."""
    path = tmp_path / "in.txt"
    path.write_text("".join(f"what is {i} times {i % 17}? {'please ' * (i % 5)}\n" for i in range(ROWS)))
    return path


def arguments(out: str) -> list[str]:
    return ["score", "in.txt", "-o", out, "--part-rows", str(PART_ROWS), "--threads", "1", "--json"]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"the run ended before {path.name} was there: {process.communicate()[1]!r}")
        os.sched_yield()


def valid_rows(part: Path) -> int:
    """The rows of a part, each read in full."""
    if part.suffix == ".parquet":
        return int(pq.read_table(part).num_rows)
    lines = part.read_text("utf-8").splitlines()
    if part.suffix == ".jsonl":
        return sum(json.loads(line)["candidate"] is not None for line in lines)
    return sum(len(line.split(",")) == 7 for line in lines[1:])


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_killed_run_goes_on_and_gives_the_same_file(
    start: Start, finish: Finished, source: Path, tmp_path: Path, out: str
) -> None:
    parts = tmp_path / f"{out}.parts"
    with start(*arguments(out)) as process:
        wait_for(parts / f"part-000003{Path(out).suffix}", process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / out).exists()
    saved = sorted(parts.glob("part-*"))
    assert 4 <= len(saved) < ROWS // PART_ROWS
    assert all(valid_rows(part) == PART_ROWS for part in saved)

    done = finish(*arguments(out))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["resumed_rows"]) == (ROWS, len(saved) * PART_ROWS)
    assert not parts.exists()
    resumed = (tmp_path / out).read_bytes()
    (tmp_path / out).unlink()
    assert finish(*arguments(out)).returncode == 0
    assert (tmp_path / out).read_bytes() == resumed


def test_control_c_exits_130_and_says_how_to_go_on(
    start: Start, finish: Finished, source: Path, tmp_path: Path
) -> None:
    def heed_interrupts() -> None:  # a test run in the background ignores them
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with start(*arguments("out.csv"), preexec_fn=heed_interrupts) as process:
        wait_for(tmp_path / "out.csv.parts" / "part-000001.csv", process)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read() if process.stderr else b""
    assert process.returncode == 130
    assert b"the same command continues" in stderr
    assert b"Traceback" not in stderr
    assert json.loads(finish(*arguments("out.csv")).stdout)["resumed_rows"] >= 2 * PART_ROWS


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_file_size_limit_is_one_line_and_keeps_the_parts(
    finish: Finished, source: Path, tmp_path: Path, out: str
) -> None:
    """Every part fits under the limit, the merged file does not."""
    limit = 12_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = finish(*arguments(out), preexec_fn=limited)
    assert done.returncode == 1
    assert b"File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / out).exists()
    parts = sorted((tmp_path / f"{out}.parts").glob("part-*"))
    assert sum(map(valid_rows, parts)) == ROWS
    assert not list((tmp_path / f"{out}.parts").glob(".*.tmp"))
    assert json.loads(finish(*arguments(out)).stdout)["resumed_rows"] == ROWS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes; mounted again with another size it keeps its files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    remount = 32
    mounted = False

    def mount(size_bytes: int) -> Path:
        nonlocal mounted
        options = f"size={size_bytes}".encode()
        if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", remount if mounted else 0, options) != 0:
            pytest.skip(f"cannot mount a file system: {os.strerror(ctypes.get_errno())}")
        mounted = True
        return folder

    yield mount
    if mounted:
        libc.umount2(str(folder).encode(), 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    finish: Finished, source: Path, small_disk: Callable[[int], Path], suffix: str
) -> None:
    disk = small_disk(128 * 1024)
    out = disk / f"out{suffix}"
    done = finish(*arguments(str(out)))
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    saved = sorted(disk.glob("out*.parts/part-*"))
    assert saved
    assert all(valid_rows(part) == PART_ROWS for part in saved)

    small_disk(64 * 1024 * 1024)
    done = finish(*arguments(str(out)))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_rows"] == len(saved) * PART_ROWS
    assert valid_rows(out) == ROWS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_before_any_work(finish: Finished, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    done = finish(*arguments(str(folder / "out.csv")))
    assert done.returncode == 1
    assert b"is not writable" in done.stderr
