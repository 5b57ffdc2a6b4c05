"""Fixtures of the command line's tests: a small bundle that every command uses by default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modelsat_engine.cli import cli
from tests.runtime.tiny_bundle import write_tiny_bundle

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the candidates model-0, model-1, model-2 at 0.25, 0.50 and 0.75 USD."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `modelsat ARGUMENTS` in an empty folder, for a user without a zoo, with the small bundle as the default."""
    monkeypatch.setenv("MODELSAT_BUNDLE", str(tiny_bundle))
    monkeypatch.delenv("MODELSAT_ZOO", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)

    return invoke
