"""What routing answers: the chosen candidate, what the choice was made from, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RoutingDecision:
    """The answer to one instruction.

    Attributes:
        candidate: name of the chosen candidate.
        probability: its probability of answering correctly, calibrated.
        probabilities: every candidate's, by name, in column order.
        policy: the policy with its parameters, as ``CheapestAbove(threshold=0.6)``.
        timing_us: ``tokenise``; ``queue``, from admission to the start of the batch; ``execute``, of that batch;
            ``total``, from the beginning of the call to its answer. For a decision out of ``route_many`` the first
            three are this instruction's own, and ``total`` is that of the whole call.
        truncated: whether the instruction was longer than the router reads, and cut.
        instruction_tokens: tokens of the instruction before any cut; a lower bound for a long text that was cut.
        ignored_parts: kinds of chat content the router cannot read and left out, such as ``image_url``.
        bundle: name and short hash of the router, ``mini@1f2e3d4c5b6a``.
        executor: name of the executor that scored.
        interval: how sure ``intervals`` are, as asked for; None when they were not.
        intervals: candidate -> (low, high): where its probability would lie, with that certainty, if its accuracy
            on every task of the test were known exactly. Wide for a profile of few answers. It says nothing of the
            router's own errors.
    """

    candidate: str
    probability: float
    probabilities: Mapping[str, float]
    policy: str
    timing_us: Mapping[str, float]
    truncated: bool
    instruction_tokens: int
    ignored_parts: tuple[str, ...]
    bundle: str
    executor: str
    interval: float | None = None
    intervals: Mapping[str, tuple[float, float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every attribute."""
        return {
            "candidate": self.candidate,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            "policy": self.policy,
            "timing_us": dict(self.timing_us),
            "truncated": self.truncated,
            "instruction_tokens": self.instruction_tokens,
            "ignored_parts": list(self.ignored_parts),
            "bundle": self.bundle,
            "executor": self.executor,
            "interval": self.interval,
            "intervals": None
            if self.intervals is None
            else {name: list(ends) for name, ends in self.intervals.items()},
        }
