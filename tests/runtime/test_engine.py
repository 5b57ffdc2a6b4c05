"""The engine's contract: what it answers, what it refuses, and that threads and zoo changes do not disturb it."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelsat_engine.aptitude import save_zoo
from modelsat_engine.errors import (
    BundleError,
    CandidateError,
    ExecutorError,
    InstructionError,
    PolicyError,
    ProfileError,
    ShuttingDown,
)
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.engine import Engine
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from modelsat_engine.runtime.policies import CheapestAbove, HighestProbability, MaximumUtility
from tests.runtime.tiny_bundle import MAX_INSTRUCTION_TOKENS, tiny_profile

TEXTS = ["Prove that two is a square.", "what is the root of a and b?", "😀", "a " * 500, "שלום"]


class StubExecutor:
    """Answers with ``answer(batch, table)``, inside limits small enough to force several batches."""

    name = "stub"

    def __init__(self, answer: Callable[[PackedBatch, CandidateTable], Any]) -> None:
        self.answer = answer
        self.batches: list[list[int]] = []
        self.closed = 0

    def limits(self) -> ExecutorLimits:
        return ExecutorLimits(max_batch_requests=4, max_batch_tokens=100, max_instruction_tokens=64)

    def score(self, batch: PackedBatch, table: CandidateTable) -> Any:
        self.batches.append(batch.lengths.tolist())
        return self.answer(batch, table)

    def close(self) -> None:
        self.closed += 1


def even(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
    return np.full((len(batch), len(table)), 0.5, np.float32)


def stub_engine(
    bundle: Bundle, answer: Callable[[PackedBatch, CandidateTable], Any] = even
) -> tuple[Engine, StubExecutor]:
    executor = StubExecutor(answer)
    return Engine(bundle, bundle.zoo, executor, 1, "latency"), executor


# -- answers ----------------------------------------------------------------------------------------------------------


def test_score_gives_one_row_an_instruction_and_one_column_a_candidate(engine: Engine) -> None:
    scores = engine.score(TEXTS)
    assert (scores.shape, scores.dtype, scores.flags.c_contiguous) == ((5, 3), np.float32, True)
    assert ((scores > 0) & (scores < 1)).all()
    for text, row in zip(TEXTS, scores, strict=True):
        np.testing.assert_allclose(engine.score([text])[0], row, atol=1e-6)
    assert engine.score([]).shape == (0, 3)
    assert engine.score(iter(TEXTS)).shape == (5, 3)


def test_route_takes_the_most_probable_candidate_by_default(engine: Engine) -> None:
    decision = engine.route(TEXTS[0])
    row = engine.score([TEXTS[0]])[0]
    assert decision.candidate == engine.candidates.names[int(row.argmax())]
    assert decision.probability == decision.probabilities[decision.candidate] == float(row.max())
    assert list(decision.probabilities) == list(engine.candidates.names)
    assert (decision.policy, decision.executor) == ("HighestProbability()", engine.executor)
    assert decision.bundle == engine.bundle.label
    assert (decision.truncated, decision.ignored_parts) == (False, ())


def test_route_many_is_route_for_each(engine: Engine) -> None:
    policy = CheapestAbove(0.5)
    together = engine.route_many(TEXTS, policy=policy)
    for text, decision in zip(TEXTS, together, strict=True):
        alone = engine.route(text, policy=policy)
        assert (alone.candidate, alone.policy) == (decision.candidate, decision.policy)
        assert alone.probability == pytest.approx(decision.probability, abs=1e-6)
    assert engine.route_many([]) == []


def test_a_decision_is_json_and_its_times_add_up(engine: Engine) -> None:
    for decision in [engine.route("prove"), *engine.route_many(["prove", "a"])]:
        value = json.loads(json.dumps(decision.to_json()))
        timing = value["timing_us"]
        assert list(timing) == ["tokenise", "queue", "execute", "total"]
        assert all(part >= 0 for part in timing.values())
        assert timing["total"] >= timing["queue"] + timing["execute"] - 0.2


def test_a_decision_says_what_was_cut_or_left_out(engine: Engine) -> None:
    decision = engine.route("a " * 500)
    assert decision.truncated
    assert decision.instruction_tokens > MAX_INSTRUCTION_TOKENS
    picture = [{"type": "text", "text": "what is that?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    decision = engine.route([{"role": "user", "content": picture}])
    assert (decision.truncated, decision.ignored_parts) == (False, ("image_url",))


def test_a_chat_of_one_message_is_its_text(engine: Engine) -> None:
    chat = [{"role": "user", "content": TEXTS[0]}]
    np.testing.assert_array_equal(engine.score([chat, TEXTS[0]])[0], engine.score([TEXTS[0]])[0])


def test_async_calls_answer_like_blocking_ones(engine: Engine) -> None:
    async def both() -> None:
        decisions = await asyncio.gather(*(engine.aroute(text, policy=MaximumUtility(0.1)) for text in TEXTS * 8))
        for text, decision in zip(TEXTS * 8, decisions, strict=True):
            assert decision.candidate == engine.route(text, policy=MaximumUtility(0.1)).candidate
        np.testing.assert_array_equal(await engine.ascore(TEXTS), engine.score(TEXTS))
        with pytest.raises(InstructionError):
            await engine.aroute("")

    asyncio.run(both())


# -- the zoo ----------------------------------------------------------------------------------------------------------


def test_candidates_join_change_and_leave(engine: Engine) -> None:
    test = engine.bundle.aptitude_test
    before = engine.score(TEXTS)
    engine.candidates.add(tiny_profile("new", 9, test))
    assert engine.candidates.names == ("model-0", "model-1", "model-2", "new")
    np.testing.assert_allclose(engine.score(TEXTS)[:, :3], before, atol=1e-6)
    engine.candidates.replace(tiny_profile("model-1", 8, test))
    changed = engine.score(TEXTS)
    np.testing.assert_allclose(changed[:, [0, 2]], before[:, [0, 2]], atol=1e-6)
    assert np.abs(changed[:, 1] - before[:, 1]).max() > 1e-3
    engine.candidates.remove("model-0", "new")
    np.testing.assert_allclose(engine.score(TEXTS), changed[:, 1:3], atol=1e-6)
    assert "model-2" in engine.candidates
    assert "new" not in engine.candidates
    assert list(engine.candidates) == ["model-1", "model-2"]
    assert engine.candidates["model-1"].usd_per_million_tokens == 2.25
    assert engine.stats()["table_version"] == 3


def test_a_change_that_fails_changes_nothing(engine: Engine) -> None:
    test, names = engine.bundle.aptitude_test, engine.candidates.names
    with pytest.raises(CandidateError, match="model-1"):
        engine.candidates.add(tiny_profile("x", 1, test), tiny_profile("model-1", 1, test))
    with pytest.raises(CandidateError, match="'y'"):
        engine.candidates.remove("model-0", "y")
    with pytest.raises(CandidateError, match="'y'"):
        engine.candidates.replace(tiny_profile("y", 1, test))
    with pytest.raises(ProfileError, match="grade the candidate"):
        engine.candidates.add(tiny_profile("x", 1, test, test_id="sha256:other"))
    assert engine.candidates.names == names
    assert engine.stats()["table_version"] == 0


def test_a_zoo_of_none_scores_no_column_and_routes_nowhere(bundle: Bundle) -> None:
    with Engine.load(bundle, zoo=[]) as engine:
        engine.warmup()
        assert engine.score(TEXTS).shape == (5, 0)
        with pytest.raises(CandidateError, match="zoo is empty: add a candidate"):
            engine.route("prove")
        engine.candidates.add(tiny_profile("only", 3, bundle.aptitude_test))
        assert engine.route("prove").candidate == "only"
        engine.candidates.remove("only")
        assert engine.score(["prove"]).shape == (1, 0)


def test_a_zoo_of_ten_thousand(bundle: Bundle) -> None:
    profiles = [tiny_profile(f"m{i}", i, bundle.aptitude_test, notes="") for i in range(10_000)]
    with Engine.load(bundle, zoo=profiles) as engine, Engine.load(bundle, zoo=profiles[9_990:]) as few:
        scores = engine.score(TEXTS[:2])
        assert scores.shape == (2, 10_000)
        np.testing.assert_allclose(scores[:, 9_990:], few.score(TEXTS[:2]), atol=1e-6)
        assert engine.route(TEXTS[0]).candidate == f"m{scores[0].argmax()}"


def test_a_zoo_may_come_from_a_file(bundle: Bundle, tmp_path) -> None:
    save_zoo(tmp_path / "zoo.json", bundle.zoo[1:])
    with Engine.load(bundle, zoo=tmp_path / "zoo.json") as engine:
        assert engine.candidates.names == ("model-1", "model-2")


def test_two_candidates_of_one_name_are_refused(bundle: Bundle) -> None:
    with pytest.raises(CandidateError, match="two candidates called 'model-0'"):
        Engine.load(bundle, zoo=[bundle.zoo[0], bundle.zoo[0]])


# -- threads ----------------------------------------------------------------------------------------------------------


def test_many_threads_get_the_answers_of_one(engine: Engine) -> None:
    expected = {text: engine.route(text).candidate for text in TEXTS}

    def work(seed: int) -> None:
        for text in random.Random(seed).choices(TEXTS, k=25):
            assert engine.route(text).candidate == expected[text]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    stats = engine.stats()
    assert stats["requests"] == stats["instructions"] == 16 * 25 + len(TEXTS)
    assert stats["errors"] == 0


def test_requests_keep_their_snapshot_while_the_zoo_changes(engine: Engine) -> None:
    """Every answer belongs to one zoo that existed: its names, its columns, its scores."""
    test = engine.bundle.aptitude_test
    stable = engine.route(TEXTS[0]).probabilities
    stop = threading.Event()
    changed = threading.Semaphore(0)

    def change() -> None:
        while not stop.is_set():
            engine.candidates.add(tiny_profile("guest", 5, test))
            engine.candidates.replace(tiny_profile("guest", 6, test))
            engine.candidates.remove("guest")
            changed.release()

    def ask(_: int) -> None:
        for _ in range(40):
            decision = engine.route(TEXTS[0])
            assert set(decision.probabilities) - set(stable) <= {"guest"}
            for name, probability in stable.items():
                assert decision.probabilities[name] == pytest.approx(probability, abs=1e-6)
            assert decision.probability == max(decision.probabilities.values())

    changer = threading.Thread(target=change)
    changer.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, range(6)))
    finally:
        changed.acquire()
        stop.set()
        changer.join()
    assert engine.stats()["table_version"] >= 3


def test_a_request_in_flight_finishes_on_the_snapshot_it_started_with(bundle: Bundle) -> None:
    running, go_on = threading.Event(), threading.Event()

    def wait(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        running.set()
        assert go_on.wait(30)
        return even(batch, table)

    engine, _ = stub_engine(bundle, wait)
    with ThreadPoolExecutor(1) as pool:
        decision = pool.submit(engine.route, "prove")
        assert running.wait(30)
        engine.candidates.remove("model-0")
        go_on.set()
        assert list(decision.result(30).probabilities) == ["model-0", "model-1", "model-2"]
    assert engine.score(["prove"]).shape == (1, 2)


# -- the seam to the executor -----------------------------------------------------------------------------------------


def test_batches_keep_the_executors_limits_and_the_order(bundle: Bundle) -> None:
    def first_token(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        return np.repeat(batch.lengths[:, None].astype(np.float32) / 100, len(table), axis=1)

    engine, executor = stub_engine(bundle, first_token)
    lengths = np.random.default_rng(8).integers(1, 60, 50).tolist()
    scores = engine.score(["a " * length for length in lengths])
    np.testing.assert_allclose(scores[:, 0] * 100, np.array(lengths) + 2, rtol=1e-5)
    assert [length for batch in executor.batches for length in batch] == [length + 2 for length in lengths]
    assert all(len(batch) <= 4 and sum(batch) <= 100 for batch in executor.batches)
    assert max(len(batch) for batch in executor.batches) > 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_number_that_is_no_probability_is_an_executor_error(bundle: Bundle, value: float) -> None:
    def one_wrong(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        scores = even(batch, table)
        scores[0, 1] = value
        return scores

    engine, _ = stub_engine(bundle, one_wrong)
    with pytest.raises(ExecutorError, match=r"probability .* for 'model-1'"):
        engine.route("prove")
    assert engine.stats()["errors"] == 1


def test_an_array_of_another_shape_is_an_executor_error(bundle: Bundle) -> None:
    engine, _ = stub_engine(bundle, lambda batch, table: np.zeros((len(batch), 1), np.float32))
    with pytest.raises(ExecutorError, match=r"array of shape \(1, 3\), it returned float32 of shape \(1, 1\)"):
        engine.score(["prove"])


def test_a_failing_executor_fails_its_call_only(bundle: Bundle) -> None:
    failures = iter([True, False])

    def maybe(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        if next(failures):
            raise ExecutorError("out of luck")
        return even(batch, table)

    engine, _ = stub_engine(bundle, maybe)
    with pytest.raises(ExecutorError, match="out of luck"):
        engine.route("prove")
    assert engine.route("prove").probability == 0.5
    engine.close()  # the failed call is not in flight any more


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instructions", "says"),
    [
        ("prove", r"engine\.{}\(\[text\]\)"),
        (b"prove", "not bytes"),
        ({"role": "user", "content": "x"}, "not dict"),
        ([{"role": "user", "content": "x"}], r"engine\.{}\(\[messages\]\)"),
        (None, "not NoneType"),
        (["prove", " "], "instruction 1: the instruction is empty"),
        (["prove", "a", b"x"], "instruction 2: .*decode it first"),
        (["prove", None], "instruction 1: .*not NoneType"),
    ],
)
def test_many_takes_a_list_and_names_the_instruction_it_cannot_read(
    engine: Engine, instructions: Any, says: str
) -> None:
    with pytest.raises(InstructionError, match=says.format("score")):
        engine.score(instructions)
    with pytest.raises(InstructionError, match=says.format("route_many")):
        engine.route_many(instructions)
    assert engine.stats()["errors"] == 2


@pytest.mark.parametrize("instruction", ["", " \n", b"x", None, 3, [], ["x"], [{"role": "user", "content": ""}]])
def test_route_refuses_what_it_cannot_read(engine: Engine, instruction: Any) -> None:
    with pytest.raises(InstructionError) as error:
        engine.route(instruction)
    assert not str(error.value).startswith("instruction 0")


@pytest.mark.parametrize("policy", ["cheapest", 0.5, HighestProbability, object()])
def test_what_is_no_policy_is_refused(engine: Engine, policy: Any) -> None:
    with pytest.raises(PolicyError, match="use a policy such as"):
        engine.route("prove", policy=policy)


@pytest.mark.parametrize("columns", [[3], [-1], [0, 1], 0])
def test_a_policy_of_ones_own_is_checked(engine: Engine, columns: Any) -> None:
    class Mine:
        def choose(self, probabilities: np.ndarray, table: CandidateTable) -> Any:
            return np.array(columns)

    with pytest.raises(PolicyError, match="must choose one of 3 columns"):
        engine.route("prove", policy=Mine())


def test_an_unknown_price_is_refused_only_by_policies_that_need_it(bundle: Bundle) -> None:
    profiles = [tiny_profile("priceless", 1, bundle.aptitude_test, usd_per_million_tokens=None), *bundle.zoo]
    with Engine.load(bundle, zoo=profiles) as engine:
        assert engine.route("prove").candidate
        with pytest.raises(PolicyError, match="'priceless'"):
            engine.route("prove", policy=CheapestAbove(0.1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"executor": "tensorrt"}, "executor 'tensorrt' cannot be used: "),
        ({"executor": "gpu"}, "'gpu' is not known; use auto"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"threads": 1.5}, r"threads is 1\.5"),
        ({"mode": "fast"}, "use 'latency' or 'throughput'"),
    ],
)
def test_options_out_of_range_are_refused(bundle: Bundle, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ExecutorError, match=says):
        Engine.load(bundle, **options)


def test_a_path_without_a_bundle_is_refused(tmp_path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        Engine.load(tmp_path / "nowhere")


def test_throughput_takes_every_usable_processor(bundle: Bundle) -> None:
    from modelsat_engine import _core

    with Engine.load(bundle, mode="throughput") as engine:
        assert engine.threads == _core.usable_cpu_count()
    with Engine.load(bundle) as engine:
        assert engine.threads == 1


# -- closing ----------------------------------------------------------------------------------------------------------


def test_a_closed_engine_says_so_and_closes_twice(bundle: Bundle) -> None:
    engine = Engine.load(bundle)
    asyncio.run(engine.aroute("prove"))
    engine.close()
    engine.close()
    calls: list[Callable[[], Any]] = [
        lambda: engine.score(["a"]),
        lambda: engine.route("a"),
        lambda: engine.route_many(["a"]),
        lambda: asyncio.run(engine.aroute("a")),
        lambda: asyncio.run(engine.ascore(["a"])),
        lambda: engine.warmup(),
        lambda: engine.candidates.remove("model-0"),
    ]
    for call in calls:
        with pytest.raises(ShuttingDown, match=r"the engine is closed; load another one with Engine\.load\(\)"):
            call()
    assert "closed" in repr(engine)
    assert engine.stats()["instructions"] == 1, "the statistics stay readable"


def test_close_waits_for_calls_in_flight(bundle: Bundle) -> None:
    running, go_on = threading.Event(), threading.Event()

    def wait(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        running.set()
        assert go_on.wait(30)
        return even(batch, table)

    engine, executor = stub_engine(bundle, wait)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(engine.route, "prove")
        assert running.wait(30)
        closing = pool.submit(engine.close)
        while not engine._lifetime.closed:  # the closer has shut the door, and waits
            pass
        assert executor.closed == 0
        with pytest.raises(ShuttingDown, match="closed"):
            engine.route("prove")
        go_on.set()
        assert answer.result(30).probability == 0.5
        closing.result(30)
    assert executor.closed == 1


def test_a_cancelled_await_leaves_nothing_in_flight(bundle: Bundle) -> None:
    running, go_on = threading.Event(), threading.Event()

    def wait(batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        running.set()
        assert go_on.wait(30)
        return even(batch, table)

    engine, _ = stub_engine(bundle, wait)

    async def cancel_all() -> None:
        tasks = [asyncio.create_task(engine.aroute("prove")) for _ in range(200)]
        await asyncio.to_thread(running.wait, 30)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(cancel_all())
    go_on.set()
    engine.close()
    assert engine.stats()["instructions"] < 200
