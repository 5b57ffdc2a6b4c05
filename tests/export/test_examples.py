"""The examples run as printed: the README's Python without this package, and the C++ one where headers are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from modelsat_engine.runtime.engine import Engine

ROOT = Path(__file__).parents[2]
INSTRUCTION = "Which bone is the longest?"
#: The folder with onnxruntime_cxx_api.h, of the version that is installed or an older one.
INCLUDE = os.environ.get("ONNXRUNTIME_INCLUDE", "")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's command was run."""
    folder = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "modelsat_engine", "export", "--to", "onnx", "--precision", "int8"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[str, float]:
    with Engine.load(executor="onnxruntime") as engine:
        return engine.route(INSTRUCTION).probabilities


def test_the_readme_s_ten_lines_need_no_package_of_ours(exported: Path, expected: dict[str, float]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "InferenceSession" in block]
    lines = [line for line in snippet.splitlines() if line.strip()]
    assert len(lines) <= 10
    assert INSTRUCTION in snippet
    hidden = "import sys; sys.modules['modelsat_engine'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + snippet], cwd=exported, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.strip().rsplit(" ", 1)
    assert expected[name] == pytest.approx(float(probability), abs=0.05)
    assert expected[name] > max(expected.values()) - 0.05


@pytest.mark.skipif(not INCLUDE, reason="ONNXRUNTIME_INCLUDE names no folder with onnxruntime_cxx_api.h")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_cpp_example_gives_what_the_engine_gives(
    exported: Path, expected: dict[str, float], tmp_path: Path
) -> None:
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    source = ROOT / "docs" / "examples" / "route.cc"
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", str(source), "-isystem", INCLUDE]
    subprocess.run([*command, str(library), f"-Wl,-rpath,{tmp_path}", "-o", str(tmp_path / "route")], check=True)
    ids = [101, 2029, 5923, 2003, 1996, 6493, 1029, 102]

    def route(graph: str, table: Path) -> subprocess.CompletedProcess[str]:
        arguments = [str(tmp_path / "route"), graph, str(table), *map(str, ids)]
        return subprocess.run(arguments, cwd=exported, capture_output=True, text=True, check=False)

    done = route("mini-int8.onnx", exported / "mini-int8.candidates.npz")
    assert done.returncode == 0, done.stderr
    found = {name: float(number) for number, name in (line.split(" ", 1) for line in done.stdout.splitlines())}
    assert found.keys() == expected.keys()
    assert list(found.values()) == sorted(found.values(), reverse=True)
    for name, probability in found.items():
        assert probability == pytest.approx(expected[name], abs=0.05)
    (tmp_path / "cut.npz").write_bytes((exported / "mini-int8.candidates.npz").read_bytes()[:3000])
    assert "cut short" in route("mini-int8.onnx", tmp_path / "cut.npz").stderr
    assert route("nowhere.onnx", exported / "mini-int8.candidates.npz").returncode == 1


def test_the_table_holds_what_an_engine_s_does(exported: Path) -> None:
    with np.load(exported / "mini-int8.candidates.npz", allow_pickle=False) as table:
        with Engine.load() as engine:
            assert table["names"].tolist() == list(engine.candidates.names)
            assert str(table["bundle_hash"]) == engine.bundle.hash
        assert table["inquiry_start"].dtype == np.float32
        assert len(table["inquiry_start"]) == len(table["names"]) == len(table["usd_per_million_tokens"])
