"""How engines end: dropped, forked, interrupted, or with the interpreter, always with requests in flight."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest

from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.engine import Engine
from tests.runtime.gated_engine import TIMEOUT_S, GateExecutor
from tests.runtime.tiny_bundle import write_tiny_bundle


def test_an_engine_that_nobody_holds_ends_its_threads(bundle: Bundle) -> None:
    executor = GateExecutor()
    engine = Engine(bundle, bundle.zoo, executor, 1, "latency")
    assert engine.route("prove").candidate
    gone = weakref.ref(executor)
    del engine, executor
    gc.collect()
    with Engine(bundle, bundle.zoo, GateExecutor(), 1, "latency") as other:
        other.route("prove")  # the next call lets go of what a native thread dropped
    assert gone() is None


def run_script(bundle: Bundle, script: str) -> subprocess.CompletedProcess[str]:
    preamble = (
        "import asyncio, os, sys, threading\n"
        "from modelsat_engine import Engine, errors\n"
        f"engine = Engine.load({str(bundle.path)!r})\n"
        "engine.route('prove')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", preamble + script, str(bundle.path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused_in_words_and_may_load_its_own(bundle: Bundle) -> None:
    ended = run_script(
        bundle,
        """
decision = engine.route("prove")
engine._lifetime._changed.acquire()  # as another thread of the parent might hold it at the fork
child = os.fork()
if child == 0:
    calls = [
        lambda: engine.score(["a"]), lambda: engine.route("a"), lambda: engine.route_many(["a"]), engine.warmup,
        lambda: asyncio.run(engine.aroute("a")), lambda: asyncio.run(engine.ascore(["a"])), engine.stats,
        lambda: engine.candidates.remove("model-0"),
    ]
    for call in calls:
        try:
            call()
        except errors.ForkedProcess as error:
            assert "Engine.load() after the fork" in str(error)
        else:
            raise SystemExit(3)
    engine.close()
    with Engine.load(sys.argv[1]) as own:
        assert own.route("prove").candidate == decision.candidate
    sys.exit(7)  # an orderly end: every exit handler runs
engine._lifetime._changed.release()
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
engine.route("a")
""",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_interpreter_ends_cleanly_with_requests_in_flight(bundle: Bundle) -> None:
    ended = run_script(
        bundle,
        """
def work():
    try:
        while True:
            engine.score(["a " * 50] * 100)
    except errors.ShuttingDown:
        pass
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
while engine.stats()["accepted"] < 100:
    os.sched_yield()
print("leaving")
""",
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "leaving\n", "")


def test_an_interrupt_ends_a_wait_and_cancels_its_requests(tmp_path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny"))
    ended = run_script(
        bundle,
        """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests in the background ignores it
real, go_on = engine._executor.score, threading.Event()
def interrupted(batch, table):
    os.kill(os.getpid(), signal.SIGINT)
    go_on.wait()
    return real(batch, table)
engine._executor.score = interrupted
try:
    engine.score(["a"] * 100)
except KeyboardInterrupt:
    print(engine.stats()["cancelled"])
go_on.set()
engine.close()
""",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) == 100
