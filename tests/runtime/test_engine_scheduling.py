"""What load and time do to the engine's calls: deadlines, full queues, priorities, cancelling, failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelsat_engine import _core, errors
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.engine import Engine
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from tests.runtime.gated_engine import TIMEOUT_S, Gated, GateExecutor, words


@pytest.fixture
def gated(bundle: Bundle) -> Iterator[Gated]:
    gated = Gated(bundle)
    yield gated
    gated.end()


@pytest.fixture
def narrow(bundle: Bundle) -> Iterator[Gated]:
    """One instruction a batch, three places in the queue."""
    gated = Gated(bundle, max_queue=3, max_batch_requests=1)
    yield gated
    gated.end()


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_a_deadline_fires_while_the_executor_is_busy(gated: Gated) -> None:
    busy = gated.occupy()
    with pytest.raises(errors.DeadlineExceeded):
        gated.engine.route(words(2), deadline_ms=3)
    with pytest.raises(errors.DeadlineExceeded):
        gated.engine.score([words(2)] * 50, deadline_ms=3)
    with pytest.raises(errors.DeadlineExceeded):
        asyncio.run(gated.engine.aroute(words(2), deadline_ms=3))
    assert not busy.done()
    assert gated.engine.stats()["queued_requests"] == 0
    gated.executor.opened.set()
    assert busy.result(TIMEOUT_S).probability == pytest.approx(0.03)
    assert gated.engine.stats()["late_in_queue"] > 0


def test_a_deadline_also_covers_what_is_at_the_executor(gated: Gated) -> None:
    late = gated.call(gated.engine.route, words(2), deadline_ms=2000)
    assert gated.executor.entered.acquire(timeout=TIMEOUT_S)  # it is there, and stays there
    with pytest.raises(errors.DeadlineExceeded, match="during execution"):
        late.result(TIMEOUT_S)
    assert gated.engine.stats()["late_in_execution"] == gated.engine.stats()["late"] == 1


def test_no_time_left_is_refused_without_work(gated: Gated) -> None:
    gated.executor.opened.set()
    with pytest.raises(errors.DeadlineExceeded):
        gated.engine.route(words(2), deadline_ms=0)
    assert gated.executor.batches == []
    assert gated.engine.stats()["rejected"]["deadline_exceeded"] == 1
    assert gated.engine.route(words(2), deadline_ms=float("inf")).candidate
    assert gated.engine.route(words(2), deadline_ms=1e300).candidate


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadline_ms": -1}, "deadline_ms is -1; use 0 or more milliseconds"),
        ({"deadline_ms": float("nan")}, "deadline_ms is nan"),
        ({"deadline_ms": "5"}, "deadline_ms is '5'; use a number"),
        ({"deadline_ms": True}, "deadline_ms is True"),
        ({"priority": 1.0}, r"priority is 1\.0; use a whole number from -3 to 3"),
        ({"priority": 4}, "priority is 4"),
        ({"priority": -4}, "priority is -4"),
        ({"priority": True}, "priority is True"),
        ({"priority": None}, "priority is None"),
    ],
)
def test_options_out_of_range_are_refused_in_words(engine: Engine, options: dict[str, Any], says: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: engine.score(["a"], **options),
        lambda: engine.route("a", **options),
        lambda: engine.route_many(["a"], **options),
        lambda: asyncio.run(engine.aroute("a", **options)),
        lambda: asyncio.run(engine.ascore(["a"], **options)),
    ]
    for call in calls:
        with pytest.raises(errors.OptionError, match=says):
            call()


@pytest.mark.parametrize("max_queue", [0, -1, 1.5, True, None, 1 << 40])
def test_a_queue_bound_out_of_range_is_refused(bundle: Bundle, max_queue: Any) -> None:
    with pytest.raises(errors.OptionError, match="max_queue is"):
        Engine.load(bundle, max_queue=max_queue)


# -- full queues ------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_answers_what_it_took(narrow: Gated) -> None:
    busy = narrow.occupy()
    waiting = [narrow.enqueue(length) for length in (2, 3, 4)]
    for refused in (
        lambda: narrow.engine.route(words(5)),
        lambda: narrow.engine.score([words(5)] * 2),
        lambda: narrow.engine.route_many([words(5)] * 3),
        lambda: asyncio.run(narrow.engine.aroute(words(5))),
        lambda: asyncio.run(narrow.engine.ascore([words(5)] * 2)),
    ):
        with pytest.raises(errors.Overloaded, match="waiting; try again later"):
            refused()
    assert narrow.engine.stats()["rejected"]["overloaded"] > 0
    narrow.executor.opened.set()
    assert [one.result(TIMEOUT_S).instruction_tokens for one in [busy, *waiting]] == [3, 4, 5, 6]


def test_a_refusal_comes_before_the_work_of_tokenising(narrow: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow.occupy()
    waiting = [narrow.enqueue(2) for _ in range(3)]

    def tokenise(instruction: object) -> None:
        raise AssertionError("a call that was to be refused was tokenised")

    with monkeypatch.context() as patch:
        patch.setattr(narrow.engine._tokenizer, "tokenise", tokenise)
        with pytest.raises(errors.Overloaded):
            narrow.engine.route(words(2))
        with pytest.raises(errors.Overloaded):
            asyncio.run(narrow.engine.aroute(words(2)))
    assert narrow.engine.stats()["rejected"]["overloaded"] == narrow.engine.stats()["errors"] == 2
    narrow.executor.opened.set()
    for one in waiting:
        one.result(TIMEOUT_S)


def test_a_list_is_admitted_whole_or_not_at_all(narrow: Gated) -> None:
    busy = narrow.occupy()
    with pytest.raises(errors.TooLarge, match="load the engine with max_queue=4 or more, or send the list in parts"):
        narrow.engine.score([words(2)] * 4)
    assert narrow.engine.stats()["accepted"] == 1
    whole = narrow.call(narrow.engine.score, [words(2)] * 3)
    narrow.until(lambda: narrow.engine.stats()["accepted"] == 4)
    narrow.executor.opened.set()
    assert whole.result(TIMEOUT_S).shape == (3, 3)
    busy.result(TIMEOUT_S)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_thousands_of_instructions_are_one_call_and_come_back_in_order(bundle: Bundle, mode: Any) -> None:
    executor = GateExecutor()
    lengths = np.random.default_rng(11).integers(1, 62, 10_007)
    texts = [words(length) for length in lengths]
    with Engine(bundle, bundle.zoo, executor, 1, mode) as engine:
        np.testing.assert_allclose(engine.score(texts)[:, 0] * 100, lengths + 2, rtol=1e-5)
        assert engine.stats()["accepted"] == 10_007
        np.testing.assert_allclose(asyncio.run(engine.ascore(texts[:1001]))[:, 0] * 100, lengths[:1001] + 2, rtol=1e-5)
        decisions = engine.route_many(texts[:101])
        assert [decision.instruction_tokens for decision in decisions] == (lengths[:101] + 2).tolist()
        for decision in decisions:
            timing = decision.timing_us
            assert timing["total"] >= timing["queue"] + timing["execute"]
    assert all(len(batch) <= 4 and sum(batch) <= 100 for batch in executor.batches)


def test_under_twice_the_load_every_call_is_answered_once(bundle: Bundle) -> None:
    executor = GateExecutor()
    outcomes: list[str] = []

    def ask(length: int) -> str:
        try:
            assert engine.route(words(length)).probability == pytest.approx((length + 2) / 100)
        except errors.Overloaded:
            return "overloaded"
        return "ok"

    def work(seed: int) -> None:
        lengths = np.random.default_rng(seed).integers(1, 60, 60).tolist()
        outcomes.extend(ask(length) for length in lengths)

    with Engine(bundle, bundle.zoo, executor, 1, "latency", 4) as engine, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
        stats = engine.stats()
    assert len(outcomes) == 16 * 60
    assert stats["accepted"] == stats["answered"]["ok"] == outcomes.count("ok")
    assert stats["rejected"]["overloaded"] == outcomes.count("overloaded")
    assert stats["queued_requests"] == 0


# -- order, snapshots -------------------------------------------------------------------------------------------------


def test_a_higher_priority_is_served_earlier(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # One level is worth a day here, so that it does not matter how fast the requests come.
    monkeypatch.setattr("modelsat_engine.runtime.dispatch.AGEING_US", 24 * 3600 * 1_000_000)
    gated = Gated(bundle, max_batch_requests=1)
    try:
        gated.occupy()
        gated.enqueue(2)  # formed ahead of the rest
        gated.until(lambda: gated.engine.stats()["prefetched_requests"] == 1)
        gated.enqueue(3, priority=-3)
        gated.enqueue(4, priority=3)
        gated.enqueue(5, priority=3)
        gated.enqueue(6)
    finally:
        gated.end()
    assert gated.executor.batches == [[3], [4], [6], [7], [8], [5]]


def test_a_waiting_request_keeps_its_snapshot(gated: Gated) -> None:
    names = gated.engine.candidates.names
    gated.occupy()
    before = gated.enqueue(2)
    gated.engine.candidates.remove("model-0")
    after = gated.enqueue(3)
    gated.executor.opened.set()
    assert tuple(before.result(TIMEOUT_S).probabilities) == names
    assert tuple(after.result(TIMEOUT_S).probabilities) == names[1:]
    assert gated.executor.batches == [[3], [4], [5]], "a batch holds one snapshot"


# -- event loops ------------------------------------------------------------------------------------------------------


def test_cancelling_the_task_cancels_its_requests(gated: Gated) -> None:
    async def main() -> None:
        engine = gated.engine
        running = asyncio.create_task(engine.aroute(words(1)))
        await asyncio.to_thread(gated.executor.entered.acquire)
        single = asyncio.create_task(engine.aroute(words(2)))
        many = asyncio.create_task(engine.ascore([words(3)] * 400))
        while engine.stats()["accepted"] < 1 + 1 + 400:
            await asyncio.sleep(0)
        single.cancel()
        many.cancel()
        results = await asyncio.gather(single, many, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        while engine.stats()["cancelled"] < 401:
            await asyncio.sleep(0)
        assert engine.stats()["queued_requests"] == 0
        gated.executor.opened.set()
        assert (await running).probability == pytest.approx(0.03)

    asyncio.run(main())
    assert gated.executor.batches == [[3]]


def test_closing_passes_over_a_cancelled_list_that_is_partly_at_the_executor(gated: Gated) -> None:
    async def main() -> None:
        task = asyncio.create_task(gated.engine.ascore([words(3)] * 8))
        while gated.engine.stats()["prefetched_requests"] < 4:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    closing = gated.call(gated.engine._dispatcher._scheduler.close)
    gated.until(lambda: refuses(gated.engine))
    gated.executor.opened.set()
    closing.result(TIMEOUT_S)
    assert gated.engine.stats()["answered"]["cancelled"] == 8
    assert gated.engine.stats()["answered"]["shutting_down"] == 0


def refuses(engine: Engine) -> bool:
    try:
        engine.route(words(1), deadline_ms=0)
    except errors.SchedulerError as error:
        return isinstance(error, errors.ShuttingDown)
    return False


def test_a_call_given_up_by_wait_for_frees_its_place(narrow: Gated) -> None:
    async def main() -> None:
        narrow.occupy()
        for _ in range(20):  # far more than the queue has places
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(narrow.engine.aroute(words(2)), 0.002)
        assert narrow.engine.stats()["cancelled"] == 20

    asyncio.run(main())


def test_the_loop_lives_while_a_long_list_is_tokenised(bundle: Bundle) -> None:
    async def main() -> int:
        turns = 0
        with Engine(bundle, bundle.zoo, GateExecutor(), 1, "latency") as engine:
            task = asyncio.create_task(engine.ascore([words(60)] * 2000))
            while engine.stats()["accepted"] == 0:
                turns += 1
                await asyncio.sleep(0)
            await task
        return turns

    assert asyncio.run(main()) > 3


def test_close_on_the_loop_answers_what_was_accepted(bundle: Bundle) -> None:
    async def main() -> None:
        engine = Engine(bundle, bundle.zoo, GateExecutor(), 1, "latency")
        tasks = [asyncio.create_task(engine.aroute(words(2))) for _ in range(23)]
        await asyncio.sleep(0)
        engine.close()
        for decision in await asyncio.gather(*tasks):
            assert decision.probability == pytest.approx(0.04)
        with pytest.raises(errors.ShuttingDown):
            await engine.aroute(words(2))

    asyncio.run(main())


# -- statistics, life cycle -------------------------------------------------------------------------------------------


def test_an_executor_error_fails_its_batch_only(bundle: Bundle) -> None:
    class Failing(GateExecutor):
        def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
            scores = super().score(batch, table)
            scores[batch.lengths == 15] = np.nan
            if 16 in batch.lengths:
                raise ZeroDivisionError("sixteen")
            return scores

    with Engine(bundle, bundle.zoo, Failing(), 1, "latency") as engine:
        with pytest.raises(errors.ExecutorError, match=r"^executor gate gave the probability nan"):
            engine.score([words(2), words(13)])
        with pytest.raises(errors.ExecutorError, match="ZeroDivisionError: sixteen"):
            asyncio.run(engine.aroute(words(14)))
        with pytest.raises(errors.ExecutorError):
            engine.score([words(2)] * 50 + [words(13)] + [words(2)] * 50)
        assert engine.route(words(2)).probability == pytest.approx(0.04)
        assert engine.stats()["failed_batches"] == 1, "a number out of range fails its call, not what shared its batch"


def test_stats_hold_calls_and_scheduler_and_are_json(engine: Engine) -> None:
    engine.route_many(["prove", "what is a root?"])
    stats = json.loads(json.dumps(engine.stats()))
    assert (stats["requests"], stats["instructions"], stats["accepted"], stats["batches"]) == (1, 2, 2, 1)
    assert stats["batch_requests"]["max"] == 2
    assert stats["batch_tokens"]["sum"] == stats["tokens"]
    assert 0 < stats["batch_fill_percent"]["p50"] <= 100
    assert stats["rejected"]["overloaded"] == stats["cancelled"] == stats["late"] == stats["queued_requests"] == 0
    assert (stats["mode"], stats["max_queue"]) == ("latency", 65_536)


def test_latency_mode_keeps_batches_short(bundle: Bundle) -> None:
    for mode, most in (("latency", 4), ("throughput", 64)):
        with Engine.load(bundle, mode=mode, threads=1) as engine:
            engine.score(["a"] * 200)
            assert engine.stats()["batch_requests"]["max"] == most


def test_a_result_of_another_type_is_an_executor_error(bundle: Bundle) -> None:
    class Doubles(GateExecutor):
        def score(self, batch: PackedBatch, table: CandidateTable) -> Any:
            return super().score(batch, table).astype(np.float64)

    with (
        Engine(bundle, bundle.zoo, Doubles(), 1, "latency") as engine,
        pytest.raises(
            errors.ExecutorError, match=r"must return a float32 array of shape \(1, 3\), it returned float64"
        ),
    ):
        engine.route(words(2))


def test_a_consumer_that_never_collects_holds_nobody_up(bundle: Bundle) -> None:
    async def main() -> None:
        with Engine(bundle, bundle.zoo, GateExecutor(), 1, "latency") as engine:
            forgotten = [asyncio.create_task(engine.aroute(words(2))) for _ in range(500)]
            await asyncio.sleep(0)  # every one of them has sent its request
            decision = await asyncio.to_thread(engine.route, words(3))
            assert decision.probability == pytest.approx(0.05)
            assert engine.stats()["unanswered_submissions"] == 0
            for task in forgotten:
                task.cancel()

    asyncio.run(main())


def test_an_executor_in_cpp_is_called_without_python(bundle: Bundle) -> None:
    """The seam for executors that need no GIL: the scheduler gets ``core``, and tables that ``core_table`` made."""

    class Core:
        name = "core"
        core = _core.NoOpExecutor(max_batch_requests=8, max_batch_tokens=1000, max_instruction_tokens=64)

        def __init__(self) -> None:
            self.versions: list[int] = []

        def limits(self) -> ExecutorLimits:
            return ExecutorLimits(8, 1000, 64)

        def core_table(self, table: CandidateTable, version: int) -> _core.CandidateTable:
            self.versions.append(version)
            return _core.CandidateTable(None, len(table), 0, version)

        def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
            raise AssertionError("the scheduler has the core")

        def close(self) -> None:
            pass

    executor = Core()
    with Engine(bundle, bundle.zoo, executor, 1, "latency") as engine:
        assert executor.versions == [0], "made before the first request"
        assert engine.score([words(2)] * 33).tolist() == [[0, 0, 0]] * 33
        assert asyncio.run(engine.aroute(words(2))).probability == 0
        engine.candidates.remove("model-1")
        assert executor.versions == [0, 1]
        assert engine.route(words(2)).probabilities == {"model-0": 0, "model-2": 0}
    assert executor.versions == [0, 1]
