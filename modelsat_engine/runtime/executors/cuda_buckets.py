"""The sizes for which passes are captured: a batch runs in the smallest one that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelsat_engine.runtime.executors import PackedBatch

_LEAST_TOKENS = 32
_LEAST_CANDIDATES = 16
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

    def requests_per_pass(self, candidates: int) -> int:
        """Most instructions of one pass over that many candidates, a power of two."""
        fitting = max(1, _MAX_INQUIRY_ROWS // (candidates * self.views))
        return min(_edge(self.max_requests, 1), 1 << (fitting.bit_length() - 1))

    def bucket(self, requests: int, tokens: int, candidates: int) -> Bucket:
        """The smallest bucket that holds so much."""
        return Bucket(_edge(requests, 1), _edge(tokens, _LEAST_TOKENS), self.candidates(candidates))

    def largest(self, candidates: int) -> Bucket:
        """What buffers are made for."""
        requests = self.requests_per_pass(candidates)
        tokens = min(self.max_tokens, requests * self.max_instruction_tokens)
        return Bucket(requests, _edge(tokens, _LEAST_TOKENS), candidates)

    def usual(self, candidates: int) -> Iterator[Bucket]:
        """The buckets of instructions that are not extremely short, small ones first."""
        largest, requests = self.largest(candidates), 1
        while requests <= largest.requests:
            tokens = _edge(8 * requests, _LEAST_TOKENS)
            while tokens <= min(largest.tokens, _edge(requests * self.max_instruction_tokens, _LEAST_TOKENS)):
                yield Bucket(requests, tokens, candidates)
                tokens *= 2
            requests *= 2


def _edge(size: int, least: int) -> int:
    """The smallest power of two that is not below `size` and `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())


def split(batch: PackedBatch, requests_per_pass: int) -> Iterator[tuple[slice, PackedBatch]]:
    """The batch in parts of so many instructions, each with its place."""
    for begin in range(0, len(batch), requests_per_pass):
        place = slice(begin, min(begin + requests_per_pass, len(batch)))
        first, last = batch.cu_seqlens[place.start], batch.cu_seqlens[place.stop]
        bounds = batch.cu_seqlens[place.start : place.stop + 1] - first
        yield place, PackedBatch(batch.token_ids[first:last], bounds)


def write_inputs(batch: PackedBatch, bucket: Bucket, inputs: np.ndarray) -> None:
    """Describe a batch as a pass reads it: token ids, each one's position in its instruction, ``cu_seqlens``.

    Padding is token 0 at position 0, and instructions without tokens.

    Args:
        inputs: int32 ``[bucket.inputs]``, overwritten.
    """
    used, tokens = len(batch.token_ids), bucket.tokens
    inputs[:used] = batch.token_ids
    inputs[used:tokens] = 0
    positions = inputs[tokens : 2 * tokens]
    positions[:used] = np.arange(used, dtype=np.int32) - np.repeat(batch.cu_seqlens[:-1], batch.lengths)
    positions[used:] = 0
    inputs[2 * tokens : 2 * tokens + len(batch) + 1] = batch.cu_seqlens
    inputs[2 * tokens + len(batch) + 1 :] = used
