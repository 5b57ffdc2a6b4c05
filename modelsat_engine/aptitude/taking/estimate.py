"""What a run would cost, before any of it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelsat_engine.aptitude.taking.prompts import Prompt, make_prompt, rotation_count
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import Item

# English prose has about four characters a token in the common tokenizers; mathematics and other languages have fewer.
CHARACTERS_PER_TOKEN = 4
MESSAGE_TOKENS = 8  # the marks around a message
SHORTEST_ANSWER_TOKENS = 2  # a letter and the end


@dataclass(frozen=True)
class Estimate:
    """Bounds on what is left to ask.

    Attributes:
        items: questions left.
        least_requests, most_requests: they differ for the circle test, which leaves a question at its first wrong
            answer. Retries come on top.
        prompt_tokens: of the most requests, by the number of characters.
        least_answer_tokens, most_answer_tokens: a letter each, and the limit of tokens each.
        example: the first prompt; None when nothing is left.
    """

    items: int
    least_requests: int
    most_requests: int
    prompt_tokens: int
    least_answer_tokens: int
    most_answer_tokens: int
    example: Prompt | None

    def usd(self, usd_per_million_tokens: float | None) -> tuple[float, float] | None:
        """(least, most) US dollars; None without a price."""
        if usd_per_million_tokens is None:
            return None
        share = self.least_requests / self.most_requests if self.most_requests else 1.0
        least = self.prompt_tokens * share + self.least_answer_tokens
        most = self.prompt_tokens + self.most_answer_tokens
        return least * usd_per_million_tokens / 1e6, most * usd_per_million_tokens / 1e6


def estimate(items: Sequence[Item], protocol: Protocol) -> Estimate:
    """Count requests and tokens of asking these items."""
    prompt_tokens = most_requests = 0
    for item in items:
        requests = rotation_count(item.question, protocol)
        most_requests += requests
        prompt_tokens += requests * _tokens(make_prompt(item.question, protocol))
    return Estimate(
        items=len(items),
        least_requests=len(items),
        most_requests=most_requests,
        prompt_tokens=prompt_tokens,
        least_answer_tokens=SHORTEST_ANSWER_TOKENS * len(items),
        most_answer_tokens=protocol.answer_tokens * most_requests,
        example=make_prompt(items[0].question, protocol) if items else None,
    )


def _tokens(prompt: Prompt) -> int:
    if isinstance(prompt, str):
        return -(-len(prompt) // CHARACTERS_PER_TOKEN)
    return sum(-(-len(message["content"]) // CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS for message in prompt)
