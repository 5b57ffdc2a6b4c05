"""Takes our plugins through TensorRT's own Python layer, from registration to the kernel that goes into an engine.

    python -m tests.export.tensorrt.plugin_layer        prints one JSON object

Run with the real bindings importable and without a GPU. What TensorRT's C++ library does around that layer is played by
three small stand-ins: the registry that keeps a plugin's creator, the builder of shape expressions, which computes
numbers here, and the receiver of launch parameters. Everything else is the library's own code and ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt
import tensorrt.plugin as trtp
from tensorrt_bindings.plugin import _tensor

CAPABILITY = 90
WIDTH, HEADS, MEMORY_ROWS, EVIDENCE, VIEWS = 96, 3, 7, 13, 2
BATCH, TOKENS, CANDIDATES = 5, 37, 11
ATTENTION = {"width": WIDTH, "heads": HEADS, "same_query": 0}
HEAD = {"width": WIDTH, "views": VIEWS, "epsilon": 1e-12, "temperature": 1.25, "calibration_bias": -0.5}
_ROWS = CANDIDATES * VIEWS


class Registry:
    """Keeps creators, as TensorRT's own registry does."""

    def __init__(self) -> None:
        self.creators: dict[str, Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[f"{namespace}::{creator.name}"] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        assert version == "1"
        return self.creators[f"{namespace}::{name}"]


class Number(tensorrt.IDimensionExpr):  # type: ignore[misc]
    """A dimension that is known; made without the C++ constructor, which the library keeps for itself."""

    value: int

    @staticmethod
    def of(value: int) -> Number:
        made = Number.__new__(Number)
        made.value = int(value)
        return made

    def is_constant(self) -> bool:
        return False

    def get_constant_value(self) -> int:
        return self.value


@dataclass
class Builder:
    """Computes expressions at once."""

    used: set[str] = field(default_factory=set)

    def constant(self, value: int) -> Number:
        return Number.of(value)

    def operation(self, operation: Any, first: Number, second: Number) -> Number:
        self.used.add(operation.name)
        kinds = tensorrt.DimensionOperation
        a, b = first.value, second.value
        return Number.of(
            {
                kinds.SUM: a + b,
                kinds.PROD: a * b,
                kinds.FLOOR_DIV: a // max(b, 1),
                kinds.CEIL_DIV: -(-a // max(b, 1)),
            }[operation]
        )


class Scalars(dict):  # type: ignore[type-arg]
    """Receives the integers that a launch passes."""

    nbSymExprs = 0  # noqa: N815  # the library's name


class Shapes(list):  # type: ignore[type-arg]
    """What the library's DimsExprs is to Python: as many places as asked for."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


def describe(dims: tuple[int, ...], dtype: Any) -> Any:
    """One input or output while kernels are chosen; every dimension but the last ones may vary."""
    made = tensorrt.DynamicPluginTensorDesc()
    inner = tensorrt.PluginTensorDesc()
    inner.dims, inner.type, inner.format = dims, dtype, tensorrt.TensorFormat.LINEAR
    made.desc = inner
    made.min = made.opt = made.max = dims
    return made


def through_the_layer(
    registry: Registry,
    name: str,
    attributes: dict[str, int | float],
    inputs: list[tuple[tuple[int, ...], Any]],
) -> dict[str, Any]:
    """Create one plugin from the attributes of an ONNX node, and ask it what a build asks."""
    creator = registry.creators[f"modelsat::{name}"]
    kinds = {int: (tensorrt.PluginFieldType.INT32, np.int32), float: (tensorrt.PluginFieldType.FLOAT32, np.float32)}
    # as the ONNX parser hands them over; a field points to its array and does not keep it
    arrays = {key: np.array([value], kinds[type(value)][1]) for key, value in attributes.items()}
    fields = [tensorrt.PluginField(key, arrays[key], kinds[type(attributes[key])][0]) for key in arrays]
    assert {entry.name for entry in creator.field_names} == set(attributes)
    plugin = creator.create_plugin(
        name,
        "modelsat",
        tensorrt.PluginFieldCollection(fields),
        tensorrt.TensorRTPhase.BUILD,
        tensorrt.QuickPluginCreationRequest.PREFER_AOT,
    )
    (dtype,) = plugin.get_output_data_types([kind for _, kind in inputs], [len(dims) for dims, _ in inputs])
    builder = Builder()
    expressions = [[Number.of(extent) for extent in dims] for dims, _ in inputs]
    (shape,) = plugin.get_output_shapes(expressions, [], builder)
    out = tuple(expression.value for expression in shape)

    described = [describe(dims, kind) for dims, kind in (*inputs, (out, dtype))]
    combination = plugin.get_supported_format_combinations(described, len(inputs))
    plugin.configure_plugin(described[:-1], described[-1:])
    assert list(plugin.get_valid_tactics()) == []
    plugin.set_tactic(0)
    launch, scalars = SimpleNamespace(), Scalars()
    plugin.get_launch_params(expressions, described, len(inputs), launch, scalars, builder)
    kernel, ptx = plugin.get_kernel([one.desc for one in described[:-1]], [described[-1].desc])
    return {
        "output": [list(out), dtype.name],
        "formats": [(one.type.name, one.format.name) for one in combination],
        "launch": {key: given.number for key, given in vars(launch).items()},
        "scalars": [scalars[index].number for index in range(scalars.nbSymExprs)],
        "kernel": kernel,
        "ptx": ptx.decode(),
        "operations": sorted(builder.used),
    }


def main() -> None:
    registry = Registry()
    tensorrt.get_plugin_registry = lambda: registry
    tensorrt.DimsExprs = Shapes
    given = _tensor.SymExprImpl

    class Readable(given):  # type: ignore[misc, valid-type]
        """What is handed to the library, which can only be written to, with its number beside it."""

        def __init__(self, expression: Any) -> None:
            given.__init__(self, expression)
            self.number = expression._expr.value

    _tensor.SymExprImpl = Readable

    from modelsat_engine.export.tensorrt.plugins import register_plugins, unavailable_reason

    assert unavailable_reason() is None
    register_plugins(CAPABILITY)
    half, single, whole = tensorrt.DataType.HALF, tensorrt.DataType.FLOAT, tensorrt.DataType.INT32
    own, prefix = ((BATCH, _ROWS, WIDTH), half), ((BATCH, TOKENS, WIDTH), half)
    memory, bounds = ((_ROWS, MEMORY_ROWS, WIDTH), half), ((BATCH, 2), whole)
    head = [((BATCH, _ROWS, WIDTH), single), *(((WIDTH,), single),) * 2, ((2, WIDTH), single), ((2,), single)]
    evidence = [((BATCH, EVIDENCE), single), ((CANDIDATES, VIEWS, EVIDENCE), single)]
    found: dict[str, Any] = {
        "CandidateAttention": (ATTENTION, [own] * 3 + [prefix] * 2 + [bounds]),
        "CandidateAttentionWithMemory": (
            {**ATTENTION, "memory_rows": MEMORY_ROWS},
            [own] * 3 + [memory] * 2 + [prefix] * 2 + [bounds],
        ),
        "ScoringHead": (HEAD, head),
        "ScoringHeadWithEvidence": ({**HEAD, "evidence_size": EVIDENCE}, head + evidence),
    }
    assert set(registry.creators) == {f"modelsat::{name}" for name in found}
    results = {name: through_the_layer(registry, name, *asked) for name, asked in found.items()}
    print(json.dumps({"tensorrt": tensorrt.__version__, "plugins": results, "module": trtp.__name__}))


if __name__ == "__main__":
    main()
