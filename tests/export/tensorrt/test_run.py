"""`export --to tensorrt` around TensorRT: what is found built, what is kept, what is refused.

TensorRT's own part, from a graph to a plan and from a plan to numbers, is played here; tests/gpu runs the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelsat_engine.errors import BundleError, DataError, ExecutorError, KernelError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.export.onnx import export_capability, export_router
from modelsat_engine.export.tensorrt import run
from modelsat_engine.export.tensorrt.engine_file import EngineFile
from modelsat_engine.export.tensorrt.graph import open_graph
from modelsat_engine.export.tensorrt.network import BuildOptions, Built
from modelsat_engine.export.tensorrt.plugin_graph import DOMAIN
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import PackedBatch
from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from modelsat_engine.user_files import CACHE_VARIABLE
from tests.export.tensorrt.identities import H100
from tests.runtime.native_bundle import Shape, random_network, write_native_bundle


class Off:
    """Scores like the fp32 graph, but for a constant."""

    def __init__(self, bundle: Bundle, by: float) -> None:
        self._exact, self._by = OnnxRuntimeExecutor(bundle, 1), by

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        return self._exact.score(batch, table) + np.float32(self._by)


class Machine:
    """Plays TensorRT on an H100: remembers what it was asked to build, and scores nearly like the fp32 graph."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.graphs: list[onnx.ModelProto] = []
        self.timings: list[bytes] = []
        self.off_by: Callable[[onnx.ModelProto], float] = lambda graph: 1e-4

    def build(self, graph: bytes, profiles: Any, sizes: Any, options: Any, timings: bytes, bar: Any) -> Built:
        self.graphs.append(onnx.load_from_string(graph))
        self.timings.append(timings)
        return Built(b"plan %d" % len(self.graphs), b"timings %d" % len(self.graphs))

    def load(self, plan: bytes, identity: Any, sizes: Any, candidates: int) -> Off:
        return Off(self.bundle, self.off_by(self.graphs[-1]))


def has_plugins(graph: onnx.ModelProto) -> bool:
    return any(node.domain == DOMAIN for node in graph.graph.node)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small router whose two graphs are its own; one memory row for each of the five tasks, and one more."""
    network = random_network(Shape(memory_rows=6), 1)
    folder = write_native_bundle(tmp_path_factory.mktemp("run") / "bundle", network)
    export_router(network, folder)
    export_capability(network, folder)
    write_manifest(folder)
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def graph(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `modelsat export --to onnx` writes of it."""
    path = tmp_path_factory.mktemp("run") / "router.onnx"
    path.write_bytes(open_graph(bundle, "fp32").serialize())
    return path


@pytest.fixture
def machine(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    played = Machine(bundle)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(run, "this_device", lambda: H100)
    monkeypatch.setattr(run, "build_plan", played.build)
    monkeypatch.setattr(run, "load_passes", played.load)
    monkeypatch.setattr(run, "plugins_reason", lambda: None)
    monkeypatch.setattr(run, "register_plugins", lambda capability: None)
    return played


def test_an_engine_is_built_once_and_found_afterwards(bundle: Bundle, graph: Path, machine: Machine) -> None:
    first = run.export_engine(bundle, onnx=graph)
    assert (first["built"], first["plugins"], first["plugins_left_out_because"]) == (True, True, None)
    assert has_plugins(machine.graphs[0])
    assert first["gpu"] == H100.gpu
    assert 0 < first["measured"]["largest_difference"] < 2e-4
    again = run.export_engine(bundle, onnx=graph)
    assert again == {**first, "built": False}
    assert len(machine.graphs) == 1
    rebuilt = run.export_engine(bundle, onnx=graph, rebuild=True)
    assert rebuilt["built"]
    assert EngineFile.open(Path(rebuilt["engine"])).plan() == b"plan 2"
    assert machine.timings == [b"", b"timings 1"]


def test_options_and_plugins_make_different_engines(bundle: Bundle, graph: Path, machine: Machine) -> None:
    made = [
        run.export_engine(bundle, onnx=graph),
        run.export_engine(bundle, onnx=graph, plugins="off"),
        run.export_engine(bundle, onnx=graph, options=BuildOptions(refittable=True)),
        run.export_engine(bundle, onnx=graph, options=BuildOptions(version_compatible=True)),
    ]
    assert len({record["engine"] for record in made}) == len(made)
    assert [has_plugins(graph) for graph in machine.graphs] == [True, False, True, False]


def test_an_engine_that_gives_other_numbers_is_not_kept(
    bundle: Bundle, graph: Path, machine: Machine, tmp_path: Path
) -> None:
    machine.off_by = lambda graph: 0.01
    with pytest.raises(ExecutorError, match=r"differ by 1\.00e-02, more than 1e-03 for fp32; it is not kept"):
        run.export_engine(bundle, onnx=graph, output=tmp_path / "mine.engine")
    assert not (tmp_path / "mine.engine").exists()
    machine.off_by = lambda graph: float("nan")
    with pytest.raises(ExecutorError, match="it is not kept"):
        run.export_engine(bundle, onnx=graph)
    assert not list(tmp_path.rglob("*.engine"))


def test_kernels_that_give_other_numbers_are_left_out(bundle: Bundle, graph: Path, machine: Machine) -> None:
    machine.off_by = lambda graph: 0.3 if has_plugins(graph) else 0.0
    record = run.export_engine(bundle, onnx=graph)
    assert not record["plugins"]
    assert record["plugins_left_out_because"].startswith("the engine and the fp32 graph differ by 3.00e-01")
    assert [has_plugins(graph) for graph in machine.graphs] == [True, False]
    with pytest.raises(ExecutorError, match=r"differ by 3\.00e-01"):
        run.export_engine(bundle, onnx=graph, plugins="on")


def test_kernels_that_do_not_compile_are_left_out(
    bundle: Bundle, graph: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(capability: int) -> None:
        assert capability == 90
        raise KernelError("the plugin does not compile for sm_90: no")

    monkeypatch.setattr(run, "register_plugins", refuse)
    record = run.export_engine(bundle, onnx=graph)
    assert (record["plugins"], record["plugins_left_out_because"]) == (
        False,
        "the plugin does not compile for sm_90: no",
    )
    monkeypatch.setattr(run, "plugins_reason", lambda: "triton not installed")
    with pytest.raises(ExecutorError, match="our kernels cannot be built in: triton not installed"):
        run.export_engine(bundle, onnx=graph, plugins="on")


def test_plugins_and_version_compatibility_exclude_each_other(bundle: Bundle, graph: Path, machine: Machine) -> None:
    with pytest.raises(ExecutorError, match="holds no plugins; leave out one of the two"):
        run.export_engine(bundle, onnx=graph, plugins="on", options=BuildOptions(version_compatible=True))


def test_a_graph_of_another_bundle_is_refused(bundle: Bundle, graph: Path, machine: Machine, tmp_path: Path) -> None:
    assert run.export_engine(bundle, onnx=graph, plugins="off")["precision"] == "fp32"
    other = tmp_path / "other.onnx"
    other.write_bytes(graph.read_bytes().replace(bundle.hash.encode(), b"sha256:" + b"0" * 64))
    with pytest.raises(BundleError, match=f"is an export of .*, not of {bundle.label}"):
        run.export_engine(bundle, onnx=other)
    with pytest.raises(BundleError, match="is in fp32, not in fp16; leave out --precision"):
        run.export_engine(bundle, "fp16", onnx=graph)
    other.write_bytes(b"no graph")
    with pytest.raises(DataError, match="is not an ONNX file"):
        run.export_engine(bundle, onnx=other)
    assert len(machine.graphs) == 1
