"""Candidate attention on the GPU: every inquiry row of a batch, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _fold(peak, weight_sum, total, score, values):
    """One key per row into the online softmax: score fp32 ``[N]``, values fp32 ``[N, W]``."""
    new_peak = tl.maximum(peak, score)
    fade = tl.exp2(peak - new_peak)
    weight = tl.exp2(score - new_peak)
    return new_peak, weight_sum * fade + weight, total * fade[:, None] + weight[:, None] * values


@triton.jit
def _keep_piece(partial, piece, peak, weight_sum, total, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """State of the online softmax after one piece: ``[ROWS, WIDTH]`` sums, then ROWS peaks, then ROWS weight sums."""
    row, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    mine = partial + piece * (ROWS * (WIDTH + 2))
    tl.store(mine + row[:, None] * WIDTH + column[None, :], total)
    tl.store(mine + ROWS * WIDTH + row, peak)
    tl.store(mine + ROWS * (WIDTH + 1) + row, weight_sum)


@triton.jit
def _merge_pieces(partial, pieces, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Weight sum and total over all pieces, from the first to the last whoever came when."""
    row, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for piece in range(pieces):
        # past the first-level cache: other multiprocessors have written this
        other = partial + piece * (ROWS * (WIDTH + 2))
        values = tl.load(other + row[:, None] * WIDTH + column[None, :], cache_modifier=".cg")
        other_peak = tl.load(other + ROWS * WIDTH + row, cache_modifier=".cg")
        other_sum = tl.load(other + ROWS * (WIDTH + 1) + row, cache_modifier=".cg")
        new_peak = tl.maximum(peak, other_peak)
        fade = tl.exp2(peak - new_peak)
        gain = tl.exp2(other_peak - new_peak)
        weight_sum = weight_sum * fade + other_sum * gain
        total = total * fade[:, None] + values * gain[:, None]
        peak = new_peak
    return weight_sum, total


@triton.jit(do_not_specialize=["candidates", "chunks"])
def candidate_attention_kernel(
    query,
    own_key,
    own_value,
    memory_key,
    memory_value,
    prefix_key,
    prefix_value,
    cu_seqlens,
    candidates,
    chunks,
    scale_log2,
    out,
    partial,
    arrivals,
    ROW_STRIDE: tl.constexpr,
    PREFIX_STRIDE: tl.constexpr,
    MEMORY_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    SAME_QUERY: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    INQUIRY_ROWS: tl.constexpr,
    MEMORY_ROWS: tl.constexpr,
    SPLIT_KEYS: tl.constexpr,
    BOUNDS_STEP: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_MEMORY: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """``out = softmax(q . keys / sqrt d) . values`` for each inquiry row, with

    ``keys = own_key[p] || own_key[0 .. p) || memory_key[c, 0 .. K) || prefix_key[instruction]``

    for row p of candidate c. The online softmax starts from the row's own key, goes on over the rows before it and
    over the candidate's memory, both read row by row since no two candidates share them, and then streams the
    instruction past a tile of BLOCK_ROWS rows, which all share it. In powers of two: `scale_log2` is
    ``log2(e) / sqrt d``.

    With SPLIT_KEYS > 0 the instruction is cut every SPLIT_KEYS keys and each piece has a program of its own; the one
    that comes last merges the pieces of its tile, in their order. Where the cuts are depends on the instruction's
    length alone, so a row's result does not depend on the batch.

    Args:
        query: ``[B or 1, C, P, H, HEAD_WIDTH]``, rows ROW_STRIDE apart; 1 (SAME_QUERY) is read for every instruction.
        own_key, own_value: ``[B or 1, C, P, KEY_HEADS, HEAD_WIDTH]``, like `query`; H = KEY_HEADS * GROUP.
        memory_key, memory_value: ``[C, K, KEY_HEADS, HEAD_WIDTH]``, candidates MEMORY_STRIDE apart; not read for K = 0.
        prefix_key, prefix_value: ``[T, KEY_HEADS, HEAD_WIDTH]``, rows PREFIX_STRIDE apart.
        cu_seqlens: int32 ``[B + 1]`` for BOUNDS_STEP = 1; for 2 ``[B, 2]``, where the rows of each instruction begin
            and end, so that there may be others between them.
        candidates: C. chunks: pieces of the longest instruction that may come.
        out: ``[B, C, P, H, HEAD_WIDTH]``, rows OUT_STRIDE apart.
        partial: fp32 ``[B * KEY_HEADS, tiles, chunks, BLOCK_ROWS, BLOCK_WIDTH + 2]``; arrivals: int32
            ``[B * KEY_HEADS, tiles]``, zeros; neither is touched unless SPLIT_KEYS.
    """
    tile = tl.program_id(0)
    request = tl.program_id(1) // KEY_HEADS
    head = tl.program_id(1) % KEY_HEADS
    chunk = tl.program_id(2)
    first = tl.load(cu_seqlens + request * BOUNDS_STEP)
    length = tl.load(cu_seqlens + request * BOUNDS_STEP + 1) - first
    begin = 0
    end = length
    if SPLIT_KEYS > 0:
        begin = chunk * SPLIT_KEYS
        end = tl.minimum(length, begin + SPLIT_KEYS)
        if (chunk > 0) & (begin >= length):
            return
    # row = (candidate, inquiry row, query head of this key head), the last running fastest
    row = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_WIDTH)
    inside = column < HEAD_WIDTH
    candidate = row // (INQUIRY_ROWS * GROUP)
    inquiry = (row // GROUP) % INQUIRY_ROWS
    there = candidate < candidates
    mask = there[:, None] & inside[None, :]
    candidate = candidate.to(tl.int64)
    batch_row = request.to(tl.int64) * candidates * INQUIRY_ROWS
    source = candidate * INQUIRY_ROWS
    if not SAME_QUERY:
        source += batch_row
    query_column = (head * GROUP + row % GROUP)[:, None] * HEAD_WIDTH + column[None, :]
    key_column = head * HEAD_WIDTH + column
    q = tl.load(query + (source + inquiry)[:, None] * ROW_STRIDE + query_column, mask=mask, other=0.0)

    peak = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((BLOCK_ROWS,), tl.float32)
    total = tl.zeros((BLOCK_ROWS, BLOCK_WIDTH), tl.float32)
    if chunk == 0:
        wide = q.to(tl.float32)
        place = (source + inquiry)[:, None] * ROW_STRIDE + key_column[None, :]
        k = tl.load(own_key + place, mask=mask, other=0.0).to(tl.float32)
        total = tl.load(own_value + place, mask=mask, other=0.0).to(tl.float32)
        peak = tl.sum(wide * k, 1) * scale_log2
        weight_sum = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
        for before in range(INQUIRY_ROWS - 1):
            place = (source + before)[:, None] * ROW_STRIDE + key_column[None, :]
            k = tl.load(own_key + place, mask=mask, other=0.0).to(tl.float32)
            v = tl.load(own_value + place, mask=mask, other=0.0).to(tl.float32)
            score = tl.where(before < inquiry, tl.sum(wide * k, 1) * scale_log2, float("-inf"))
            peak, weight_sum, total = _fold(peak, weight_sum, total, score, v)
        if MEMORY_ROWS > 0:
            for start in range(0, MEMORY_ROWS, BLOCK_MEMORY):
                recalled = start + tl.arange(0, BLOCK_MEMORY)
                known = recalled < MEMORY_ROWS
                cell = (
                    candidate[:, None, None] * MEMORY_STRIDE
                    + recalled[None, :, None] * (KEY_HEADS * HEAD_WIDTH)
                    + key_column[None, None, :]
                )
                visible = mask[:, None, :] & known[None, :, None]
                keys = tl.load(memory_key + cell, mask=visible, other=0.0).to(tl.float32)
                values = tl.load(memory_value + cell, mask=visible, other=0.0).to(tl.float32)
                scores = tl.sum(wide[:, None, :] * keys, 2) * scale_log2
                scores = tl.where(known[None, :], scores, float("-inf"))
                new_peak = tl.maximum(peak, tl.max(scores, 1))
                fade = tl.exp2(peak - new_peak)
                weights = tl.exp2(scores - new_peak[:, None])
                weight_sum = weight_sum * fade + tl.sum(weights, 1)
                total = total * fade[:, None] + tl.sum(weights[:, :, None] * values, 1)
                peak = new_peak

    for start in range(begin, end, BLOCK_KEYS):
        key_row = start + tl.arange(0, BLOCK_KEYS)
        read = key_row < end
        offset = (first + key_row).to(tl.int64) * PREFIX_STRIDE
        prefix_keys = tl.load(
            prefix_key + offset[None, :] + key_column[:, None], mask=read[None, :] & inside[:, None], other=0.0
        )
        prefix_values = tl.load(
            prefix_value + offset[:, None] + key_column[None, :], mask=read[:, None] & inside[None, :], other=0.0
        )
        prefix_scores = tl.dot(q, prefix_keys, input_precision="ieee") * scale_log2
        prefix_scores = tl.where(read[None, :], prefix_scores, float("-inf"))
        next_peak = tl.maximum(peak, tl.max(prefix_scores, 1))
        shrink = tl.exp2(peak - next_peak)
        weight = tl.exp2(prefix_scores - next_peak[:, None])
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        total = tl.dot(weight.to(prefix_values.dtype), prefix_values, total * shrink[:, None], input_precision="ieee")
        peak = next_peak

    target = (batch_row + candidate * INQUIRY_ROWS + inquiry)[:, None] * OUT_STRIDE + query_column
    pieces = 1
    if SPLIT_KEYS > 0:
        pieces = tl.maximum(tl.cdiv(length, SPLIT_KEYS), 1)
        if pieces > 1:
            tile_index = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tile
            partial += tile_index * chunks * (BLOCK_ROWS * (BLOCK_WIDTH + 2))
            _keep_piece(partial, chunk, peak, weight_sum, total, BLOCK_ROWS, BLOCK_WIDTH)
            tl.debug_barrier()  # all threads have stored before one of them announces it
            arrived = tl.atomic_add(arrivals + tile_index, 1, sem="acq_rel")
            if arrived == pieces - 1:
                tl.debug_barrier()
                weight_sum, total = _merge_pieces(partial, pieces, BLOCK_ROWS, BLOCK_WIDTH)
                tl.store(out + target, (total / weight_sum[:, None]).to(out.dtype.element_ty), mask=mask)
    if pieces == 1:
        tl.store(out + target, (total / weight_sum[:, None]).to(out.dtype.element_ty), mask=mask)
