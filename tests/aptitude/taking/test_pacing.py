"""Waits are as long as a server asks and grow by themselves, and a pause holds every request back."""

from __future__ import annotations

import asyncio
import email.utils
import random
import threading
from pathlib import Path

import pytest

from modelsat_engine.aptitude.taking.access import ApiKey
from modelsat_engine.aptitude.taking.endpoint import Endpoint
from modelsat_engine.aptitude.taking.log import AnswerLog
from modelsat_engine.aptitude.taking.pacing import Pacer, backoff_s, retry_after_s
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import select_items
from modelsat_engine.aptitude.taking.session import Effort, Session
from tests.aptitude.taking.conftest import UNIX_START_S, InstantClock
from tests.aptitude.taking.fault_server import Asked, Fails, Reply, serving
from tests.aptitude.taking.made_up import knows_all, make_questions, make_test


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "nonsense", "retry-after": "4"}, 4.0),
        ({"retry-after": email.utils.formatdate(UNIX_START_S + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(UNIX_START_S - 90, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 99 Foo 20260 99:99:99 GMT"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_the_wait_that_a_server_asks_for(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, UNIX_START_S) == wait_s


def test_waits_grow_to_a_minute_and_differ() -> None:
    rng = random.Random(3)
    for attempt, longest in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (10**6, 60)]:
        waits = [backoff_s(attempt, rng) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) == 200


def test_a_pause_holds_all_back_and_a_shorter_one_does_not_end_it() -> None:
    clock = InstantClock()
    pacer = Pacer(clock, random.Random(3))

    async def run() -> list[float]:
        await pacer.turn()
        assert clock.slept_s == []
        pacer.pause(30)
        pacer.pause(2)

        async def one() -> float:
            await pacer.turn()
            return clock.now_s()

        return list(await asyncio.gather(*(one() for _ in range(17))))

    assert min(asyncio.run(run())) >= 30


def test_a_rate_of_our_own_spaces_requests_evenly() -> None:
    clock = InstantClock()
    pacer = Pacer(clock, random.Random(3), requests_per_minute=120)

    async def run() -> list[float]:
        started = []
        for _ in range(5):
            await pacer.turn()
            started.append(clock.now_s())
        return started

    assert asyncio.run(run()) == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


class HeldClock(InstantClock):
    """Time in which nobody wakes before the test lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.somebody_sleeps = threading.Event()
        self.wake = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.somebody_sleeps.set()
        if len(self.slept_s) == WORKERS:
            self.wake.set()
        await self.wake.wait()
        self.time_s = max(self.time_s, seconds)


WORKERS = 4


def test_a_rate_limit_of_one_request_holds_the_whole_run_back(tmp_path: Path) -> None:
    clock = HeldClock()
    asked_while_held = []

    def limited(asked: Asked) -> Reply:
        if asked.number == 1:
            return Fails(429, "", {"Retry-After": "60"})
        if 1 < asked.number <= WORKERS:  # under way beside it; answered once the limit is known
            assert clock.somebody_sleeps.wait(60)
        elif asked.number > WORKERS and not clock.wake.is_set():
            asked_while_held.append(asked.item)
            clock.wake.set()
        return knows_all(asked)

    protocol = Protocol()
    items = select_items(make_test(), make_questions(make_test())).items
    with serving(limited) as server, AnswerLog(tmp_path / "log.jsonl", {}, {}) as log:
        endpoint = Endpoint(server.url, "m", protocol, ApiKey("KEY", ""), clock, timeout_s=60, stream=False)
        effort = Effort(concurrency=WORKERS)
        outcome = asyncio.run(Session(items, protocol, endpoint, log, clock, effort=effort).run())
    assert asked_while_held == []
    assert (outcome.stopped, outcome.asked) == (None, len(items))
    assert len(clock.slept_s) == WORKERS
    assert min(clock.slept_s) >= 60
