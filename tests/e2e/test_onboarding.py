"""A thousand candidates join the shipped router under load: nobody waits, nobody is refused, nobody sees half a zoo."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine import CapabilityProfile, Engine
from modelsat_engine.aptitude import edit_zoo, save_zoo
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.executors.native import unavailable_reason

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=f"native executor: {unavailable_reason()}")

SEED = 31
JOINING = 1000
TIMEOUT_S = 120.0  # only reached by a failure
TEXTS = (
    "Prove that the square root of 2 is irrational.",
    "Who wrote Faust?",
    "Which amino acid substitution causes sickle cell disease, and why does it make haemoglobin polymerise?",
    "Is a verbal promise to sell a house binding? Answer for a common-law country in two sentences.",
    "A train leaves at 14:35 and arrives at 17:10 after two stops of 6 minutes each. How long was it moving?",
)


@dataclass
class Answer:
    """What one request got: the text's index, the names where the answer has them, probabilities, and times."""

    text: int
    names: tuple[str, ...] | None
    probabilities: np.ndarray
    began_s: float
    took_ms: float


@dataclass
class Traffic:
    """Three threads and an event loop that ask without a pause; every answer is kept, and so is every error."""

    engine: Engine
    answers: list[list[Answer]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._widest = 0
        self._wider = threading.Condition()
        callers = [self._score, self._route, self._route_many, lambda kept: asyncio.run(self._aroute(kept))]
        self.answers = [[] for _ in callers]
        self._threads = [
            threading.Thread(target=self._guarded, args=(caller, kept))
            for caller, kept in zip(callers, self.answers, strict=True)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def until_somebody_saw(self, candidates: int) -> None:
        with self._wider:
            assert self._wider.wait_for(lambda: self._widest == candidates or bool(self.errors), TIMEOUT_S)

    def until_so_many_answers(self, count: int) -> None:
        with self._wider:
            start = sum(map(len, self.answers))
            enough = self._wider.wait_for(
                lambda: sum(map(len, self.answers)) >= start + count or bool(self.errors), TIMEOUT_S
            )
            assert enough

    def _guarded(self, caller: Callable[[list[Answer]], object], kept: list[Answer]) -> None:
        try:
            caller(kept)
        except BaseException as error:
            with self._wider:
                self.errors.append(error)
                self._wider.notify_all()

    def _keep(self, kept: list[Answer], text: int, names: tuple[str, ...] | None, P: object, began_s: float) -> None:
        row = np.array(P, np.float32)
        with self._wider:
            kept.append(Answer(text, names, row, began_s, (time.monotonic() - began_s) * 1e3))
            self._widest = len(row)
            self._wider.notify_all()

    def _score(self, kept: list[Answer]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            text = len(kept) % len(TEXTS)
            self._keep(kept, text, None, self.engine.score([TEXTS[text]])[0], began)

    def _route(self, kept: list[Answer]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            text = len(kept) % len(TEXTS)
            found = self.engine.route(TEXTS[text]).probabilities
            self._keep(kept, text, tuple(found), list(found.values()), began)

    def _route_many(self, kept: list[Answer]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            decisions = self.engine.route_many(TEXTS)
            assert len({tuple(decision.probabilities) for decision in decisions}) == 1, "one snapshot for a list"
            for text, decision in enumerate(decisions):
                found = decision.probabilities
                self._keep(kept, text, tuple(found), list(found.values()), began)

    async def _aroute(self, kept: list[Answer]) -> None:
        async def one(text: int) -> None:
            began = time.monotonic()
            found = (await self.engine.aroute(TEXTS[text])).probabilities
            self._keep(kept, text, tuple(found), list(found.values()), began)

        while not self._stop.is_set():
            await asyncio.gather(*(one(text) for text in range(3)))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load()


@pytest.fixture
def newcomers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CapabilityProfile]:
    """A thousand profiles that nobody has encoded before; a tenth of them knows half the tasks only."""
    monkeypatch.setenv("MODELSAT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(SEED)
    print(f"profiles of seed {SEED}")
    test = bundle.aptitude_test
    profiles = []
    for index in range(JOINING):
        tasks = test.task_names[:: 2 if index % 10 == 0 else 1]
        right = {task: int(rng.integers(0, 21)) for task in tasks}
        profiles.append(CapabilityProfile(f"new-{index}", right, dict.fromkeys(tasks, 20), notes="", test_id=test.id))
    return profiles


@pytest.fixture
def file_and_engine(
    bundle: Bundle, newcomers: list[CapabilityProfile], tmp_path: Path
) -> Iterator[tuple[Path, Engine]]:
    path = tmp_path / "zoo.json"
    save_zoo(path, bundle.zoo)
    with Engine.load(bundle, zoo=path, executor="native", watch=True) as engine:
        yield path, engine


def every_probability(bundle: Bundle, zoo: list[CapabilityProfile]) -> list[dict[str, np.float32]]:
    """What an engine that never changed says of each candidate, by text."""
    with Engine.load(bundle, zoo=zoo, executor="native") as engine:
        return [dict(zip(engine.candidates.names, row, strict=True)) for row in engine.score(TEXTS)]


def check(traffic: Traffic, snapshots: list[tuple[str, ...]], expected: list[dict[str, np.float32]]) -> None:
    """Every answer has the columns of one snapshot, and each candidate the bits that it has in a zoo at rest."""
    assert traffic.errors == []
    of_width = {len(names): names for names in snapshots}
    for answer in (answer for kept in traffic.answers for answer in kept):
        names = of_width[len(answer.probabilities)] if answer.names is None else answer.names
        assert names in snapshots
        right = np.array([expected[answer.text][name] for name in names], np.float32)
        assert answer.probabilities.tobytes() == right.tobytes()
    stats = traffic.engine.stats()
    assert (stats["errors"], stats["late"], stats["cancelled"]) == (0, 0, 0)
    assert not any(stats["rejected"].values())


def percentiles(answers: list[Answer]) -> str:
    took = [answer.took_ms for answer in answers]
    return f"n {len(took)}, p50 {np.percentile(took, 50):.1f} ms, p99 {np.percentile(took, 99):.1f} ms"


def test_a_thousand_join_through_the_file(
    bundle: Bundle, newcomers: list[CapabilityProfile], file_and_engine: tuple[Path, Engine]
) -> None:
    path, engine = file_and_engine
    before = engine.candidates.names
    with Traffic(engine) as traffic:
        traffic.until_so_many_answers(200)
        written_s = time.monotonic()
        with edit_zoo(path) as zoo:
            zoo.update({profile.name: profile for profile in newcomers})
        traffic.until_somebody_saw(len(before) + JOINING)
        joined_s = time.monotonic()
        traffic.until_so_many_answers(50)
        with edit_zoo(path) as zoo:
            for profile in newcomers[7:]:
                del zoo[profile.name]
            zoo["new-3"] = replace(zoo["new-3"], usd_per_million_tokens=1.0)
        traffic.until_somebody_saw(len(before) + 7)
    everyone = tuple(profile.name for profile in newcomers)
    check(
        traffic,
        [before, before + everyone, before + everyone[:7]],
        every_probability(bundle, [*bundle.zoo, *newcomers]),
    )
    assert engine.stats()["table_version"] == 2, "a thousand came in one step, and left in another"
    assert engine.stats()["capabilities"]["encoded"] == len(before) + JOINING
    asked = [answer for kept in traffic.answers for answer in kept]
    alone = [answer for answer in asked if answer.began_s < written_s]
    beside = [answer for answer in asked if answer.began_s >= written_s and len(answer.probabilities) == len(before)]
    print(f"{JOINING} joined {joined_s - written_s:.2f} s after their file was begun")
    print(f"requests before it: {percentiles(alone)}; beside it: {percentiles(beside)}")


def test_they_join_one_by_one_and_at_once_from_python(bundle: Bundle, newcomers: list[CapabilityProfile]) -> None:
    with Engine.load(bundle, executor="native") as engine:
        before = engine.candidates.names
        with Traffic(engine) as traffic:
            traffic.until_so_many_answers(50)
            for profile in newcomers[:40]:
                engine.candidates.add(profile)
            engine.candidates.add(*newcomers[40:])
            traffic.until_somebody_saw(len(before) + JOINING)
            traffic.until_so_many_answers(20)
    everyone = before + tuple(profile.name for profile in newcomers)
    widths = [*range(len(before), len(before) + 41), len(everyone)]
    expected = every_probability(bundle, [*bundle.zoo, *newcomers])
    check(traffic, [everyone[:width] for width in widths], expected)
    for kept in traffic.answers[:3]:  # those who ask one after the other
        seen = [len(answer.probabilities) for answer in kept]
        assert seen == sorted(seen), "who has seen a candidate keeps seeing it"


def test_a_refused_batch_changes_nothing_under_load(bundle: Bundle, newcomers: list[CapabilityProfile]) -> None:
    stranger = replace(newcomers[99], test_id="sha256:0000000000000000")
    with Engine.load(bundle, executor="native") as engine:
        before = engine.candidates.names
        with Traffic(engine) as traffic:
            with pytest.raises(ValueError, match="grade the candidate on that test"):
                engine.candidates.add(*newcomers[:99], stranger)
            with pytest.raises(KeyError, match="two candidates called"):
                engine.candidates.add(*newcomers[:50], newcomers[3])
            traffic.until_so_many_answers(50)
        check(traffic, [before], every_probability(bundle, list(bundle.zoo)))
