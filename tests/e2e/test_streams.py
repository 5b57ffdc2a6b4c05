"""Exit codes and streams of the real process: what a shell script relies on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Finished, Start


def test_json_goes_to_stdout_and_nothing_to_stderr(finish: Finished) -> None:
    done = finish("route", "Prove it.", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["candidate"].startswith("model-")


def test_the_console_script_is_installed(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "modelsat"
    if not script.exists():
        pytest.skip("the package is not installed into this environment")
    done = subprocess.run([script, "--version"], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith(b"modelsat-engine ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["doctor"], 0), (["route", "x", "--bundle", "absent"], 1), (["route"], 2), (["doctor", "--bundle", "absent"], 1)],
)
def test_exit_codes(finish: Finished, arguments: list[str], code: int) -> None:
    done = finish(*arguments)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (1 if code and arguments[0] != "doctor" else 0)


def test_stdin_of_any_bytes(finish: Finished) -> None:
    assert finish("route", "-", "--json", stdin="🦉 مرحبا\0".encode()).returncode == 0
    done = finish("route", "-", stdin=b"\xff")
    assert done.returncode == 1
    assert done.stderr == b"error: stdin is not valid UTF-8 (byte 0xff in line 1); convert it first\n"


@pytest.mark.parametrize("arguments", [["candidates", "list"], ["candidates", "list", "--json"], ["--help"]])
def test_a_reader_that_leaves_is_no_complaint(start: Start, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(*arguments, stdout=writer) as process:
        os.close(writer)
        stderr = process.stderr.read() if process.stderr else b""
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["candidates", "list"], ["candidates", "list", "--json"], ["--help"]])
def test_an_output_that_is_full_is_one_line(finish: Finished, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = finish(*arguments, stdout=full)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_output_encoding_works(finish: Finished, tmp_path: Path, encoding: str) -> None:
    profile = {"name": "模型 🦉", "correct": {"chess": 1}, "total": {"chess": 4}}
    (tmp_path / "mine.json").write_text(json.dumps(profile))
    environment = {"PYTHONIOENCODING": encoding}
    assert finish("candidates", "add", "mine.json", "--zoo", "zoo.json", env=environment).returncode == 0
    for arguments in (["candidates", "list"], ["candidates", "show", "模型 🦉"], ["route", "x"]):
        done = finish(*arguments, "--zoo", "zoo.json", env=environment)
        assert done.returncode == 0
        # that one task of five was answered is worth a line, and no more
        assert all(line.startswith(b"warning: ") for line in done.stderr.splitlines())
    listed = json.loads(finish("candidates", "list", "--zoo", "zoo.json", "--json", env=environment).stdout)
    assert "模型 🦉" in {candidate["name"] for candidate in listed}


def test_a_pipe_gets_whole_names(finish: Finished, tmp_path: Path) -> None:
    name = "a-rather-long-model-name/" * 6
    (tmp_path / "mine.json").write_text(json.dumps({"name": name, "correct": {"chess": 1}, "total": {"chess": 4}}))
    finish("candidates", "add", "mine.json", "--zoo", "zoo.json")
    assert name in finish("route", "x", "--zoo", "zoo.json").stdout.decode()


def test_no_colour_codes_reach_a_pipe(finish: Finished) -> None:
    for arguments in (["route", "x"], ["doctor"], ["candidates", "show", "model-1"]):
        assert b"\x1b" not in finish(*arguments).stdout
