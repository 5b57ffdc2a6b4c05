"""The sizes for which passes are captured: a batch runs in the smallest one that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelsat_engine import _core
from modelsat_engine.runtime.executors import PackedBatch

_LEAST_TOKENS = 32
_LEAST_CANDIDATES = 16
# An instruction of fewer tokens than this on average is padded, so that there are fewer passes to capture
_LEAST_TOKENS_EACH = 8
# Activations of one row are about 8 KB for the mini trunk
_MAX_INQUIRY_ROWS = 32768


@dataclass(frozen=True, order=True)
class Bucket:
    """Upper bounds of what one pass may hold. What is padded up to them changes no result.

    Attributes:
        requests: instructions. tokens: of all of them together. candidates: of the zoo.
    """

    requests: int
    tokens: int
    candidates: int

    @property
    def inputs(self) -> int:
        """Numbers that describe a batch: token ids, positions and ``cu_seqlens``."""
        return 2 * self.tokens + self.requests + 1


@dataclass(frozen=True)
class Ladder:
    """All buckets of an executor: powers of two up to its limits.

    Attributes:
        max_requests, max_tokens: of one batch; max_instruction_tokens: of one instruction.
        views: rows of a candidate.
    """

    max_requests: int
    max_tokens: int
    max_instruction_tokens: int
    views: int

    def candidates(self, count: int) -> int:
        """Room for a zoo of `count`."""
        return _edge(count, _LEAST_CANDIDATES)

    def largest(self, candidates: int) -> Bucket:
        """What buffers are made for."""
        fitting = max(1, _MAX_INQUIRY_ROWS // (candidates * self.views))
        requests = min(_edge(self.max_requests, 1), 1 << (fitting.bit_length() - 1))
        tokens = min(self.max_tokens, requests * self.max_instruction_tokens)
        return Bucket(requests, _edge(tokens, _LEAST_TOKENS), candidates)

    def buckets(self, candidates: int) -> Iterator[Bucket]:
        """Those that hold every batch together, in parts of at most the largest one's requests; small ones first."""
        largest, requests = self.largest(candidates), 1
        while requests <= largest.requests:
            tokens = _edge(_LEAST_TOKENS_EACH * requests, _LEAST_TOKENS)
            most = min(largest.tokens, _edge(requests * self.max_instruction_tokens, _LEAST_TOKENS))
            while tokens < most:
                yield Bucket(requests, tokens, candidates)
                tokens *= 2
            yield Bucket(requests, most, candidates)
            requests *= 2


def _edge(size: int, least: int) -> int:
    """The smallest power of two that is not below `size` and `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())


def write_inputs(batch: PackedBatch, bucket: Bucket, inputs: np.ndarray) -> None:
    """Describe a batch as a pass reads it: token ids, each one's position in its instruction, ``cu_seqlens``.

    Padding is token 0 at position 0, and instructions without tokens.

    Args:
        inputs: int32 ``[bucket.inputs]``, overwritten.
    """
    _core.write_pass_inputs(batch.token_ids, batch.cu_seqlens, bucket.requests, bucket.tokens, inputs)
