"""When the next request may go out: waits that a server asked for, pauses of the whole run, and growing waits.

The `openai` client retries by itself, but each request alone: while one waits for a rate limit to pass, the others
go on into it. It also gives up on waits over two minutes, cannot be given a clock, and counts a 429 like a failure.
So its retries are switched off, and these few lines decide.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import time
from collections.abc import Mapping
from typing import Protocol

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class Clock(Protocol):
    """Time, injected so that tests need not wait."""

    def now_s(self) -> float:
        """Seconds on a clock that never goes back."""

    def unix_s(self) -> float:
        """Seconds since 1970, for what servers state as a date."""

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""


class SystemClock:
    """The machine's time."""

    def now_s(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

    def unix_s(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the event loop."""
        await asyncio.sleep(seconds)


class Pacer:
    """Gives every request its turn: after the pauses that are on, and evenly spaced where a rate is set.

    Args:
        requests_per_minute: the most requests a minute; None for no limit of our own.
    """

    def __init__(self, clock: Clock, rng: random.Random, requests_per_minute: float | None = None) -> None:
        self._clock = clock
        self._rng = rng
        self._interval_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._free_s = -math.inf
        self._paused_until_s = -math.inf
        self._pause_s = 0.0

    def pause(self, seconds: float) -> None:
        """Hold all requests back for so long from now; a longer pause that is on stays."""
        until = self._clock.now_s() + seconds
        if until > self._paused_until_s:
            self._paused_until_s, self._pause_s = until, seconds

    async def turn(self) -> None:
        """Return when a request may go out."""
        if self._interval_s:
            now = self._clock.now_s()
            slot = max(self._free_s, now)
            self._free_s = slot + self._interval_s
            if slot > now:
                await self._clock.sleep(slot - now)
        while (wait := self._paused_until_s - self._clock.now_s()) > 0:
            # never before the time that the server named, and not all in the same instant after it
            await self._clock.sleep(wait + self._rng.uniform(0, min(0.1 * self._pause_s, 5.0)))


def backoff_s(attempt: int, rng: random.Random) -> float:
    """The wait before attempt 1, 2, 3, ... after the first: about 1, 2, 4 ... 60 seconds, half of it at random."""
    return float(min(FIRST_WAIT_S * 2.0 ** min(attempt - 1, 30), LONGEST_WAIT_S) * rng.uniform(0.5, 1.0))


def retry_after_s(headers: Mapping[str, str], unix_s: float) -> float | None:
    """The wait that a server asks for, in seconds from now; None when it does not say, or says nonsense.

    Understands ``retry-after-ms``, and ``retry-after`` as seconds or as a date (RFC 9110, section 10.2.3).
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit_s
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after") or "")
        return max(date.timestamp() - unix_s, 0.0)
    except (TypeError, ValueError, OverflowError, OSError, IndexError):
        return None
