"""Every use of TensorRT's and CUDA's Python API in our source, held to the real bindings on a machine without either.

This shows that names, enum members, methods and arguments exist and that plugins get through TensorRT's Python layer.
It does not show that an engine is built or gives the right numbers: tests/gpu does, where there is a GPU.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelsat_engine
from tests.export.tensorrt.stubs import bindings_folder, write_stubs

_FOLDER = Path(modelsat_engine.__file__).parent
_EXPORT, _EXECUTORS = _FOLDER / "export" / "tensorrt", _FOLDER / "runtime" / "executors"
_PARTS = [
    *(["tensorrt_bindings"] if bindings_folder() is None else []),
    *(["cuda.bindings"] if importlib.util.find_spec("cuda") is None else []),
]
pytestmark = pytest.mark.skipif(bool(_PARTS), reason=f"not installed here: {' and '.join(_PARTS)}")


def sources() -> list[Path]:
    """Every module that imports TensorRT or CUDA's bindings."""
    found = []
    for path in (*_EXPORT.rglob("*.py"), *_EXECUTORS.glob("*.py")):
        imported = {name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in _imported(node)}
        if imported & {"tensorrt", "cuda"}:
            found.append(path)
    return found


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a module of this folder where the real bindings can be imported; gives what its last line says."""
    bindings = bindings_folder()
    assert bindings is not None
    environment = write_stubs(tmp_path_factory.mktemp("stubs"), bindings)
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))

    def run_module(module: str, *arguments: Path) -> Any:
        command = [sys.executable, "-m", f"tests.export.tensorrt.{module}", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run_module


def test_every_name_method_and_argument_exists(run: Callable[..., Any]) -> None:
    report = run("api_check", *sources())
    assert report["problems"] == []
    assert {path.name for path in sources()} >= {"network.py", "tensorrt_passes.py", "cuda_host.py", "scoring_head.py"}
    # the walk follows values to the classes whose methods are called, and does not just read past them
    assert set(report["checked"]) >= {
        "tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "tensorrt.Builder.build_serialized_network()",
        "tensorrt.IBuilderConfig.set_timing_cache()",
        "tensorrt.IOptimizationProfile.set_shape()",
        "tensorrt.IProgressMonitor.step_complete overridden",
        "tensorrt.ICudaEngine.get_tensor_profile_shape()",
        "tensorrt.ICudaEngine.create_execution_context()",
        "tensorrt.IExecutionContext.execute_async_v3()",
        "tensorrt.plugin.from_shape_expr()",
        "_tensor.KernelLaunchParams.shared_mem",
        "_tensor.TensorDesc.shape_expr",
        "cuda.bindings.runtime.cudaStreamBeginCapture()",
    }


MISSPELT = {
    "an enum member": ("network.py", "BuilderFlag.REFIT", "BuilderFlag.REFITT", "BuilderFlag.REFITT"),
    "a class": ("network.py", "tensorrt.OnnxParser(", "tensorrt.OnnxReader(", "OnnxReader"),
    "a method": ("network.py", ".add_optimization_profile(", ".add_profile(", "IBuilderConfig.add_profile"),
    "a property": ("network.py", "config.progress_monitor =", "config.monitor =", "IBuilderConfig.monitor"),
    "a keyword": ("network.py", "opt=usual", "usual=usual", "set_shape takes"),
    "an argument too many": ("network.py", "parser.parse(graph)", "parser.parse(graph, None, 1)", "parse takes"),
    "an argument too few": ("network.py", ", ignore_mismatch=False", "", "set_timing_cache takes"),
    "a method of a context": ("tensorrt_passes.py", ".execute_async_v3(", ".execute_async(", "execute_async does not"),
    "a method of an engine": ("tensorrt_passes.py", ".get_tensor_dtype(", ".tensor_dtype(", "ICudaEngine.tensor_dtype"),
    "a method that TensorRT calls": ("progress.py", "def phase_finish(", "def phase_end(", "no phase_end to override"),
    "an argument of such a method": ("progress.py", "parent_phase:", "parent:", "phase_start takes"),
    "a launch parameter": ("declaration.py", "parameters.grid_y", "parameters.grid_yy", "KernelLaunchParams.grid_yy"),
    "a property of an input": ("scoring_head.py", "state.dtype.name", "state.data_type.name", "TensorDesc.data_type"),
    "a plugin function": ("candidate_attention.py", "trtp.cdiv(", "trtp.ceil_div(", "plugin.ceil_div"),
    "a CUDA function": ("cuda_host.py", "cudart.cudaGraphLaunch(", "cudart.cudaLaunchGraph(", "cudaLaunchGraph"),
    "a CUDA argument": ("cuda_host.py", "cudaGraphInstantiate(graph, 0)", "cudaGraphInstantiate(graph)", "takes"),
}


def test_what_is_misspelt_is_found(run: Callable[..., Any], tmp_path: Path) -> None:
    paths = {path.name: path for path in sources()}
    for number, (kind, (name, right, wrong, said)) in enumerate(MISSPELT.items()):
        text = paths[name].read_text(encoding="utf-8")
        assert right in text, kind
        changed = tmp_path / f"{number}_{name}"
        changed.write_text(text.replace(right, wrong), encoding="utf-8")
        MISSPELT[kind] = (changed.name, right, wrong, said)
    problems = run("api_check", *sorted(tmp_path.iterdir()))["problems"]
    for kind, (name, _, _, said) in MISSPELT.items():
        assert any(problem.startswith(name) and said in problem for problem in problems), (kind, problems)


def test_plugins_get_through_the_python_layer_of_tensorrt(run: Callable[..., Any]) -> None:
    plugins = run("plugin_layer")["plugins"]
    # 5 instructions, 11 candidates in 2 views, 96 wide in 3 heads
    attention, head = plugins["CandidateAttention"], plugins["ScoringHeadWithEvidence"]
    assert attention["output"] == [[5, 22, 96], "HALF"]
    assert plugins["CandidateAttentionWithMemory"]["output"] == [[5, 22, 96], "HALF"]
    assert head["output"] == plugins["ScoringHead"]["output"] == [[5, 11], "FLOAT"]
    assert attention["scalars"] == [22]
    assert head["scalars"] == plugins["ScoringHead"]["scalars"] == [11]
    assert attention["launch"]["grid_y"] == 5 * 3
    assert head["launch"]["grid_y"] == 5
    for name, plugin in plugins.items():
        assert plugin["launch"]["block_x"] % 32 == 0
        assert 0 <= plugin["launch"]["shared_mem"] <= 48 * 1024
        assert plugin["launch"]["grid_x"] >= 1
        assert f".visible .entry {plugin['kernel']}(" in plugin["ptx"], name
        # one parameter for every input, integer and output, and none that Triton would have added
        values = len(plugin["formats"]) + len(plugin["scalars"])
        assert len(re.findall(r"\.param \.\w+ (?:\.ptr [^,)]*)?\w+_param_\d+", plugin["ptx"])) == values, name
        assert {layout for _, layout in plugin["formats"]} == {"LINEAR"}


def test_progress_moves_on_and_messages_are_kept_for_errors(run: Callable[..., Any]) -> None:
    report = run("callbacks")
    assert report["shown"][:5] == [
        [0.0, "build"],
        [0.25, "build"],
        [0.25, "timing"],
        [0.375, "timing"],  # half of the second of four steps
        [0.25, "build"],
    ]
    assert report["shown"][5] == [1.0, "build"]
    assert report["answers"] == [True, True, True, False, False]
    assert report["interrupted"]
    assert report["said"] == ["it gives no reason", "first reason"]
