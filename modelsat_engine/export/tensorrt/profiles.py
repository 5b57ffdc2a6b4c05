"""Optimisation profiles: the named ranges of shapes that an engine takes, and the buckets a batch is padded to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelsat_engine.errors import BundleError, ExecutorError

#: Instructions of one pass at most.
MAX_REQUESTS = 64
_LEAST_TOKENS = 16
_LATENCY_TOKENS = 512  # beyond, one profile up to what the router reads
_USUAL_TOKENS = 64
_USUAL_CANDIDATES = 16
_LEAST_CANDIDATES = 16
# Rows of candidates and views in one pass. TensorRT sets memory aside for the largest shape of a profile, about 8 KB
# for each of the 64 x 512 rows of the mini trunk in fp16. A larger zoo is scored in parts.
_MAX_ZOO_ROWS = 512


@dataclass(frozen=True)
class Range:
    """Least, usual and largest extent of one axis; the engine runs all of them and is fastest at the usual one."""

    least: int
    usual: int
    largest: int

    def holds(self, extent: int) -> bool:
        """Whether an extent is within the range."""
        return self.least <= extent <= self.largest


@dataclass(frozen=True)
class Profile:
    """One optimisation profile.

    Attributes:
        name: ``latency-64`` for one instruction of up to 64 tokens, ``throughput`` for many.
        requests, tokens, candidates: ranges of B, S and M.
    """

    name: str
    requests: Range
    tokens: Range
    candidates: Range

    def holds(self, requests: int, tokens: int, candidates: int) -> bool:
        """Whether a pass of that size may run under this profile."""
        return self.requests.holds(requests) and self.tokens.holds(tokens) and self.candidates.holds(candidates)

    def shapes(self, sizes: RouterSizes) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """Input name -> its least, usual and largest shape."""
        ids = tuple((b, s) for b, s in zip(_ends(self.requests), _ends(self.tokens), strict=True))
        zoo = _ends(self.candidates)
        shapes = {
            "input_ids": ids,
            "attention_mask": ids,
            "inquiry_start": tuple((m, *sizes.inquiry_start) for m in zoo),
        }
        if sizes.memory:
            shapes["memory"] = tuple((m, *sizes.memory) for m in zoo)
        return shapes  # type: ignore[return-value]  # three ends each

    def as_json(self) -> dict[str, Any]:
        """As an engine file states it."""
        return {"name": self.name, **{axis: list(_ends(getattr(self, axis))) for axis in _AXES}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Profile:
        """The inverse of `as_json`; KeyError, TypeError or ValueError where `value` is something else."""
        return cls(str(value["name"]), *(Range(*(int(end) for end in value[axis])) for axis in _AXES))


_AXES = ("requests", "tokens", "candidates")


def _ends(extents: Range) -> tuple[int, int, int]:
    return extents.least, extents.usual, extents.largest


@dataclass(frozen=True)
class RouterSizes:
    """What fixes the shapes of a router's inputs beside B, S and M.

    Attributes:
        max_instruction_tokens: of one instruction.
        inquiry_start: ``[R, D + E]`` of one candidate; memory: ``[R, late_layers, 2, K, D]``, empty for K = 0.
    """

    max_instruction_tokens: int
    inquiry_start: tuple[int, ...]
    memory: tuple[int, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RouterSizes:
        """Read them off the content of a router.json.

        Raises:
            BundleError: a size is missing.
        """
        try:
            views, rows, width = int(config["views"]), int(config["memory_rows"]), int(config["trunk"]["hidden"])
            late = int(config["trunk"]["layers"]) - int(config["inject_at"])
            return cls(
                int(config["tokenizer"]["max_instruction_tokens"]),
                (views, width + int(config.get("evidence_size", 0))),
                (views, late, 2, rows, width) if rows else (),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"router.json lacks {error}; export the bundle again") from error


def standard_profiles(sizes: RouterSizes) -> tuple[Profile, ...]:
    """The profiles of every engine: one instruction of 16, 32, ... tokens, then up to 64 of any length.

    A short instruction gets kernels chosen for its own size; what is longer than 512 tokens shares the last one.
    """
    longest, views = sizes.max_instruction_tokens, sizes.inquiry_start[0]
    edges = [edge for edge in token_edges(longest) if edge <= _LATENCY_TOKENS or edge == longest]
    zoo = Range(1, _USUAL_CANDIDATES, max(_LEAST_CANDIDATES, _MAX_ZOO_ROWS // views))
    latency = [Profile(f"latency-{edge}", Range(1, 1, 1), Range(1, edge, edge), zoo) for edge in edges]
    usual = min(_USUAL_TOKENS, longest)
    throughput = Profile("throughput", Range(1, MAX_REQUESTS // 4, MAX_REQUESTS), Range(1, usual, longest), zoo)
    return (*latency, throughput)


def token_edges(longest: int) -> list[int]:
    """16, 32, ... up to the longest instruction, which is the last edge whatever it is."""
    edges = []
    edge = _LEAST_TOKENS
    while edge < longest:
        edges.append(edge)
        edge *= 2
    return [*edges, longest]


@dataclass(frozen=True, order=True)
class Bucket:
    """The shape of one pass: what it holds is padded up to it.

    Attributes:
        requests: B. tokens: S, of each instruction. candidates: M.
    """

    requests: int
    tokens: int
    candidates: int


def profile_index(profiles: Sequence[Profile], bucket: Bucket) -> int:
    """The first profile that takes a pass of that size.

    Raises:
        ExecutorError: the shape is outside every profile; the message names both.
    """
    for index, profile in enumerate(profiles):
        if profile.holds(bucket.requests, bucket.tokens, bucket.candidates):
            return index
    ranges = ", ".join(
        f"{p.name} up to {p.requests.largest} x {p.tokens.largest} tokens over {p.candidates.largest} candidates"
        for p in profiles
    )
    raise ExecutorError(
        f"a pass of {bucket.requests} x {bucket.tokens} tokens over {bucket.candidates} candidates is outside every "
        f"profile of this engine ({ranges}); build it anew: modelsat export --to tensorrt"
    )


def bucket_for(profiles: Sequence[Profile], requests: int, tokens: int, candidates: int) -> Bucket:
    """The smallest bucket that holds so much: powers of two, up to the ends of the largest profile.

    Raises:
        ExecutorError: no profile is so large.
    """
    profile_index(profiles, Bucket(requests, tokens, candidates))
    largest = profiles[-1]
    return Bucket(
        min(_edge(requests, 1), largest.requests.largest),
        next(edge for edge in token_edges(largest.tokens.largest) if edge >= tokens),
        min(_edge(candidates, _LEAST_CANDIDATES), largest.candidates.largest),
    )


def usual_buckets(profiles: Sequence[Profile], candidates: int) -> list[Bucket]:
    """What to prepare before the first request, for a zoo of that size: every bucket of it, small ones first."""
    largest = profiles[-1]
    zoo = min(candidates, largest.candidates.largest)
    requests = [1]
    while requests[-1] < largest.requests.largest:
        requests.append(min(2 * requests[-1], largest.requests.largest))
    edges = token_edges(largest.tokens.largest)
    return sorted({bucket_for(profiles, count, tokens, zoo) for count in requests for tokens in edges})


def _edge(size: int, least: int) -> int:
    """The smallest power of two that is not below `size` and `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())
