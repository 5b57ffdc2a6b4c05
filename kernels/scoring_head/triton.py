"""The scoring head on the GPU: from the last hidden states to probabilities and the best candidates, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from modelsat_engine.kernels.normalization import normalize_rows


@triton.jit
def _utility(probability, price, column, candidates, value, PRICED: tl.constexpr):
    """``value * P - price`` of the columns; -inf beyond the zoo, for NaN and where a price is unknown (NaN)."""
    there = column < candidates
    # past the first-level cache: other multiprocessors have written these
    utility = value * tl.load(probability + column, mask=there, other=0.0, cache_modifier=".cg")
    if PRICED:
        utility -= tl.load(price + column, mask=there, other=0.0)
    return tl.where(there & (utility == utility), utility, float("-inf"))


@triton.jit(do_not_specialize=["candidates"])
def scoring_head_kernel(
    state,
    residual,
    norm_weight,
    norm_bias,
    head_weight,
    head_bias,
    relevance,
    evidence,
    price,
    candidates,
    epsilon,
    temperature,
    calibration_bias,
    value,
    probability,
    best,
    best_utility,
    arrivals,
    WIDTH: tl.constexpr,
    VIEWS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    NORM: tl.constexpr,
    EVIDENCE: tl.constexpr,
    EVIDENCE_STRIDE: tl.constexpr,
    PRICED: tl.constexpr,
    TOP: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_EVIDENCE: tl.constexpr,
    BLOCK_CANDIDATES: tl.constexpr,
    BLOCK_TOP: tl.constexpr,
):
    """Equation (4) of Model-SAT, calibrated, averaged over the views, and what follows from it::

        h       = norm(state + residual)
        logit   = h . (w_yes - w_no) + b_yes - b_no + relevance_b . evidence_c
        P       = mean over views of sigmoid(logit / temperature + calibration_bias)
        best    = the TOP columns of largest value * P - price, the earlier one among equals

    The programs of an instruction write their probabilities; the one that comes last ranks them all.

    Args:
        state, residual: ``[B, C, VIEWS, WIDTH]``, contiguous; the residual is not read unless RESIDUAL.
        norm_weight, norm_bias: fp32 ``[WIDTH]``; NORM is 0 for none, 1 for LayerNorm, 2 for RMSNorm.
        head_weight: fp32 ``[2, WIDTH]``, the rows of Yes and No; head_bias: fp32 ``[2]``.
        relevance: fp32 ``[B, EVIDENCE]``; evidence: fp32 ``[C, VIEWS, EVIDENCE]``, rows EVIDENCE_STRIDE apart; neither
            is read for EVIDENCE = 0.
        price: fp32 ``[C]``, US dollars for one request, NaN where unknown (such a candidate is never among the best);
            not read unless PRICED.
        candidates: C. value: US dollars for a correct answer.
        probability: fp32 ``[B, C]``.
        best: int32 ``[B, TOP]``, -1 where there is none; best_utility: fp32 ``[B, TOP]``, -inf there; arrivals: int32
            ``[B]``, zeros, which it leaves behind. None of the three is touched for TOP = 0.
    """
    request = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, BLOCK_WIDTH)
    inside = column < WIDTH
    candidate = tl.program_id(0) * BLOCK_CANDIDATES + tl.arange(0, BLOCK_CANDIDATES)
    there = candidate < candidates
    candidate = candidate.to(tl.int64)
    mask = there[:, None] & inside[None, :]
    yes = tl.load(head_weight + column, mask=inside, other=0.0)
    no = tl.load(head_weight + WIDTH + column, mask=inside, other=0.0)
    bias = tl.load(head_bias) - tl.load(head_bias + 1)
    if EVIDENCE > 0:
        task = tl.arange(0, BLOCK_EVIDENCE)
        tested = task < EVIDENCE
        relevant = tl.load(relevance + request * EVIDENCE + task, mask=tested, other=0.0)
    mean = tl.zeros((BLOCK_CANDIDATES,), tl.float32)
    for view in range(VIEWS):
        row = (request * candidates + candidate) * VIEWS + view
        h = tl.load(state + row[:, None] * WIDTH + column[None, :], mask=mask, other=0.0).to(tl.float32)
        if RESIDUAL:
            h += tl.load(residual + row[:, None] * WIDTH + column[None, :], mask=mask, other=0.0).to(tl.float32)
        if NORM > 0:
            h = normalize_rows(h, norm_weight, norm_bias, epsilon, WIDTH, BLOCK_WIDTH, NORM == 2)
        logit = tl.sum(h * (yes - no)[None, :], 1) + bias
        if EVIDENCE > 0:
            shown = tl.load(
                evidence + (candidate * VIEWS + view)[:, None] * EVIDENCE_STRIDE + task[None, :],
                mask=there[:, None] & tested[None, :],
                other=0.0,
            )
            logit += tl.sum(shown * relevant[None, :], 1)
        mean += tl.sigmoid(logit / temperature + calibration_bias)
    probability += request * candidates
    tl.store(probability + candidate, mean / VIEWS, mask=there)

    if TOP > 0:
        tl.debug_barrier()  # all threads have stored before one of them announces it
        arrived = tl.atomic_add(arrivals + request, 1, sem="acq_rel")
        if arrived == tl.num_programs(0) - 1:
            tl.debug_barrier()
            last_utility = float("inf")
            last_column = -1
            for rank in range(TOP):
                # the best after the last one, in the order (utility falling, column rising)
                top_utility = float("-inf")
                top_column = -1
                for start in range(0, candidates, BLOCK_TOP):
                    other = start + tl.arange(0, BLOCK_TOP)
                    utility = _utility(probability, price, other, candidates, value, PRICED)
                    after = (utility < last_utility) | ((utility == last_utility) & (other > last_column))
                    utility = tl.where(after, utility, float("-inf"))
                    largest = tl.max(utility, 0)
                    where = tl.min(tl.where(utility == largest, other, 2147483647), 0)
                    better = largest > top_utility
                    top_utility = tl.where(better, largest, top_utility)
                    top_column = tl.where(better, where, top_column)
                tl.store(best + request * TOP + rank, top_column)
                tl.store(best_utility + request * TOP + rank, top_utility)
                last_utility = top_utility
                last_column = top_column
            tl.store(arrivals + request, 0)
