"""The running score of a run: how many items are answered, how many right, at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import EndpointError


class Tally:
    """Counts the answers of a log.

    Attributes:
        graded: item id -> right, for every item that is decided. With rotations an item is right when all of its
            rotations are, and wrong as soon as one is.
        answers: answers counted, one per request that brought one.
        unparsed: answers from which no option, number or text could be read; they count as wrong.
        cut_off: answers that ended at the limit of tokens.
        prompt_tokens, completion_tokens: sums of what the endpoint reported.
        uncounted: answers whose tokens it did not report.
    """

    def __init__(self, rotations: Mapping[str, int], usd_per_million_tokens: float | None = None) -> None:
        self._rotations = dict(rotations)
        self._usd_per_million_tokens = usd_per_million_tokens
        self._right: dict[str, set[int]] = {}
        self.graded: dict[str, bool] = {}
        self.correct = 0
        self.answers = 0
        self.unparsed = 0
        self.cut_off = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.uncounted = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one answer of the log."""
        self.answers += 1
        self.unparsed += record.get("parsed") is None
        self.cut_off += record.get("finish_reason") == "length"
        prompt, completion = record.get("prompt_tokens"), record.get("completion_tokens")
        self.prompt_tokens += prompt or 0
        self.completion_tokens += completion or 0
        self.uncounted += prompt is None or completion is None
        item = record["id"]
        if item in self.graded:
            return
        if not record["correct"]:
            self.graded[item] = False
            return
        right = self._right.setdefault(item, set())
        right.add(record["rotation"])
        if len(right) >= self._rotations.get(item, 1):
            self.graded[item] = True
            self.correct += 1

    def next_rotation(self, item: str) -> int | None:
        """The rotation of an item to ask next; None when it is decided."""
        if item in self.graded:
            return None
        right = self._right.get(item, set())
        return next(rotation for rotation in range(self._rotations.get(item, 1)) if rotation not in right)

    @property
    def tokens(self) -> int | None:
        """All tokens together; None when the endpoint did not report all of them."""
        return None if self.uncounted else self.prompt_tokens + self.completion_tokens

    @property
    def usd(self) -> float | None:
        """What the answers cost; None without a price or without counts."""
        if self._usd_per_million_tokens is None or self.tokens is None:
            return None
        return self.tokens * self._usd_per_million_tokens / 1e6

    @property
    def accuracy(self) -> float | None:
        """Share of the graded items that are right; None before the first."""
        return self.correct / len(self.graded) if self.graded else None

    @property
    def unparsed_share(self) -> float | None:
        """Share of the answers that could not be read; None before the first."""
        return self.unparsed / self.answers if self.answers else None

    def profile(
        self, name: str, test: AptitudeTest, *, notes: str = "", usd_per_million_tokens: float | None = None
    ) -> CapabilityProfile:
        """The capability profile of what is graded so far.

        Raises:
            EndpointError: nothing is.
        """
        if not self.graded:
            raise EndpointError(f"{name}: no question is answered yet, so there is no profile")
        return CapabilityProfile.from_answers(
            name, test, self.graded, notes=notes, usd_per_million_tokens=usd_per_million_tokens
        )
