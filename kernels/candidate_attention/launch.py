"""Launch of candidate attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.errors import KernelError
from modelsat_engine.kernels.candidate_attention.triton import candidate_attention_kernel
from modelsat_engine.kernels.checks import FLOATS, check_tensor, row_stride
from modelsat_engine.kernels.configs import target_of, tile
from modelsat_engine.kernels.specialization import Specialization, pointer, power_of_two, tiles

#: The longest instruction that the kernel is tested for, in tokens.
MAX_PREFIX_TOKENS = 8192
#: An instruction longer than this is cut every so many keys, and its pieces run side by side.
SPLIT_KEYS = 1024


@dataclass(frozen=True)
class CandidateAttentionShape:
    """What is compiled in.

    Attributes:
        heads, key_heads: query heads and key heads; the first is a multiple of the second.
        head_width: d. inquiry_rows: P. memory_rows: K.
        dtype: of everything but sums.
        same_query: whether all instructions have the same inquiry rows, as in the first late layer.
        split_keys: :data:`SPLIT_KEYS` where an instruction may be longer than that, else 0.
        row_stride, prefix_stride, memory_stride, out_stride: elements from one inquiry row, instruction row,
            candidate's memory and output row to the next.
        padded: whether each instruction has a begin and an end of its own, for rows with padding between them.
    """

    heads: int
    key_heads: int
    head_width: int
    inquiry_rows: int
    memory_rows: int
    dtype: torch.dtype
    same_query: bool
    split_keys: int
    row_stride: int
    prefix_stride: int
    memory_stride: int
    out_stride: int
    padded: bool = False

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""
        kind = "candidate_attention.memory" if self.memory_rows else "candidate_attention"
        chosen = tile(kind, self.dtype, str(self.head_width), target)
        values = ["query", "own_key", "own_value", "prefix_key", "prefix_value", "out"]
        values += ["memory_key", "memory_value"] if self.memory_rows else []
        workspace = {"partial": "*fp32", "arrivals": "*i32"} if self.split_keys else {}
        return Specialization(
            kernel="candidate_attention",
            function=candidate_attention_kernel,
            arguments={
                **dict.fromkeys(values, pointer(self.dtype)),
                "cu_seqlens": "*i32",
                "candidates": "i32",
                "chunks": "i32",
                "scale_log2": "fp32",
                **workspace,
            },
            constants={
                "ROW_STRIDE": self.row_stride,
                "PREFIX_STRIDE": self.prefix_stride,
                "MEMORY_STRIDE": self.memory_stride,
                "OUT_STRIDE": self.out_stride,
                "SAME_QUERY": self.same_query,
                "KEY_HEADS": self.key_heads,
                "GROUP": self.heads // self.key_heads,
                "HEAD_WIDTH": self.head_width,
                "INQUIRY_ROWS": self.inquiry_rows,
                "MEMORY_ROWS": self.memory_rows,
                "SPLIT_KEYS": self.split_keys,
                "BOUNDS_STEP": 2 if self.padded else 1,
                "BLOCK_WIDTH": power_of_two(self.head_width),
                "BLOCK_ROWS": chosen["block_rows"],
                "BLOCK_MEMORY": chosen["block_memory"],
                "BLOCK_KEYS": chosen["block_keys"],
            },
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
            sizes=str(self.head_width),
        )


def candidate_attention(
    query: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    cu_seqlens: Tensor,
    longest: int,
    out: Tensor,
    memory_key: Tensor | None = None,
    memory_value: Tensor | None = None,
    split_keys: int = SPLIT_KEYS,
) -> Tensor:
    """Every inquiry row of a batch, see `reference.packed_candidate_attention_reference`.

    Args:
        query: fp16, bf16 or fp32 ``[B or 1, C, P, H, d]``; own_key, own_value: ``[B or 1, C, P, G, d]``. The three
            have the same distance from row to row, as parts of one projection have.
        prefix_key, prefix_value: ``[T, G, d]``, likewise.
        cu_seqlens: int32 ``[B + 1]``, rising, within T.
        longest: rows of the longest instruction, or a bound of it, 0 to :data:`MAX_PREFIX_TOKENS`.
        out: ``[B, C, P, H, d]``, contiguous.
        memory_key, memory_value: ``[C, K, G, d]``, a candidate's rows side by side, or None for K = 0.
        split_keys: where longer instructions are cut, a multiple of 64. Part of what a result means to the last bit,
            so a deployment keeps one.

    Returns:
        `out`.

    Raises:
        KernelError: an argument has another shape, dtype, device or layout, or the prefix is too long.
    """
    check_tensor("query", query, (None,) * 5, FLOATS, query, contiguous=False)
    same, candidates, inquiry_rows, heads, width = query.shape
    check_tensor("own_key", own_key, (same, candidates, inquiry_rows, None, width), query.dtype, query, False)
    key_heads = own_key.shape[3]
    check_tensor("own_value", own_value, tuple(own_key.shape), query.dtype, query, False)
    check_tensor("prefix_key", prefix_key, (None, key_heads, width), query.dtype, query, False)
    check_tensor("prefix_value", prefix_value, tuple(prefix_key.shape), query.dtype, query, False)
    check_tensor("cu_seqlens", cu_seqlens, (None,), torch.int32, query)
    batch = cu_seqlens.shape[0] - 1
    check_tensor("out", out, (batch, candidates, inquiry_rows, heads, width), query.dtype, query)
    if same not in (1, batch):
        raise KernelError(f"query has rows for {same} instructions, cu_seqlens for {batch}; pass one set, or one each")
    if not key_heads or heads % key_heads:
        raise KernelError(f"{heads} query heads cannot share {key_heads} key heads evenly")
    if not 0 <= longest <= MAX_PREFIX_TOKENS:
        raise KernelError(f"an instruction of {longest} tokens is over the limit of {MAX_PREFIX_TOKENS}; shorten it")
    if split_keys < 64 or split_keys % 64:
        raise KernelError(f"split_keys must be a multiple of 64, not {split_keys}")
    own = key_heads * width
    memory_rows, memory_stride = 0, 0
    if memory_key is not None and memory_value is not None:
        memory_rows, memory_stride = _memory_layout(memory_key, memory_value, (candidates, key_heads, width), query)
    elif memory_key is not None or memory_value is not None:
        raise KernelError("memory_key and memory_value come together; pass both, or neither for K = 0")
    chunks = tiles(longest, split_keys)
    shape = CandidateAttentionShape(
        heads=heads,
        key_heads=key_heads,
        head_width=width,
        inquiry_rows=inquiry_rows,
        memory_rows=memory_rows,
        dtype=query.dtype,
        same_query=same == 1 and batch != 1,
        split_keys=split_keys if chunks > 1 else 0,
        row_stride=_one_stride(
            {"query": (query, heads * width), "own_key": (own_key, own), "own_value": (own_value, own)}
        ),
        prefix_stride=_one_stride({"prefix_key": (prefix_key, own), "prefix_value": (prefix_value, own)}),
        memory_stride=memory_stride,
        out_stride=heads * width,
    )
    chosen = shape.specialize(target_of(query.device))
    grid = (
        tiles(candidates * inquiry_rows * (heads // key_heads), chosen.constants["BLOCK_ROWS"]),
        batch * key_heads,
        max(chunks, 1),
    )
    partial = arrivals = None
    if chunks > 1:
        block, block_width = chosen.constants["BLOCK_ROWS"], chosen.constants["BLOCK_WIDTH"]
        pieces = grid[0] * grid[1] * chunks
        partial = torch.empty(pieces * block * (block_width + 2), dtype=torch.float32, device=query.device)
        arrivals = torch.zeros(grid[0] * grid[1], dtype=torch.int32, device=query.device)
    chosen.launch(
        grid,
        query=query,
        own_key=own_key,
        own_value=own_value,
        memory_key=memory_key,
        memory_value=memory_value,
        prefix_key=prefix_key,
        prefix_value=prefix_value,
        cu_seqlens=cu_seqlens,
        candidates=candidates,
        chunks=chunks,
        scale_log2=math.log2(math.e) / math.sqrt(width),
        out=out,
        partial=partial,
        arrivals=arrivals,
    )
    return out


def _one_stride(tensors: dict[str, tuple[Tensor, int]]) -> int:
    """Elements from row to row, which tensors of one projection share; each with the elements of one row."""
    strides = {row_stride(name, tensor, inner) for name, (tensor, inner) in tensors.items()}
    single = all(tensor.numel() == inner for tensor, inner in tensors.values())
    if len(strides) > 1 and not single:
        raise KernelError(f"{', '.join(tensors)} differ in their distance from row to row; pass parts of one tensor")
    return max(strides)


def _memory_layout(key: Tensor, value: Tensor, sizes: tuple[int, int, int], beside: Tensor) -> tuple[int, int]:
    """K, and elements from one candidate's memory to the next."""
    candidates, key_heads, width = sizes
    check_tensor("memory_key", key, (candidates, None, key_heads, width), beside.dtype, beside, False)
    check_tensor("memory_value", value, tuple(key.shape), beside.dtype, beside, False)
    rows = key.shape[1]
    if not rows:
        raise KernelError("memory_key has no rows; pass None for K = 0")
    inner = rows * key_heads * width
    return rows, _one_stride({"memory_key": (key, inner), "memory_value": (value, inner)})
