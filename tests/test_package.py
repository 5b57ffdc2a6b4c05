"""The package as a whole: what importing it costs, what it exports, where its compiled and mapped parts are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import modelsat_engine

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "triton", "tensorrt", "onnx", "onnxruntime", "sklearn", "pyarrow", "click", "rich", "numpy")


def run_python(code: str, cwd: Path) -> str:
    """Standard output of `code` in a fresh interpreter that looks for modules in `cwd` first."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import json, sys, modelsat_engine; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(code, tmp_path))}
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_using_the_public_names_loads_no_optional_dependency(tmp_path: Path) -> None:
    code = (
        "import json, sys, modelsat_engine as m\n"
        "for name in m.__all__: getattr(m, name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = {name.partition(".")[0] for name in json.loads(run_python(code, tmp_path))}
    optional = set(HEAVY) - {"numpy", "onnxruntime"}
    assert loaded.isdisjoint(optional), sorted(loaded.intersection(optional))


def test_every_public_name_is_there_and_listed() -> None:
    for name in modelsat_engine.__all__:
        assert getattr(modelsat_engine, name) is not None, name
        assert name in dir(modelsat_engine), name


def test_star_import_gives_the_public_names(tmp_path: Path) -> None:
    code = "from modelsat_engine import *; print(Engine.__name__, CapabilityProfile.__name__, errors.__name__)"
    assert run_python(code, tmp_path).split() == ["Engine", "CapabilityProfile", "modelsat_engine.errors"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Motor'"):
        modelsat_engine.Motor  # noqa: B018


@pytest.mark.parametrize("started_in", ["elsewhere", "root of the checkout"])
def test_kernels_and_extension_are_part_of_the_package(tmp_path: Path, started_in: str) -> None:
    code = "import modelsat_engine.kernels as k, modelsat_engine._core as c; print(k.__name__, c.__name__)"
    names = run_python(code, tmp_path if started_in == "elsewhere" else ROOT).split()
    assert names == ["modelsat_engine.kernels", "modelsat_engine._core"]


def test_the_version_is_the_same_everywhere() -> None:
    assert metadata.version("modelsat-engine") == modelsat_engine.__version__
    declared = f'version = "{modelsat_engine.__version__}"'
    assert declared in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()


def test_the_processor_is_described_with_consistent_features() -> None:
    from modelsat_engine import _core

    features = _core.cpu_features()
    assert isinstance(features["architecture"], str)
    assert isinstance(features["brand"], str)
    flags = {name: value for name, value in features.items() if name not in ("architecture", "brand")}
    assert all(isinstance(value, bool) for value in flags.values())
    assert flags["avx512f"] or not (flags["avx512_vnni"] or flags["avx512vl"])
    assert flags["avx2"] or not flags["avx_vnni"]
    if features["architecture"] != "x86_64":
        assert not any(flags.values())


def test_at_least_one_cpu_is_usable() -> None:
    import os

    from modelsat_engine import _core

    assert 1 <= _core.usable_cpu_count() <= (os.cpu_count() or 1)
