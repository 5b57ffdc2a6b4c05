"""How a model is asked: everything that may change its answers, pinned in the log so that a run stays one run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsat_engine.errors import OptionError

APIS = ("chat", "completions")
STYLES = ("direct", "reason")
# What may be left out of a request because an endpoint refuses it
OMITTABLE = ("temperature", "seed", "max_tokens", "stop", "stream_options")
# A base model goes on with a question of its own after the answer
COMPLETION_STOP = ("\nQuestion:",)
ANSWER_TOKENS = {("chat", "direct"): 2048, ("chat", "reason"): 4096, ("completions", "direct"): 16}
REASONED_COMPLETION_TOKENS = 2048


@dataclass(frozen=True)
class Protocol:
    """The settings of one run that its answers depend on.

    Attributes:
        api: ``chat`` (chat completions) or ``completions`` (plain text, for base models).
        style: ``direct`` asks for the answer alone, ``reason`` for thoughts first.
        system: a system prompt, chat only; None sends none.
        temperature: 0 is greedy.
        seed: sent to the endpoint, and chooses the questions of a limited run.
        max_tokens: most tokens of one answer; None takes the default of api and style.
        stop: texts that end an answer; None takes the default of the api.
        rotations: how often a multiple-choice question is asked, its options moved on by one each time. 1 asks it
            once, as it is; None in all rotations, the circle test.
        omit: request fields not to send, of :data:`OMITTABLE`.
        extra: more request fields for this endpoint, such as ``{"reasoning_effort": "low"}``.

    Raises:
        OptionError: a value out of range.
    """

    api: str = "chat"
    style: str = "direct"
    system: str | None = None
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    rotations: int | None = 1
    omit: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api not in APIS:
            raise OptionError(f"the api {self.api!r} is not known; choose from {', '.join(APIS)}")
        if self.style not in STYLES:
            raise OptionError(f"the style {self.style!r} is not known; choose from {', '.join(STYLES)}")
        if self.system is not None and self.api != "chat":
            raise OptionError("a system prompt needs the chat api; leave it out for completions")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            raise OptionError(f"the temperature is {self.temperature}; give a number from 0 to 2")
        if self.rotations is not None and self.rotations < 1:
            raise OptionError(f"{self.rotations} rotations; give at least 1")
        try:
            json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
            raise OptionError(f"a setting cannot be sent as JSON in UTF-8 ({error}); check its text") from None
        if unknown := sorted(self.omit - set(OMITTABLE)):
            raise OptionError(f"{unknown[0]!r} cannot be left out of a request; choose from {', '.join(OMITTABLE)}")
        if self.max_tokens is None:
            tokens = ANSWER_TOKENS.get((self.api, self.style), REASONED_COMPLETION_TOKENS)
            object.__setattr__(self, "max_tokens", tokens)
        if self.answer_tokens < 1:
            raise OptionError(f"max_tokens is {self.max_tokens}; give at least 1")
        stop = (COMPLETION_STOP if self.api == "completions" else ()) if self.stop is None else self.stop
        object.__setattr__(self, "stop", tuple(stop))

    @property
    def answer_tokens(self) -> int:
        """:attr:`max_tokens` once it has its default."""
        return self.max_tokens or 0

    def request_fields(self) -> dict[str, Any]:
        """The fields of a request body beside model and prompt."""
        fields: dict[str, Any] = {
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.answer_tokens,
        }
        if self.stop:
            fields["stop"] = list(self.stop)
        return {**{name: value for name, value in fields.items() if name not in self.omit}, **self.extra}

    def to_json(self) -> dict[str, Any]:
        """The settings as the log's first line states them."""
        return {
            "api": self.api,
            "style": self.style,
            "system": self.system,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop or ()),
            "rotations": self.rotations,
            "omit": sorted(self.omit),
            "extra": dict(self.extra),
        }
