"""How a plugin is made known to TensorRT: by functions whose signatures it reads, one per input and attribute."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorrt.plugin as trtp

from modelsat_engine.export.tensorrt.plugin_graph import DOMAIN
from modelsat_engine.export.tensorrt.plugins.ptx import PluginKernel

#: An attribute: an array of one number, see `plugin_graph`.
Whole = npt.NDArray[np.int32]
Fraction = npt.NDArray[np.float32]
#: Inputs by name, and the numbers of the attributes by name.
Tensors = Mapping[str, trtp.TensorDesc]
Numbers = Mapping[str, int | float]


@dataclass(frozen=True)
class Launch:
    """How a kernel is started: blocks in x and y, and the one integer between inputs and outputs."""

    kernel: PluginKernel
    grid_x: trtp.ShapeExpr
    grid_y: trtp.ShapeExpr
    integer: trtp.ShapeExpr


def declare(
    name: str,
    inputs: Sequence[str],
    attributes: Mapping[str, Any],
    output: Callable[[Tensors, Numbers], trtp.TensorDesc],
    launch: Callable[[Tensors, Numbers], Launch],
) -> None:
    """Register a plugin of one output with an ahead-of-time implementation.

    Args:
        inputs: their names, in the kernel's order.
        attributes: name -> `Whole` or `Fraction`.
        output: what comes out, of what goes in.
        launch: the kernel and its grid; dtypes and ranks are known then, extents may be expressions.
    """
    tensors = [_parameter(each, trtp.TensorDesc) for each in inputs]
    numbers = [_parameter(each, kind) for each, kind in attributes.items()]

    def describe(*given: trtp.TensorDesc, **arrays: Any) -> Any:
        return output(dict(zip(inputs, given, strict=True)), _numbers(arrays))

    def implement(*given: Any) -> Any:
        arrays = given[len(inputs) : -2]  # outputs and tactic come last
        values = _numbers(dict(zip(attributes, arrays, strict=True)))
        asked = launch(dict(zip(inputs, given, strict=False)), values)
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = asked.grid_x
        parameters.grid_y = asked.grid_y
        parameters.block_x = asked.kernel.threads
        parameters.shared_mem = asked.kernel.shared_bytes
        integers = trtp.SymIntExprs(1)
        integers[0] = trtp.SymInt32(asked.integer)
        return asked.kernel.entry, asked.kernel.ptx, parameters, integers

    outputs = [_parameter("outputs", tuple[trtp.TensorDesc]), _parameter("tactic", int)]
    returned = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    _sign(describe, [*tensors, *numbers], trtp.TensorDesc)
    _sign(implement, [*tensors, *numbers, *outputs], returned)
    trtp.register(f"{DOMAIN}::{name}")(describe)
    trtp.aot_impl(f"{DOMAIN}::{name}")(implement)


def _numbers(arrays: Mapping[str, Any]) -> dict[str, int | float]:
    return {name: array[0].item() for name, array in arrays.items()}


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


def _sign(function: Any, parameters: list[inspect.Parameter], returned: Any) -> None:
    function.__signature__ = inspect.Signature(parameters, return_annotation=returned)
