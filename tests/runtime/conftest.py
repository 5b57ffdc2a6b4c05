"""Fixtures of the runtime's tests: small bundles, and engines over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.engine import Engine
from tests.runtime.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three candidates, two views, no memory rows."""
    return Bundle.load(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="session", params=[0, 1, 6], ids=lambda rows: f"K={rows}")
def bundle_of_any_memory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with K memory rows."""
    path: Path = tmp_path_factory.mktemp("bundles") / "tiny"
    return Bundle.load(write_tiny_bundle(path, memory_rows=request.param, views=1 + request.param % 2))


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    """An engine over the tiny bundle and its own zoo."""
    with Engine.load(bundle) as engine:
        yield engine
