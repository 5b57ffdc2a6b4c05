"""Cubins that were compiled ahead of time, launched on a GPU with what their manifest says and without Triton."""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modelsat_engine.kernels.configs import target_of
from modelsat_engine.kernels.linear.reference import linear_reference
from modelsat_engine.kernels.residual_layer_norm.reference import residual_layer_norm_reference

FORMS = ("linear-up-fp16", "residual_layer_norm-rows-fp16")
ROWS = 37
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute
_SCALARS = {"i32": ctypes.c_int, "fp32": ctypes.c_float}


@pytest.fixture(scope="module")
def cubins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cubins")
    forms = [word for form in FORMS for word in ("--form", form)]
    command = [sys.executable, "-m", "modelsat_engine.kernels.aot", "--target", target_of(torch.device("cuda", 0))]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([*command, *forms, "-o", str(folder)], check=True, env=environment, stdout=subprocess.DEVNULL)
    return folder


def launch(folder: Path, name: str, **arguments: Any) -> None:
    """Launch a form through the driver; tensors for pointers, numbers for scalars. Waits for it."""
    manifest = json.loads((folder / "kernels.json").read_text())
    form = next(form for form in manifest["forms"] if form["name"] == name)
    driver = ctypes.CDLL("libcuda.so.1")

    def call(function: str, *values: Any) -> None:
        assert getattr(driver, function)(*values) == 0, function

    module, entry = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), (folder / form["file"]).read_bytes())
    call("cuModuleGetFunction", ctypes.byref(entry), module, form["entry"].encode())
    call("cuFuncSetAttribute", entry, _MAX_DYNAMIC_SHARED_SIZE_BYTES, form["shared_bytes"])
    values: list[Any] = []
    for argument, kind in form["parameters"].items():
        value = arguments[argument]
        values.append(ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else _SCALARS[kind](value))
    values += [ctypes.c_void_p(None)] * form["hidden_parameters"]
    passed = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    names = {**form["constants"], **arguments, "ceil": math.ceil, "max": max}
    grid = [eval(extent, {"__builtins__": {}}, names) for extent in manifest["grids"][form["kernel"]]]
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    block = (32 * form["num_warps"], 1, 1)
    call("cuLaunchKernel", entry, *grid, *block, form["shared_bytes"], stream, passed, None)
    torch.cuda.synchronize()
    call("cuModuleUnload", module)


def random(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(shape, device="cuda").to(dtype)


def test_a_linear_layer_runs_without_triton(cubins: Path) -> None:
    x, weight, bias = random(ROWS, 384), random(1536, 384) / 20, random(1536, dtype=torch.float32)
    out = torch.full((ROWS + 1, 1536), 7.0, dtype=torch.float16, device="cuda")
    launch(cubins, "linear-up-fp16", x=x, weight=weight, bias=bias, rows=ROWS, out=out)
    expected = linear_reference(x.double(), weight.double(), bias.double(), gelu=True)
    assert (out[:ROWS] - expected).abs().max() < 0.01
    assert (out[ROWS] == 7.0).all()


def test_a_norm_runs_without_triton(cubins: Path) -> None:
    branch, residual = random(ROWS, 384), random(ROWS, 384)
    weight, bias = random(384, dtype=torch.float32), random(384, dtype=torch.float32)
    out = torch.full((ROWS + 1, 384), 7.0, dtype=torch.float16, device="cuda")
    arguments = {"branch": branch, "residual": residual, "weight": weight, "bias": bias, "rows": ROWS}
    launch(cubins, "residual_layer_norm-rows-fp16", **arguments, epsilon=1e-12, out=out)
    values = (tensor.double() for tensor in (branch, residual, weight, bias))
    assert (out[:ROWS] - residual_layer_norm_reference(*values, 1e-12)).abs().max() < 0.02
    assert (out[ROWS] == 7.0).all()
