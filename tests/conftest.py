"""What holds for every test: nothing is read from, or left in, the home of the person who runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches and the user's zoo lie in a folder of the test run, for the processes that tests start as well."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELSAT_CACHE", str(folder / "cache"))
        patch.setenv("XDG_DATA_HOME", str(folder / "share"))
        patch.delenv("MODELSAT_ZOO", raising=False)
        yield folder
