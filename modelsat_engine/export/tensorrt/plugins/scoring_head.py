"""The scoring head as a plugin: last norm, two head rows, evidence, calibration, mean over views."""

from __future__ import annotations

from dataclasses import dataclass

from modelsat_engine.export.tensorrt.plugin_graph import HEAD, HEAD_WITH_EVIDENCE
from modelsat_engine.export.tensorrt.plugins.ptx import DTYPES, compile_plugin
from modelsat_engine.kernels.configs import nearest_target
from modelsat_engine.kernels.scoring_head.launch import ScoringHeadShape
from modelsat_engine.kernels.specialization import Specialization

_HEAD = ("state", "norm_weight", "norm_bias", "rows", "row_bias")
_EVIDENCE = ("relevance", "evidence")


@dataclass(frozen=True)
class HeadSizes:
    """What is compiled into the kernel.

    Attributes:
        dtype: TensorRT's name of the states' dtype.
        width: D. views: R. evidence_size: E, 0 for none.
        epsilon: of the norm. temperature, calibration_bias: fitted on validation outcomes.
    """

    dtype: str
    width: int
    views: int
    epsilon: float
    temperature: float
    calibration_bias: float
    evidence_size: int = 0


def head_form(sizes: HeadSizes, capability: int) -> Specialization:
    """The kernel, every tensor contiguous.

    Its parameters are, in this order: state ``[B, M * R, D]``; fp32: norm weight and norm bias ``[D]``, head rows
    ``[2, D]``, their biases ``[2]``, relevance ``[B, E]`` and evidence ``[M, R, E]`` for E > 0; M; probability fp32
    ``[B, M]``.

    Args:
        capability: of the GPU, ten times the major number plus the minor one.
    """
    shape = ScoringHeadShape(
        width=sizes.width,
        views=sizes.views,
        evidence=sizes.evidence_size,
        evidence_stride=sizes.evidence_size,
        dtype=DTYPES[sizes.dtype],
        residual=False,
        norm="layer",
        priced=False,
        top=0,
    )
    return shape.specialize(nearest_target(*divmod(capability, 10))).with_constants(
        epsilon=sizes.epsilon, temperature=sizes.temperature, calibration_bias=sizes.calibration_bias, value=1.0
    )


def register(capability: int) -> None:
    """Register both forms, with and without evidence, for a GPU."""
    import tensorrt
    import tensorrt.plugin as trtp

    from modelsat_engine.export.tensorrt.plugins.declaration import Fraction, Launch, Numbers, Tensors, Whole, declare

    def candidates(inputs: Tensors, numbers: Numbers) -> trtp.ShapeExpr:
        state: trtp.TensorDesc = inputs["state"]
        return state.shape_expr[1] // int(numbers["views"])

    def output(inputs: Tensors, numbers: Numbers) -> trtp.TensorDesc:
        state: trtp.TensorDesc = inputs["state"]
        shape = (state.shape_expr[0], candidates(inputs, numbers))
        return trtp.from_shape_expr(shape, tensorrt.DataType.FLOAT)

    def launch(inputs: Tensors, numbers: Numbers) -> Launch:
        state: trtp.TensorDesc = inputs["state"]
        sizes = HeadSizes(
            dtype=state.dtype.name,
            width=int(numbers["width"]),
            views=int(numbers["views"]),
            epsilon=numbers["epsilon"],
            temperature=numbers["temperature"],
            calibration_bias=numbers["calibration_bias"],
            evidence_size=int(numbers.get("evidence_size", 0)),
        )
        form, zoo = head_form(sizes, capability), candidates(inputs, numbers)
        blocks = trtp.cdiv(zoo, form.constants["BLOCK_CANDIDATES"])
        return Launch(compile_plugin(form, capability), blocks, state.shape_expr[0], zoo)

    whole, fractions = dict.fromkeys(("width", "views"), Whole), ("epsilon", "temperature", "calibration_bias")
    numbers = {**whole, **dict.fromkeys(fractions, Fraction)}
    declare(HEAD, _HEAD, numbers, output, launch)
    declare(HEAD_WITH_EVIDENCE, (*_HEAD, *_EVIDENCE), {**numbers, "evidence_size": Whole}, output, launch)
