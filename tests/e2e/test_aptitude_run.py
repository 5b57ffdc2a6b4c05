"""`modelsat aptitude run` as a user starts it: a real server, kills, Ctrl-C, outages, and a key that stays secret."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from modelsat_engine.aptitude import CapabilityProfile
from tests.aptitude.taking.fault_server import Asked, Fails, Reply, Says, Waits, serving
from tests.aptitude.taking.made_up import knows_all, make_questions, make_test, write_questions
from tests.e2e.conftest import Finished, Start

ALL = len(make_test().item_ids)
CANARY = "sk-canary-51c0ffee"


@pytest.fixture(autouse=True)
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up questions for the small bundle's test, found without an option; no key."""
    file = write_questions(tmp_path / "questions.jsonl", make_questions(make_test()))
    monkeypatch.setenv("MODELSAT_QUESTIONS", str(file))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return file


def arguments(url: str, *more: str, model: str = "tiny") -> list[str]:
    return ["aptitude", "run", "--endpoint", url, "--model", model, *more]


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def answered(log: Path) -> set[str]:
    """The questions whose answers the log holds in whole lines."""
    whole = log.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    return {record["id"] for record in map(json.loads, lines) if record["kind"] == "answer"}


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with a tiny random model."""
    for package in ("transformers", "fastapi", "uvicorn", "accelerate"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("served")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("serve_tiny.py")), str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        assert server.stdout
        said = b""
        while not (listening := re.search(rb"running on (http://[\d.]+:\d+)", said)):
            line = server.stdout.readline()
            if not line:
                pytest.fail(f"transformers serve ended: {said.decode()[-2000:]}")
            said += line
        reader = threading.Thread(target=server.stdout.read)  # a full pipe would stop the server
        reader.start()
        yield f"{listening[1].decode()}/v1"
        server.kill()
        reader.join()


@pytest.mark.parametrize("how", [[], ["--stream"], ["--api", "completions"]], ids=["chat", "stream", "completions"])
def test_a_real_model_behind_transformers_serve_takes_the_test(
    finish: Finished, transformers_serve: str, tmp_path: Path, how: list[str]
) -> None:
    done = finish(*arguments(transformers_serve, "--limit", "13", "--max-tokens", "5", "--price", "2", "--json", *how))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["complete"], summary["graded_items"], summary["answers"], summary["failed"]) == (True, 13, 13, {})
    assert 13 <= summary["completion_tokens"] <= 13 * 5
    assert summary["usd"] == pytest.approx((summary["prompt_tokens"] + summary["completion_tokens"]) * 2e-6)
    profile = CapabilityProfile.from_json(json.loads((tmp_path / "tiny.json").read_text()))
    assert sum(profile.total.values()) == 13
    assert max(profile.total.values()) - min(profile.total.values()) == 1
    assert (profile.test_id, profile.usd_per_million_tokens) == (make_test().id, 2.0)
    kept = records(tmp_path / "tiny.answers.jsonl")[1:]
    assert all(record["prompt"] and record["latency_s"] > 0 and record["finish_reason"] for record in kept)


def test_the_profile_joins_a_zoo_and_is_routed_to(finish: Finished, tmp_path: Path) -> None:
    with serving(knows_all) as server:
        assert finish(*arguments(server.url, "--notes", "knows rhymes", "--name", "org/poet")).returncode == 0
    assert finish("candidates", "add", "org-poet.json", "--zoo", "zoo.json").returncode == 0
    routed = finish("route", "the square root of two", "--zoo", "zoo.json", "--json")
    assert "org/poet" in routed.stdout.decode()


def test_a_wrong_model_name_is_one_line(finish: Finished, transformers_serve: str, tmp_path: Path) -> None:
    done = finish(*arguments(transformers_serve, model="wrong"))
    assert done.returncode == 1
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1
    assert b"'tiny'; requested 'wrong'" in done.stderr
    assert not list(tmp_path.glob("wrong*"))


def test_a_killed_run_goes_on_and_asks_no_logged_question_twice(start: Start, finish: Finished, tmp_path: Path) -> None:
    enough, never = threading.Event(), threading.Event()

    def stalls(asked: Asked) -> Reply:
        if asked.number < 9:
            return knows_all(asked)
        if asked.number == 11:
            enough.set()
        return Waits(never)

    log = tmp_path / "tiny.answers.jsonl"
    with serving(stalls) as server:
        with start(*arguments(server.url, "--concurrency", "3")) as process:
            assert enough.wait(60)
            while len(answered(log)) < 9:  # an answer is on its way from the server into the log
                assert process.poll() is None
                os.sched_yield()
            process.send_signal(signal.SIGKILL)
        never.set()
        kept = answered(log)
        assert len(kept) == 9
        with log.open("ab") as torn:
            torn.write(b'{"kind": "answer", "id": "chess/')
        in_flight = {asked.item for asked in server.asked[9:]}
        server.script = knows_all
        server.asked.clear()
        done = finish(*arguments(server.url, "--concurrency", "3", "--json"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["complete"], summary["answers"], summary["resumed_answers"]) == (True, ALL, 9)
    assert not kept & server.times_asked.keys()
    assert in_flight <= server.times_asked.keys()
    assert set(server.times_asked.values()) == {1}
    assert set(Counter(record["id"] for record in records(log)[1:]).values()) == {1}


def test_control_c_keeps_everything_and_names_the_command_that_goes_on(
    start: Start, finish: Finished, tmp_path: Path
) -> None:
    stalled, never = threading.Event(), threading.Event()

    def stalls(asked: Asked) -> Reply:
        if asked.number < 8:
            return knows_all(asked)
        stalled.set()
        return Waits(never)

    def heed_interrupts() -> None:  # a test run in the background ignores them
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with serving(stalls) as server:
        asked = arguments(server.url, "--concurrency", "1", "--system", "Be brief, please.", "--json")
        with start(*asked, preexec_fn=heed_interrupts) as process:
            assert stalled.wait(60)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        never.set()
        assert process.returncode == 130
        summary = json.loads(stdout)
        assert (summary["interrupted"], summary["complete"], summary["graded_items"]) == (True, False, 8)
        assert b"the profile is partial: 8 of 20" in stderr
        assert b"Traceback" not in stderr
        partial = CapabilityProfile.from_json(json.loads((tmp_path / "tiny.json").read_text()))
        assert sum(partial.total.values()) == 8
        command = stderr.decode().partition("go on with: modelsat ")[2].strip()
        server.script = knows_all
        done = finish(*shlex.split(command))
    assert (done.returncode, json.loads(done.stdout)["resumed_answers"]) == (0, 8)
    assert json.loads((tmp_path / "tiny.json").read_text())["total"]["chess"] == 4


def test_a_server_that_comes_back_at_another_address_is_gone_on_with(finish: Finished) -> None:
    with serving(knows_all) as server:
        assert finish(*arguments(server.url, "--limit", "5")).returncode == 0
    with serving(knows_all) as moved:
        done = finish(*arguments(moved.url, "--limit", "7", "--json"))
        assert len(moved.asked) == 2
    assert json.loads(done.stdout)["resumed_answers"] == 5
    assert f"came from {server.url}" in done.stderr.decode()


def test_an_outage_keeps_what_is_done_and_exits_with_1(finish: Finished, tmp_path: Path) -> None:
    with serving(lambda asked: knows_all(asked) if asked.number < 6 else Fails(503)) as server:
        done = finish(*arguments(server.url, "--retries", "0", "--concurrency", "1", "--json"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["graded_items"] == 6
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("error: the endpoint answers 503; 6 answers are kept in tiny.answers.jsonl; go on with: ")
    assert sum(json.loads((tmp_path / "tiny.json").read_text())["total"].values()) == 6


@pytest.mark.parametrize("debug", [False, True])
def test_a_key_is_sent_and_shown_nowhere(finish: Finished, tmp_path: Path, debug: bool) -> None:
    def echoes(asked: Asked) -> Reply:
        assert asked.headers["authorization"] == f"Bearer {CANARY}"
        if asked.number < 3:
            return Says(f"{CANARY}\nThe answer is (A).", more={"reasoning_content": CANARY})
        return Fails(401, {"error": {"message": f"bad key {CANARY}", "headers": dict(asked.headers)}})

    environment = {"MY_KEY": CANARY, **({"MODELSAT_DEBUG": "1"} if debug else {})}
    with serving(echoes) as server:
        done = finish(*arguments(server.url, "--api-key-env", "MY_KEY", "--concurrency", "1"), env=environment)
    assert done.returncode == 1
    assert b"401" in done.stderr
    assert (b"Traceback" in done.stderr) == debug
    everything = done.stdout + done.stderr + b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"[key]" in everything
    assert CANARY.encode() not in everything


def test_a_dry_run_asks_nothing_and_writes_nothing(finish: Finished, questions: Path, tmp_path: Path) -> None:
    with serving(knows_all) as server:
        done = finish(*arguments(server.url, "--limit", "7", "--circle", "--price", "1.5", "--dry-run"))
        as_json = finish(*arguments(server.url, "--limit", "7", "--circle", "--dry-run", "--json"))
        assert server.asked == []
    assert done.returncode == 0, done.stderr
    assert b"7 questions in 7 to 35 requests" in done.stdout
    assert b"Which word rhymes with" in done.stdout
    assert json.loads(as_json.stdout)["requests"] == [7, 35]
    assert list(tmp_path.iterdir()) == [questions]


def test_a_profile_of_another_origin_is_not_replaced_unasked(finish: Finished, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text("mine")
    with serving(knows_all) as server:
        done = finish(*arguments(server.url))
        assert (done.returncode, server.asked) == (1, [])
        assert b"--overwrite" in done.stderr
        assert (tmp_path / "tiny.json").read_text() == "mine"
        assert finish(*arguments(server.url, "--overwrite")).returncode == 0
        other = finish(*arguments(server.url, "--temperature", "0.7"))
    assert b"protocol.temperature 0.0, not 0.7" in other.stderr
    assert len(server.asked) == ALL


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--rotations", "2"], 2, b"--circle"),
        (["--extra", "[1]"], 1, b"must be a JSON object"),
        (["--extra", '{"model": "x"}'], 1, b"must not hold 'model'"),
        (["--omit", "model"], 1, b"cannot be left out"),
        (["--temperature", "nan"], 1, b"temperature"),
        (["-o", "nowhere/x.json"], 1, b"does not exist"),
        (["--log", "tiny.json"], 2, b"the same file"),
        (["--questions", "missing.csv"], 1, b"missing.csv"),
        (["--api-key-env", "NOT_SET_ANYWHERE"], 1, b"NOT_SET_ANYWHERE"),
        (["--endpoint", "http://me:pw@host/v1"], 1, b"must not carry"),
    ],
)
def test_bad_options_are_one_line(finish: Finished, more: list[str], code: int, words: bytes) -> None:
    done = finish(*arguments("http://127.0.0.1:9/v1", *more))
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_client_the_extra_is_named(finish: Finished, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "openai.py").write_text("raise ImportError('not installed')\n")
    done = finish(*arguments("http://127.0.0.1:9/v1"), env={"PYTHONPATH": str(tmp_path / "shadow")})
    assert done.returncode == 1
    assert done.stderr.decode().strip().endswith("pip install 'modelsat-engine[aptitude]'")
