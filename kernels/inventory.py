"""Every compiled form of the kernels that a router needs, named; what runs on a GPU is on this list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from modelsat_engine.kernels.candidate_attention.launch import SPLIT_KEYS, CandidateAttentionShape
from modelsat_engine.kernels.capability_projection.launch import CapabilityProjectionShape
from modelsat_engine.kernels.checks import FLOATS
from modelsat_engine.kernels.embedding_layer_norm.launch import EmbeddingLayerNormShape
from modelsat_engine.kernels.linear.launch import LinearShape
from modelsat_engine.kernels.mean_pool.launch import MeanPoolShape
from modelsat_engine.kernels.prefix_attention.launch import PrefixAttentionShape
from modelsat_engine.kernels.residual_layer_norm.launch import ResidualLayerNormShape
from modelsat_engine.kernels.scoring_head.launch import ScoringHeadShape
from modelsat_engine.kernels.specialization import TRITON_TYPES, Specialization
from modelsat_engine.model.config import NetworkConfig

#: Programs of a launch along x, y and z, by kernel: in the names of a form's constants and arguments, and `requests`
#: (instructions), `longest` (tokens of the longest one that may come) and `heads` (of queries).
GRIDS: dict[str, tuple[str, str, str]] = {
    "candidate_attention": (
        "ceil(candidates * INQUIRY_ROWS * GROUP / BLOCK_ROWS)",
        "requests * KEY_HEADS",
        "max(chunks, 1)",
    ),
    "capability_projection": ("ceil(OUT_FEATURES / BLOCK_COLUMNS)", "ceil(rows / BLOCK_ROWS)", "1"),
    "embedding_layer_norm": ("ceil(rows / BLOCK_ROWS)", "1", "1"),
    "linear": ("ceil(OUT_FEATURES / BLOCK_COLUMNS)", "ceil(rows / BLOCK_ROWS)", "1"),
    "mean_pool": ("requests", "ceil(WIDTH / BLOCK_COLUMNS)", "1"),
    "prefix_attention": ("ceil(longest / BLOCK_QUERIES)", "heads", "requests"),
    "residual_layer_norm": ("ceil(rows / BLOCK_ROWS)", "1", "1"),
    "scoring_head": ("ceil(candidates / BLOCK_CANDIDATES)", "requests", "1"),
}


class Shape(Protocol):
    """What the `launch.py` of a kernel compiles in."""

    def specialize(self, target: str) -> Specialization:
        """The compiled form for a GPU."""


@dataclass(frozen=True)
class Form:
    """A compiled form by name, such as ``linear-up-fp16``: kernel, use and dtype of what it computes with."""

    name: str
    shape: Shape

    @property
    def kernel(self) -> str:
        """Name of the operation."""
        return self.name.split("-", 1)[0]

    @property
    def dtype(self) -> str:
        """Triton's name of the dtype."""
        return self.name.rsplit("-", 1)[1]


def router_forms(config: NetworkConfig, dtype: torch.dtype) -> list[Form]:
    """What one forward pass of a router launches, computing in `dtype`.

    Only routers of the shared layout with an encoder trunk have one.
    """
    trunk, evidence = config.trunk, config.evidence_size
    width, wide = trunk.hidden, trunk.intermediate
    shapes: dict[str, Shape] = {
        "embedding_layer_norm-tokens": EmbeddingLayerNormShape(width, torch.int8, dtype),
        "linear-query-key-value": LinearShape(3 * width, width, dtype, dtype, False, width, 3 * width),
        "linear-key-value": LinearShape(2 * width, width, dtype, dtype, False, width, 3 * width),
        "linear-attention-output": LinearShape(width, width, dtype, dtype, False, width, width),
        "linear-up": LinearShape(wide, width, dtype, dtype, True, width, wide),
        "linear-down": LinearShape(width, wide, dtype, dtype, False, wide, width),
        "linear-candidate-start": LinearShape(
            3 * width, width, torch.float32, dtype, False, width + evidence, 3 * width
        ),
        "residual_layer_norm-rows": ResidualLayerNormShape(width, dtype),
        "prefix_attention-instruction": PrefixAttentionShape(
            trunk.heads, trunk.heads, width // trunk.heads, dtype, False, 3 * width, width
        ),
        "capability_projection-connector": CapabilityProjectionShape(
            width, config.capability_encoder.size, dtype, torch.float32, width + evidence
        ),
        "scoring_head-probability": _head(config, dtype, priced=False, top=0),
        "scoring_head-utility": _head(config, dtype, priced=True, top=3),
    }
    memory = config.memory_rows
    for name, same in (("first-late-layer", True), ("late-layer", False)):
        shapes[f"candidate_attention-{name}"] = CandidateAttentionShape(
            heads=trunk.heads,
            key_heads=trunk.heads,
            head_width=width // trunk.heads,
            inquiry_rows=1,
            memory_rows=memory,
            dtype=dtype,
            same_query=same,
            split_keys=SPLIT_KEYS if trunk.max_positions > SPLIT_KEYS else 0,
            row_stride=3 * width,
            prefix_stride=3 * width,
            memory_stride=config.late_layers * 2 * memory * width,
            out_stride=width,
        )
    if evidence:
        hidden = config.relevance_hidden
        shapes["mean_pool-instruction"] = MeanPoolShape(width, dtype, dtype)
        shapes["linear-relevance"] = LinearShape(hidden, width, dtype, dtype, True, width, hidden)
        shapes["linear-tasks"] = LinearShape(evidence, hidden, dtype, torch.float32, False, hidden, evidence)
    return [Form(f"{name}-{TRITON_TYPES[dtype]}", shape) for name, shape in shapes.items()]


def decoder_forms(dtype: torch.dtype) -> Iterator[Form]:
    """Attention and head of decoder trunks: wide heads, shared key heads, memory, three inquiry rows, long prefixes."""
    kind = TRITON_TYPES[dtype]
    for heads, key_heads, width, memory in ((32, 32, 96, 0), (32, 8, 128, 0), (28, 4, 128, 51), (16, 16, 64, 51)):
        rows = (heads + 2 * key_heads) * width
        name = f"{heads}x{width}-over-{key_heads}" + (f"-memory-{memory}" if memory else "")
        yield Form(
            f"prefix_attention-{name}-{kind}",
            PrefixAttentionShape(heads, key_heads, width, dtype, True, rows, heads * width),
        )
        yield Form(
            f"candidate_attention-{name}-{kind}",
            CandidateAttentionShape(
                heads=heads,
                key_heads=key_heads,
                head_width=width,
                inquiry_rows=3,
                memory_rows=memory,
                dtype=dtype,
                same_query=False,
                split_keys=SPLIT_KEYS,
                row_stride=rows,
                prefix_stride=rows,
                memory_stride=4 * 2 * memory * key_heads * width,
                out_stride=heads * width,
            ),
        )
    yield Form(f"scoring_head-rms-3072-{kind}", ScoringHeadShape(3072, 2, 0, 0, dtype, True, "rms", priced=True, top=3))


def all_forms(config: NetworkConfig) -> list[Form]:
    """Every form that is promised to compile: a router's and those of decoder trunks, in every dtype."""
    return [form for dtype in FLOATS for form in (*router_forms(config, dtype), *decoder_forms(dtype))]


def _head(config: NetworkConfig, dtype: torch.dtype, priced: bool, top: int) -> ScoringHeadShape:
    width, evidence = config.trunk.hidden, config.evidence_size
    stride = width + evidence if evidence else 0
    return ScoringHeadShape(width, config.views, evidence, stride, dtype, True, "layer", priced, top)
