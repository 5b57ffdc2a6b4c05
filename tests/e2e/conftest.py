"""Fixtures of the end-to-end tests: the installed command in a process of its own, over a small bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.tiny_bundle import write_tiny_bundle

Start = Callable[..., "subprocess.Popen[bytes]"]
Finished = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the candidates model-0, model-1, model-2."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def start(tiny_bundle: Path, tmp_path: Path) -> Start:
    """Starts `modelsat ARGUMENTS` in the test's folder; keywords go to Popen."""

    def begin(*arguments: str | Path, **others: Any) -> subprocess.Popen[bytes]:
        own = {"MODELSAT_BUNDLE": str(tiny_bundle), "XDG_DATA_HOME": str(tmp_path / "share")}
        environment = {**os.environ, **own, **others.pop("env", {})}
        environment.pop("MODELSAT_ZOO", None)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "modelsat_engine.cli", *map(str, arguments)]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **{**streams, **others})

    return begin


@pytest.fixture
def finish(start: Start) -> Finished:
    """Runs `modelsat ARGUMENTS` to its end."""

    def run(*arguments: str | Path, stdin: bytes = b"", **others: Any) -> subprocess.CompletedProcess[bytes]:
        with start(*arguments, **{"stdin": subprocess.PIPE, **others}) as process:
            stdout, stderr = process.communicate(stdin if process.stdin else None, timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run
