"""The batch scheduler as Python sees it: threads, event loops, executors that misbehave, ends of processes."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from modelsat_engine import errors
from modelsat_engine._core import BatchScheduler, CandidateTable, NoOpExecutor

TIMEOUT_S = 60.0  # only reached by a failure


def expected(token_ids: np.ndarray, cu_seqlens: np.ndarray, num_candidates: int) -> np.ndarray:
    """float32 [B, M]: each instruction's token sum plus the candidate's index, divided by 1024."""
    sums = np.add.reduceat(token_ids.astype(np.int64), cu_seqlens[:-1])
    return ((sums[:, None] + np.arange(num_candidates)) / 1024).astype(np.float32)


class Gate:
    """An executor that answers `expected` once it is open, and counts its calls."""

    def __init__(self, num_candidates: int = 3, is_open: bool = True) -> None:
        self.num_candidates = num_candidates
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []
        if is_open:
            self.opened.set()

    def __call__(self, token_ids: np.ndarray, cu_seqlens: np.ndarray, payload: object) -> np.ndarray:
        self.batches.append(len(cu_seqlens) - 1)
        self.entered.release()
        assert self.opened.wait(TIMEOUT_S)
        return expected(token_ids, cu_seqlens, self.num_candidates)


def tokens(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def table_of(num_candidates: int = 3, payload: object = None) -> CandidateTable:
    return CandidateTable(payload, num_candidates)


@pytest.fixture
def seed() -> int:
    value = int.from_bytes(os.urandom(4), "little")
    print(f"seed {value}")
    return value


def test_one_instruction_is_scored_and_timed() -> None:
    with BatchScheduler(Gate()) as scheduler:
        done = scheduler.score(tokens(5, 6, 7), None, table_of())
        np.testing.assert_array_equal(done.probabilities, expected(tokens(5, 6, 7), tokens(0, 3), 3))
        assert done.probabilities.dtype == np.float32
        assert done.queue_us.shape == done.execute_us.shape == (1,)
        assert done.statuses == ["ok"]


def test_thousands_in_one_call_come_back_in_order_and_within_the_bounds(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 38, size=3001)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    token_ids = random.integers(0, 30_000, size=cu_seqlens[-1]).astype(np.int32)
    gate = Gate(num_candidates=11)
    with BatchScheduler(gate, max_batch_requests=17, max_batch_tokens=301, max_instruction_tokens=37) as scheduler:
        done = scheduler.score(token_ids, cu_seqlens, table_of(11))
        np.testing.assert_array_equal(done.probabilities, expected(token_ids, cu_seqlens, 11))
        stats = scheduler.stats()
    assert max(gate.batches) <= 17
    assert stats["batch_tokens"]["max"] <= 301
    assert stats["accepted"] == stats["answered"]["ok"] == 3001


def test_probabilities_outlive_submission_and_scheduler() -> None:
    scheduler = BatchScheduler(Gate())
    probabilities = scheduler.score(tokens(1, 2), None, table_of()).probabilities
    scheduler.close()
    del scheduler
    gc.collect()
    np.testing.assert_array_equal(probabilities, expected(tokens(1, 2), tokens(0, 2), 3))


def test_many_threads_share_batches() -> None:
    gate = Gate(is_open=False)
    results: dict[int, np.ndarray] = {}
    with BatchScheduler(gate) as scheduler:
        table = table_of()

        def score(i: int) -> None:
            results[i] = scheduler.score(tokens(i, i), None, table).probabilities

        threads = [threading.Thread(target=score, args=(i,)) for i in range(23)]
        for thread in threads:
            thread.start()
        while scheduler.stats()["accepted"] < 23:
            os.sched_yield()
        gate.opened.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
    for i in range(23):
        np.testing.assert_array_equal(results[i], expected(tokens(i, i), tokens(0, 2), 3))
    assert len(gate.batches) <= 3  # the first, what was ahead, and the rest


def test_an_executor_sees_read_only_views_that_it_may_keep() -> None:
    kept: list[np.ndarray] = []
    payload = {"inquiry_start": "anything"}

    def executor(token_ids: np.ndarray, cu_seqlens: np.ndarray, seen: object) -> np.ndarray:
        assert seen is payload
        assert token_ids.dtype == cu_seqlens.dtype == np.int32
        assert not token_ids.flags.writeable
        assert not token_ids.flags.owndata
        kept.append(token_ids)
        return np.zeros((len(cu_seqlens) - 1, 2), dtype=np.float32)

    with BatchScheduler(executor) as scheduler:
        for i in range(20):
            scheduler.score(tokens(i, i + 1), None, table_of(2, payload))
    for i, token_ids in enumerate(kept):
        assert token_ids.tolist() == [i, i + 1]


def test_a_payload_is_released_with_its_table() -> None:
    class Payload:
        pass

    payload = Payload()
    gone = weakref.ref(payload)
    with BatchScheduler(Gate()) as scheduler:
        scheduler.score(tokens(1), None, table_of(3, payload))
        del payload
        scheduler.drain()
        scheduler.close()
    scheduler = BatchScheduler(Gate())
    scheduler.score(tokens(1), None, table_of())  # lets go of what a native thread dropped
    scheduler.close()
    assert gone() is None


def test_an_exception_of_the_executor_is_the_cause_and_spares_the_next_batch() -> None:
    gate = Gate()

    def executor(token_ids: np.ndarray, cu_seqlens: np.ndarray, payload: object) -> np.ndarray:
        if token_ids[0] == 13:
            raise ZeroDivisionError("thirteen")
        return gate(token_ids, cu_seqlens, payload)

    with BatchScheduler(executor) as scheduler:
        with pytest.raises(errors.ExecutorError, match="ZeroDivisionError: thirteen") as caught:
            scheduler.score(tokens(13), None, table_of())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert scheduler.score(tokens(14), None, table_of()).statuses == ["ok"]
        assert scheduler.stats()["failed_batches"] == 1


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros((1, 4), np.float32), r"\(1, 3\), it returned float32 of shape \(1, 4\)"),
        (np.zeros((3,), np.float32), r"float32 of shape \(3,\)"),
        (np.zeros((1, 3), np.float64), "float64"),
        ([[0.5, 0.5, 0.5]], "type list"),
        (None, "type NoneType"),
    ],
)
def test_a_wrong_result_is_an_error_that_says_what_was_expected(result: object, message: str) -> None:
    with BatchScheduler(lambda *_: result) as scheduler, pytest.raises(errors.ExecutorError, match=message):
        scheduler.score(tokens(1), None, table_of())


def test_a_strided_result_is_read_in_order() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with BatchScheduler(lambda *_: values[:1, ::-1]) as scheduler:
        assert scheduler.score(tokens(1), None, table_of()).probabilities.tolist() == [[2, 1, 0]]


def test_a_deadline_fires_while_the_executor_hangs() -> None:
    gate = Gate(is_open=False)
    scheduler = BatchScheduler(gate)
    try:
        with pytest.raises(errors.DeadlineExceeded):
            scheduler.score(tokens(1), None, table_of(), deadline_us=2_000)
        with pytest.raises(errors.DeadlineExceeded):
            scheduler.score(tokens(2), None, table_of(), deadline_us=2_000)
        with pytest.raises(errors.DeadlineExceeded):
            scheduler.score(tokens(3), None, table_of(), deadline_us=0)
        stats = scheduler.stats()
        assert stats["late"] == 2
        assert stats["rejected"]["deadline_exceeded"] == 1
        assert stats["queued_requests"] == 0
    finally:
        gate.opened.set()
        scheduler.close()


def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate(is_open=False)
    scheduler = BatchScheduler(gate, max_queue_requests=2)
    try:
        scheduler.submit(tokens(1), None, table_of())
        assert gate.entered.acquire(timeout=TIMEOUT_S)
        waiting = scheduler.submit(tokens(2, 3), tokens(0, 1, 2), table_of())
        with pytest.raises(errors.Overloaded):
            scheduler.submit(tokens(4), None, table_of())
        assert waiting.cancel()
        scheduler.submit(tokens(5), None, table_of())
        with pytest.raises(errors.Cancelled):
            waiting.result()
        assert not waiting.cancel()
    finally:
        gate.opened.set()
        scheduler.close()


def test_bad_input_is_refused_in_words() -> None:
    with BatchScheduler(NoOpExecutor(max_instruction_tokens=4)) as scheduler:
        table = table_of()
        with pytest.raises(errors.TooLarge, match="5 tokens, at most 4"):
            scheduler.score(tokens(1, 2, 3, 4, 5), None, table)
        with pytest.raises(errors.InstructionError, match="cu_seqlens"):
            scheduler.score(tokens(1, 2), tokens(0, 2, 1), table)
        with pytest.raises(errors.InstructionError, match="at least 1"):
            scheduler.score(tokens(), None, table)
        with pytest.raises(errors.InstructionError, match="empty"):
            scheduler.score(tokens(1), None, table_of(0))
        with pytest.raises(errors.InstructionError, match="priority"):
            scheduler.score(tokens(1), None, table, priority=4)
        with pytest.raises(TypeError, match="int32"):
            scheduler.score(np.array([1, 2]), None, table)
        with pytest.raises(TypeError, match="one-dimensional"):
            scheduler.score(np.zeros((2, 2), np.int32), None, table)
        assert scheduler.score(tokens(), tokens(0), table).probabilities.shape == (0, 3)
    with pytest.raises(TypeError, match="callable"):
        BatchScheduler(7)
    with pytest.raises(ValueError, match="at least 1"):
        BatchScheduler(Gate(), max_batch_requests=0)


def test_a_callback_hears_once_and_a_failing_one_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    heard: list[object] = []
    both = threading.Event()

    def callback(submission: object) -> None:
        heard.append(submission)
        if len(heard) == 2:
            both.set()
        raise KeyError("in a callback")

    with BatchScheduler(Gate()) as scheduler:
        sent = [scheduler.submit(tokens(i), None, table_of(), callback=callback) for i in (1, 2)]
        assert both.wait(TIMEOUT_S)
        assert {id(submission) for submission in heard} == {id(submission) for submission in sent}
    assert len(unraisable) == 2


def test_event_loops_in_two_threads() -> None:
    def in_a_loop(scheduler: BatchScheduler, offset: int, results: dict[int, list[np.ndarray]]) -> None:
        async def main() -> list[np.ndarray]:
            table = table_of()
            done = await asyncio.gather(*(scheduler.ascore(tokens(offset + i), None, table) for i in range(31)))
            return [one.probabilities for one in done]

        results[offset] = asyncio.run(main())

    results: dict[int, list[np.ndarray]] = {}
    with BatchScheduler(Gate()) as scheduler:
        threads = [threading.Thread(target=in_a_loop, args=(scheduler, o, results)) for o in (0, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    for offset in (0, 1000):
        for i, row in enumerate(results[offset]):
            np.testing.assert_array_equal(row, expected(tokens(offset + i), tokens(0, 1), 3))


def test_a_batch_wakes_its_event_loop_once() -> None:
    async def main() -> int:
        gate = Gate(is_open=False)
        loop = asyncio.get_running_loop()
        calls = 0
        real = loop.call_soon_threadsafe

        def counting(*args: object) -> object:
            nonlocal calls
            calls += 1
            return real(*args)

        loop.call_soon_threadsafe = counting  # type: ignore[assignment, method-assign]
        scheduler = BatchScheduler(gate)
        table = table_of()
        first = scheduler.ascore(tokens(1), None, table)
        assert gate.entered.acquire(timeout=TIMEOUT_S)
        rest = [scheduler.ascore(tokens(i), None, table) for i in range(40)]
        gate.opened.set()
        await asyncio.gather(first, *rest)
        loop.call_soon_threadsafe = real  # type: ignore[method-assign]
        scheduler.close()
        assert gate.batches == [1, 40]
        return calls

    assert asyncio.run(main()) <= 2


def test_cancelling_the_task_cancels_its_request() -> None:
    async def main() -> None:
        gate = Gate(is_open=False)
        scheduler = BatchScheduler(gate)
        table = table_of()
        running = asyncio.ensure_future(scheduler.ascore(tokens(1), None, table))
        assert gate.entered.acquire(timeout=TIMEOUT_S)

        async def wait() -> None:
            await scheduler.ascore(tokens(2), None, table)

        task = asyncio.create_task(wait())
        while scheduler.stats()["accepted"] < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while scheduler.stats()["cancelled"] < 1:
            await asyncio.sleep(0)
        assert scheduler.stats()["queued_requests"] == 0
        gate.opened.set()
        await running
        scheduler.close()
        assert gate.batches == [1]

    asyncio.run(main())


def test_failures_reach_the_awaiting_task() -> None:
    async def main() -> None:
        with BatchScheduler(lambda *_: None) as scheduler:
            with pytest.raises(errors.ExecutorError):
                await scheduler.ascore(tokens(1), None, table_of())
            with pytest.raises(errors.DeadlineExceeded):
                await scheduler.ascore(tokens(1), None, table_of(), deadline_us=-5)

    asyncio.run(main())


def test_a_closed_event_loop_harms_nobody() -> None:
    gate = Gate(is_open=False)
    scheduler = BatchScheduler(gate)

    async def leave() -> None:
        scheduler.ascore(tokens(1), None, table_of())

    asyncio.run(leave())
    gate.opened.set()
    assert scheduler.score(tokens(2), None, table_of()).statuses == ["ok"]
    scheduler.close()


def test_close_wakes_waiters_and_refuses_newcomers() -> None:
    gate = Gate(is_open=False)
    scheduler = BatchScheduler(gate)
    running = scheduler.submit(tokens(1), None, table_of())
    assert gate.entered.acquire(timeout=TIMEOUT_S)
    raised: list[type[BaseException]] = []

    def wait() -> None:
        try:
            scheduler.score(tokens(2), None, table_of())
        except errors.ShuttingDown as error:
            raised.append(type(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    while scheduler.stats()["queued_requests"] < 1:
        os.sched_yield()
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    waiter.join(TIMEOUT_S)  # while the executor is still busy
    assert raised == [errors.ShuttingDown]
    gate.opened.set()
    closer.join(TIMEOUT_S)
    assert running.result().shape == (1, 3)
    with pytest.raises(errors.ShuttingDown):
        scheduler.score(tokens(3), None, table_of())
    scheduler.close()


def test_drain_answers_what_was_accepted() -> None:
    gate = Gate(is_open=False)
    scheduler = BatchScheduler(gate)
    submission = scheduler.submit(tokens(1), None, table_of())
    assert not scheduler.drain(timeout_s=0.001)
    gate.opened.set()
    assert scheduler.drain()
    assert submission.done
    with pytest.raises(errors.ShuttingDown):
        scheduler.submit(tokens(1), None, table_of())
    scheduler.close()


def test_the_last_reference_may_go_in_a_callback() -> None:
    gone = threading.Event()
    holder = [BatchScheduler(Gate())]

    def callback(_: object) -> None:
        holder.clear()
        gone.set()

    holder[0].submit(tokens(1), None, table_of(), callback=callback)
    assert gone.wait(TIMEOUT_S)


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    preamble = (
        "import os, threading, numpy as np\n"
        "from modelsat_engine import errors\n"
        "from modelsat_engine._core import BatchScheduler, CandidateTable, NoOpExecutor\n"
        "one = np.array([1], dtype=np.int32)\n"
        "table = CandidateTable(None, 3)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", preamble + script], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused_and_may_start_its_own() -> None:
    ended = run_script(
        """
scheduler = BatchScheduler(NoOpExecutor())
scheduler.score(one, None, table)
child = os.fork()
if child == 0:
    try:
        scheduler.score(one, None, table)
    except errors.ForkedProcess as error:
        assert "after the fork" in str(error)
        scheduler.close()
        own = BatchScheduler(NoOpExecutor())
        own.score(one, None, table)
        del scheduler
        raise SystemExit(7)  # through atexit
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
scheduler.score(one, None, table)
"""
    )
    assert ended.returncode == 0, ended.stderr


def test_the_interpreter_ends_cleanly_with_requests_in_flight() -> None:
    ended = run_script(
        """
entered = threading.Event()
def executor(token_ids, cu_seqlens, payload):
    entered.set()
    threading.Event().wait(0.2)
    return np.zeros((len(cu_seqlens) - 1, 3), dtype=np.float32)
scheduler = BatchScheduler(executor)
first = scheduler.submit(one, None, table, callback=print)
entered.wait()
rest = [scheduler.submit(one, None, table, callback=lambda s: None) for _ in range(50)]
def wait():
    try:
        scheduler.score(one, None, table)
    except errors.ShuttingDown:
        pass
threading.Thread(target=wait, daemon=True).start()
print("leaving")
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.startswith("leaving")


def test_an_interrupt_ends_a_wait_and_cancels_the_request() -> None:
    ended = run_script(
        """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
release = threading.Event()
def executor(token_ids, cu_seqlens, payload):
    os.kill(os.getpid(), signal.SIGINT)
    release.wait()
    return np.zeros((len(cu_seqlens) - 1, 3), dtype=np.float32)
scheduler = BatchScheduler(executor)
try:
    scheduler.score(one, None, table)
except KeyboardInterrupt:
    print(scheduler.stats()["cancelled"])
release.set()
"""
    )
    assert ended.stdout == "1\n", ended.stderr
    assert ended.returncode == 0
