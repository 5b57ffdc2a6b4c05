"""The scoring head as a plugin: last norm, two head rows, evidence, calibration, mean over views.

TensorRT reads the annotations of these functions as they stand, so this module has no ``from __future__ import``.
"""

from dataclasses import dataclass
from typing import Any

from modelsat_engine.export.tensorrt.plugin_graph import DOMAIN, HEAD, HEAD_WITH_EVIDENCE
from modelsat_engine.export.tensorrt.plugins.ptx import DTYPES, Fraction, Whole, compile_plugin
from modelsat_engine.kernels.configs import nearest_target
from modelsat_engine.kernels.scoring_head.launch import ScoringHeadShape
from modelsat_engine.kernels.specialization import Specialization


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
    evidence_size: int
    epsilon: float
    temperature: float
    calibration_bias: float

    @classmethod
    def of(cls, dtype: str, *numbers: Whole | Fraction) -> "HeadSizes":
        """From the node's attributes: width, views, epsilon, temperature, calibration_bias and evidence_size if any."""
        width, views, epsilon, temperature, calibration_bias, *evidence_size = (number[0] for number in numbers)
        return cls(
            dtype,
            int(width),
            int(views),
            int(evidence_size[0]) if evidence_size else 0,
            float(epsilon),
            float(temperature),
            float(calibration_bias),
        )


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


#: Entry, PTX, launch parameters, integers.
_Kernel = tuple[str, str, Any, Any]


def register(capability: int) -> None:
    """Register both forms, with and without evidence, for a GPU."""
    import tensorrt
    import tensorrt.plugin as trtp

    def launch(sizes: HeadSizes, state: trtp.TensorDesc, candidates: trtp.ShapeExpr) -> _Kernel:
        form = head_form(sizes, capability)
        kernel = compile_plugin(form, capability)
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x = trtp.cdiv(candidates, form.constants["BLOCK_CANDIDATES"])
        parameters.grid_y = state.shape_expr[0]
        parameters.block_x = kernel.threads
        parameters.shared_mem = kernel.shared_bytes
        integers = trtp.SymIntExprs(1)
        integers[0] = trtp.SymInt32(candidates)
        return kernel.entry, kernel.ptx, parameters, integers

    @trtp.register(f"{DOMAIN}::{HEAD}")
    def describe(
        state: trtp.TensorDesc,
        norm_weight: trtp.TensorDesc,
        norm_bias: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        width: Whole,
        views: Whole,
        epsilon: Fraction,
        temperature: Fraction,
        calibration_bias: Fraction,
    ) -> trtp.TensorDesc:
        shape = (state.shape_expr[0], state.shape_expr[1] // int(views[0]))
        return trtp.from_shape_expr(shape, tensorrt.DataType.FLOAT)

    @trtp.aot_impl(f"{DOMAIN}::{HEAD}")
    def implement(
        state: trtp.TensorDesc,
        norm_weight: trtp.TensorDesc,
        norm_bias: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        width: Whole,
        views: Whole,
        epsilon: Fraction,
        temperature: Fraction,
        calibration_bias: Fraction,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        sizes = HeadSizes.of(state.dtype.name, width, views, epsilon, temperature, calibration_bias)
        return launch(sizes, state, state.shape_expr[1] // sizes.views)

    @trtp.register(f"{DOMAIN}::{HEAD_WITH_EVIDENCE}")
    def describe_with_evidence(
        state: trtp.TensorDesc,
        norm_weight: trtp.TensorDesc,
        norm_bias: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        relevance: trtp.TensorDesc,
        evidence: trtp.TensorDesc,
        width: Whole,
        views: Whole,
        epsilon: Fraction,
        temperature: Fraction,
        calibration_bias: Fraction,
        evidence_size: Whole,
    ) -> trtp.TensorDesc:
        shape = (state.shape_expr[0], evidence.shape_expr[0])
        return trtp.from_shape_expr(shape, tensorrt.DataType.FLOAT)

    @trtp.aot_impl(f"{DOMAIN}::{HEAD_WITH_EVIDENCE}")
    def implement_with_evidence(
        state: trtp.TensorDesc,
        norm_weight: trtp.TensorDesc,
        norm_bias: trtp.TensorDesc,
        rows: trtp.TensorDesc,
        row_bias: trtp.TensorDesc,
        relevance: trtp.TensorDesc,
        evidence: trtp.TensorDesc,
        width: Whole,
        views: Whole,
        epsilon: Fraction,
        temperature: Fraction,
        calibration_bias: Fraction,
        evidence_size: Whole,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        sizes = HeadSizes.of(state.dtype.name, width, views, epsilon, temperature, calibration_bias, evidence_size)
        return launch(sizes, state, evidence.shape_expr[0])
