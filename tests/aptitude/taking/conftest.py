"""Fixtures of the taking tests: time in which no wait lasts, and a run over a server of the test's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from modelsat_engine.aptitude.taking.access import ApiKey
from modelsat_engine.aptitude.taking.endpoint import Endpoint
from modelsat_engine.aptitude.taking.log import AnswerLog
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import select_items
from modelsat_engine.aptitude.taking.session import Effort, Outcome, Session
from tests.aptitude.taking.fault_server import FaultServer
from tests.aptitude.taking.made_up import make_questions, make_test

UNIX_START_S = 1_800_000_000.0


class InstantClock:
    """Time in which every sleep is over at once; remembers how long each was."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.slept_s: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    def unix_s(self) -> float:
        return UNIX_START_S + self.time_s

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept_s.append(seconds)
        self.time_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> InstantClock:
    return InstantClock()


@pytest.fixture
def take(tmp_path: Path, clock: InstantClock) -> Callable[..., tuple[Outcome, Session]]:
    """Runs a session over a server; the log stays, so that a second call goes on."""

    def run(
        server: FaultServer,
        *,
        limit: int | None = None,
        effort: Effort | None = None,
        key: str = "",
        model: str = "tiny",
        url: str | None = None,
        timeout_s: float = 20.0,
        stream: bool = False,
        usd: float | None = None,
        tell: Callable[[str], None] = lambda note: None,
        enough: Callable[[Mapping[str, bool]], bool] = lambda graded: False,
        **settings: Any,
    ) -> tuple[Outcome, Session]:
        protocol = Protocol(**settings)
        test = make_test()
        selection = select_items(test, make_questions(test), limit=limit, seed=protocol.seed)
        with AnswerLog(tmp_path / "log.jsonl", {"protocol": protocol.to_json()}, {}) as log:
            endpoint = Endpoint(
                url or server.url, model, protocol, ApiKey("KEY", key), clock, timeout_s=timeout_s, stream=stream
            )
            session = Session(
                selection.items,
                protocol,
                endpoint,
                log,
                clock,
                effort=effort or Effort(),
                usd_per_million_tokens=usd,
                rng=random.Random(5),
                tell=tell,
                enough=enough,
            )
            return asyncio.run(session.run()), session

    return run
