"""Launch of the scoring head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.checks import FLOATS, check_tensor, row_stride
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.scoring_head.triton import scoring_head_kernel
from modelsat_engine.kernels.specialization import Specialization, pointer, power_of_two, tiles

NORMS = {"none": 0, "layer": 1, "rms": 2}


@dataclass(frozen=True)
class ScoringHeadShape:
    """What is compiled in.

    Attributes:
        width: D. views: R. evidence: E, 0 for none.
        evidence_stride: elements from one candidate's view to the next.
        dtype: of the states.
        residual: whether one is added. norm: "none", "layer" or "rms".
        priced: whether prices count. top: how many of the best are named, 0 for none.
    """

    width: int
    views: int
    evidence: int
    evidence_stride: int
    dtype: torch.dtype
    residual: bool
    norm: str
    priced: bool
    top: int

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        sizes = str(self.width)
        chosen = tile("scoring_head", self.dtype, sizes, target)
        states = ["state"] + ["residual"] * self.residual
        floats = ["head_weight", "head_bias", "probability"]
        floats += ["norm_weight"] * (self.norm != "none") + ["norm_bias"] * (self.norm == "layer")
        floats += ["relevance", "evidence"] * (self.evidence > 0)
        floats += ["price"] * self.priced + ["best_utility"] * (self.top > 0)
        ranks = ["best", "arrivals"] * (self.top > 0)
        return Specialization(
            kernel="scoring_head",
            function=scoring_head_kernel,
            arguments={
                **dict.fromkeys(states, pointer(self.dtype)),
                **dict.fromkeys(floats, "*fp32"),
                "candidates": "i32",
                **dict.fromkeys(("epsilon", "temperature", "calibration_bias", "value"), "fp32"),
                **dict.fromkeys(ranks, "*i32"),
            },
            constants={
                "WIDTH": self.width,
                "VIEWS": self.views,
                "RESIDUAL": self.residual,
                "NORM": NORMS[self.norm],
                "EVIDENCE": self.evidence,
                "EVIDENCE_STRIDE": self.evidence_stride,
                "PRICED": self.priced,
                "TOP": self.top,
                "BLOCK_WIDTH": power_of_two(self.width),
                "BLOCK_EVIDENCE": power_of_two(max(self.evidence, 1)),
                "BLOCK_CANDIDATES": chosen["block_candidates"],
                "BLOCK_TOP": chosen["block_top"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=sizes,
        )


@dataclass(frozen=True)
class Head:
    """What a router's head is made of; tensors fp32, on the device of the states.

    Attributes:
        weight: ``[2, D]``, the rows of Yes and No; a head of one row has zeros for No. bias: ``[2]``.
        temperature, calibration_bias: fitted on validation outcomes.
        norm: what the trunk's last norm is, "none" where it was applied already; norm_weight, norm_bias: ``[D]``;
            epsilon: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    temperature: float
    calibration_bias: float
    norm: str
    norm_weight: Tensor
    norm_bias: Tensor
    epsilon: float


@dataclass(frozen=True)
class Best:
    """Where the best candidates go, and what makes one the best.

    Attributes:
        columns: int32 ``[B, k]``; utilities: fp32 ``[B, k]``.
        arrivals: int32 ``[B]``, zeros before the first launch and after every one.
        value: US dollars for a correct answer; price: US dollars for one request, fp32 ``[M]``, NaN where unknown.
    """

    columns: Tensor
    utilities: Tensor
    arrivals: Tensor
    value: float = 1.0
    price: Tensor | None = None


def scoring_head(
    state: Tensor,
    residual: Tensor | None,
    head: Head,
    weighed: tuple[Tensor, Tensor] | None,
    probability: Tensor,
    best: Best | None = None,
) -> Tensor:
    """Calibrated P(Yes) of every candidate and the best of them, see `reference`.

    Args:
        state: fp16, bf16 or fp32 ``[B, M, R, D]``; residual: likewise, or None to add nothing.
        head: the router's head.
        weighed: relevance fp32 ``[B, E]`` and evidence fp32 ``[M, R, E]`` (rows may be apart); None adds nothing.
        probability: fp32 ``[B, M]``.
        best: None ranks nothing.

    Returns:
        `probability`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout.
    """
    check_tensor("state", state, (None, None, None, None), FLOATS, state)
    batch, candidates, views, width = state.shape
    if residual is not None:
        check_tensor("residual", residual, tuple(state.shape), state.dtype, state)
    for name, tensor, extents in (
        ("head.weight", head.weight, (2, width)),
        ("head.bias", head.bias, (2,)),
        ("head.norm_weight", head.norm_weight, (width,)),
        ("head.norm_bias", head.norm_bias, (width,)),
        ("probability", probability, (batch, candidates)),
    ):
        check_tensor(name, tensor, extents, torch.float32, state)
    if head.norm not in NORMS:
        raise KernelError(f"norm {head.norm!r} is not known; use {', '.join(NORMS)}")
    if not head.temperature > 0:
        raise KernelError(f"the temperature must be more than 0, not {head.temperature}")
    evidence_size, evidence_stride = 0, 0
    relevance = evidence = None
    if weighed is not None:
        relevance, evidence = weighed
        check_tensor("relevance", relevance, (batch, None), torch.float32, state)
        evidence_size = relevance.shape[1]
        check_tensor("evidence", evidence, (candidates, views, evidence_size), torch.float32, state, contiguous=False)
        evidence_stride = row_stride("evidence", evidence, evidence_size)
    shape = ScoringHeadShape(
        width=width,
        views=views,
        evidence=evidence_size,
        evidence_stride=evidence_stride,
        dtype=state.dtype,
        residual=residual is not None,
        norm=head.norm,
        priced=best is not None and best.price is not None,
        top=0 if best is None else _check_best(best, probability),
    )
    chosen = shape.specialize(target_of(state.device))
    chosen.launch(
        (tiles(candidates, chosen.constants["BLOCK_CANDIDATES"]), batch),
        state=state,
        residual=residual,
        norm_weight=head.norm_weight,
        norm_bias=head.norm_bias,
        head_weight=head.weight,
        head_bias=head.bias,
        relevance=relevance,
        evidence=evidence,
        price=None if best is None else best.price,
        candidates=candidates,
        epsilon=head.epsilon,
        temperature=head.temperature,
        calibration_bias=head.calibration_bias,
        value=1.0 if best is None else best.value,
        probability=probability,
        best=None if best is None else best.columns,
        best_utility=None if best is None else best.utilities,
        arrivals=None if best is None else best.arrivals,
    )
    return probability


def _check_best(best: Best, probability: Tensor) -> int:
    """How many of the best are asked for."""
    batch, candidates = probability.shape
    check_tensor("best.columns", best.columns, (batch, None), torch.int32, probability)
    top = best.columns.shape[1]
    if not top:
        raise KernelError("best.columns has no column; pass best=None to rank nothing")
    check_tensor("best.utilities", best.utilities, (batch, top), torch.float32, probability)
    check_tensor("best.arrivals", best.arrivals, (batch,), torch.int32, probability)
    if best.price is not None:
        check_tensor("best.price", best.price, (candidates,), torch.float32, probability)
    return top
