"""A run asks every question once, waits where it should, keeps what it has, and stops when nothing can help."""

from __future__ import annotations

import email.utils
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelsat_engine.aptitude.taking.session import Effort
from modelsat_engine.errors import DataError
from tests.aptitude.taking.conftest import UNIX_START_S, InstantClock
from tests.aptitude.taking.fault_server import Asked, Fails, Reply, Says, Sends, Waits, serving
from tests.aptitude.taking.made_up import knows_all, make_test, right_letter, wrong_letter

Take = Callable[..., Any]
ALL = len(make_test().item_ids)
CANARY = "sk-canary-7f3b0c"


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]


def first_time(faulty: Reply) -> Callable[[Asked], Reply]:
    """Fails the second request, then answers everything rightly."""
    return lambda asked: faulty if asked.number == 1 else knows_all(asked)


@pytest.mark.parametrize("concurrency", [1, 3, 64])
def test_every_question_is_asked_once_and_graded(take: Take, concurrency: int) -> None:
    def knows_chess(asked: Asked) -> Reply:
        return Says(right_letter(asked) if asked.item.startswith("chess") else wrong_letter(asked))

    with serving(knows_chess) as server:
        outcome, session = take(server, effort=Effort(concurrency=concurrency), usd=2.0)
    assert (outcome.stopped, outcome.failed, outcome.asked) == (None, {}, ALL)
    assert set(server.times_asked.values()) == {1}
    profile = session.tally.profile("tiny", make_test(), usd_per_million_tokens=2.0)
    assert profile.correct == {"algebra": 0, "botany": 0, "chess": 4, "drama": 0, "ethics": 0}
    assert set(profile.total.values()) == {4}
    assert (session.tally.prompt_tokens, session.tally.completion_tokens) == (10 * ALL, 3 * ALL)
    assert session.tally.usd == pytest.approx(13 * ALL * 2e-6)


def test_a_request_carries_the_protocol(take: Take) -> None:
    with serving(knows_all) as server:
        take(server, limit=1, system="Be brief.", seed=11, max_tokens=77, stop=("\n\n",), extra={"top_p": 1})
    body = server.asked[0].body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    wanted = {"model": "tiny", "temperature": 0.0, "seed": 11, "max_tokens": 77, "stop": ["\n\n"], "top_p": 1}
    assert {name: body[name] for name in wanted} == wanted


def test_a_field_that_an_endpoint_refuses_can_be_left_out(take: Take) -> None:
    def strict(asked: Asked) -> Reply:
        if "temperature" in asked.body:
            return Fails(400, {"error": {"message": "Unsupported parameter: 'temperature' ..."}})
        return knows_all(asked)

    with serving(strict) as server:
        outcome, _ = take(server, limit=3)
        assert "--omit temperature" in outcome.stopped
        assert len(server.asked) == 1
        outcome, _ = take(server, limit=3, omit=frozenset({"temperature"}))
    assert (outcome.stopped, outcome.asked) == (None, 3)


def test_the_newer_name_of_the_token_limit_is_found(take: Take) -> None:
    def renamed(asked: Asked) -> Reply:
        if "max_tokens" in asked.body:
            return Fails(400, {"error": {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens"}})
        assert asked.body["max_completion_tokens"] == 2048
        return knows_all(asked)

    with serving(renamed) as server:
        outcome, _ = take(server, limit=3)
    assert (outcome.stopped, outcome.asked, len(server.asked)) == (None, 3, 4)


@pytest.mark.parametrize(
    "header",
    [
        {"Retry-After": "17"},
        {"Retry-After": "17.5"},
        {"retry-after-ms": "17000"},
        {"Retry-After": email.utils.formatdate(UNIX_START_S + 17, usegmt=True)},
    ],
    ids=["seconds", "fraction", "milliseconds", "date"],
)
def test_a_rate_limit_waits_as_long_as_the_server_asks(take: Take, clock: InstantClock, header: dict[str, str]) -> None:
    with serving(first_time(Fails(429, {"error": {"message": "slow down"}}, header))) as server:
        outcome, _ = take(server, limit=3, effort=Effort(concurrency=1))
    assert (outcome.stopped, outcome.asked, len(server.asked)) == (None, 3, 4)
    assert len(clock.slept_s) == 1
    assert 17 <= clock.slept_s[0] <= 17.5 + 1.75


def test_a_wait_longer_than_allowed_stops_the_run_and_says_so(take: Take, clock: InstantClock) -> None:
    with serving(first_time(Fails(429, "", {"Retry-After": "7200"}))) as server:
        outcome, session = take(server, effort=Effort(concurrency=1))
    assert "7,200 s" in outcome.stopped
    assert "--max-wait" in outcome.stopped
    assert (session.tally.answers, clock.slept_s) == (1, [])


@pytest.mark.parametrize(
    "fault",
    [
        Fails(500, {"error": "boom"}),
        Fails(502, "<html><title>Bad Gateway</title></html>"),
        Fails(503),
        Fails(408),
        Sends(b'{"choices": [{"message": {"content": "A"'),
        Sends(b'{"choices": []}'),
        Sends(b"[1, 2]"),
        Sends(b"null"),
        Sends(b'{"error": {"message": "overloaded"}}'),
        Sends(b'{"choices": [{"message": "hm"}]}'),
        Sends(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
        Sends(b"<html>hello</html>", "text/html"),
        Sends(b'{"choices": [', missing=40),
        Sends(b"[" * 100_000),
    ],
    ids=lambda fault: f"{type(fault).__name__}-{getattr(fault, 'status', '') or fault.content[:28]!s}",
)
def test_a_fault_that_may_pass_is_tried_again_after_a_growing_wait(
    take: Take, clock: InstantClock, fault: Reply
) -> None:
    with serving(first_time(fault)) as server:
        outcome, _ = take(server, limit=3, effort=Effort(concurrency=1))
    assert (outcome.stopped, outcome.asked, len(server.asked)) == (None, 3, 4)
    assert len(clock.slept_s) == 1
    assert 0.5 <= clock.slept_s[0] <= 1.0


def test_a_request_that_takes_too_long_is_sent_again(take: Take) -> None:
    never = threading.Event()
    with serving(first_time(Waits(never))) as server:
        outcome, _ = take(server, limit=3, timeout_s=0.2)
        never.set()
    assert (outcome.stopped, outcome.asked, len(server.asked)) == (None, 3, 4)


@pytest.mark.parametrize("text", ["", None, "I cannot say.", "\x00\x07", "x" * 300_000, ["odd"], 7, "\ud83d"])
def test_garbage_answers_are_kept_and_count_as_wrong(take: Take, tmp_path: Path, text: Any) -> None:
    with serving(lambda asked: Says(text)) as server:
        outcome, session = take(server, limit=3)
    assert (outcome.stopped, outcome.asked) == (None, 3)
    assert (session.tally.unparsed_share, session.tally.accuracy) == (1.0, 0.0)
    assert all(len(record["answer"]) < 101_000 for record in records(tmp_path)[1:])


def test_a_server_without_token_counts_leaves_the_cost_unknown(take: Take) -> None:
    with serving(lambda asked: Says(right_letter(asked), prompt_tokens=None)) as server:
        _, session = take(server, limit=3, usd=1.0)
    assert (session.tally.tokens, session.tally.usd, session.tally.accuracy) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fails(401, {"error": {"message": f"Incorrect API key provided: {CANARY}"}}), "check the key in KEY"),
        (Fails(403, {"error": f"{CANARY} is not allowed"}), "may use the model 'tiny'"),
        (Fails(402), "no credit left"),
        (Fails(429, {"error": {"message": "quota", "code": "insufficient_quota"}}), "no credit left"),
        (Fails(404, {"error": {"message": "The model `tiny` does not exist"}}), "offers: first-model, second-model"),
        (Fails(404, "Not Found"), "most end with /v1"),
        (Fails(400, {"detail": f"bad {CANARY}"}), "400: bad [key]"),
        (Fails(422, {"detail": [{"msg": "extra field 'seed' not permitted"}]}), "--omit seed"),
    ],
)
def test_what_cannot_get_better_stops_the_run_at_its_first_request(
    take: Take, clock: InstantClock, tmp_path: Path, fault: Reply, advice: str
) -> None:
    with serving(lambda asked: fault) as server:
        outcome, _ = take(server, key=CANARY)
    assert advice in outcome.stopped
    assert "\n" not in outcome.stopped
    assert CANARY not in outcome.stopped
    assert (len(server.asked), clock.slept_s) == (1, [])
    assert server.asked[0].headers["authorization"] == f"Bearer {CANARY}"
    assert not (tmp_path / "log.jsonl").exists()


def test_an_endpoint_where_nobody_listens_stops_the_run_at_once(take: Take, clock: InstantClock) -> None:
    with serving(knows_all) as server:
        gone = server.url
    with serving(knows_all) as server:
        outcome, _ = take(server, url=gone)
    assert outcome.stopped.startswith(f"cannot reach {gone}")
    assert "start the server" in outcome.stopped
    assert clock.slept_s == []


def test_a_server_that_never_works_is_left_after_two_retries(take: Take) -> None:
    with serving(lambda asked: Fails(500)) as server:
        outcome, _ = take(server)
    assert "500" in outcome.stopped
    assert len(server.asked) == 3


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_outage_ends_the_run_after_bounded_retries_and_the_next_one_goes_on(
    take: Take, tmp_path: Path, concurrency: int
) -> None:
    effort = Effort(concurrency=concurrency, retries=2)
    counted: list[str] = []
    seven = threading.Event()

    def goes_down_after_seven(asked: Asked) -> Reply:
        if asked.number < 7:
            return knows_all(asked)
        assert seven.wait(60)  # else the outage could overtake the last answers
        return Fails(500)

    def count(note: str) -> None:
        counted.append(note)
        if len(counted) == 7:
            seven.set()

    with serving(goes_down_after_seven) as server:
        outcome, session = take(server, effort=effort, tell=count)
        assert outcome.stopped
        assert session.tally.answers == 7
        assert len(server.asked) <= 7 + 3 * (3 + concurrency)
        answered = {record["id"] for record in records(tmp_path)[1:] if record["kind"] == "answer"}
        server.script = knows_all
        server.asked.clear()
        outcome, session = take(server, effort=effort)
    assert (outcome.stopped, session.resumed, outcome.asked) == (None, 7, ALL - 7)
    assert not answered & server.times_asked.keys()
    assert len(session.tally.graded) == ALL


def test_one_question_that_the_server_cannot_take_does_not_end_the_run(take: Take) -> None:
    def poisoned(asked: Asked) -> Reply:
        return Fails(500) if asked.item == "chess/2" else knows_all(asked)

    with serving(poisoned) as server:
        outcome, session = take(server, effort=Effort(concurrency=1, retries=1))
    assert outcome.stopped is None
    assert list(outcome.failed) == ["chess/2"]
    assert len(session.tally.graded) == ALL - 1


def test_a_refused_question_is_left_out_without_retries(take: Take) -> None:
    def prudish(asked: Asked) -> Reply:
        return Fails(400, {"error": {"message": "filtered"}}) if asked.item.startswith("drama") else knows_all(asked)

    with serving(prudish) as server:
        outcome, session = take(server, seed=1)
    assert outcome.stopped is None
    assert set(outcome.failed) == {f"drama/{i}" for i in range(4)}
    assert session.tally.profile("x", make_test()).total["drama"] == 0
    assert set(server.times_asked.values()) == {1}


def test_a_rate_limit_uses_up_no_attempt_while_others_are_answered(take: Take) -> None:
    """One question is limited twelve times, each time after another one was answered."""
    answers, answered = 0, threading.Condition()
    limited: list[int] = []

    def count(note: str) -> None:
        nonlocal answers
        with answered:
            answers += not note
            answered.notify_all()

    def unlucky(asked: Asked) -> Reply:
        if asked.item != "algebra/3" or len(limited) == 12:
            return knows_all(asked)
        with answered:
            assert answered.wait_for(lambda: answers > max(limited, default=1), 60)
            limited.append(answers)
        return Fails(429)

    with serving(unlucky) as server:
        outcome, _ = take(server, effort=Effort(concurrency=2, retries=1), tell=count)
    assert (outcome.stopped, outcome.asked) == (None, ALL)
    assert server.times_asked["algebra/3"] == 13


def test_a_rate_limit_that_lets_nothing_through_ends_the_run(take: Take) -> None:
    with serving(lambda asked: Fails(429) if asked.number > 4 else knows_all(asked)) as server:
        outcome, session = take(server, effort=Effort(concurrency=1, retries=3))
    assert "429" in outcome.stopped
    assert (session.tally.answers, len(server.asked)) == (5, 9)


def test_a_run_ends_when_its_answers_are_enough(take: Take) -> None:
    with serving(knows_all) as server:
        outcome, session = take(server, effort=Effort(concurrency=3), enough=lambda graded: len(graded) >= 7)
        assert (outcome.stopped, outcome.certain) == (None, True)
        assert 7 <= session.tally.answers <= 9, "what is under way is still answered"
        asked = len(server.asked)
        outcome, _ = take(server, enough=lambda graded: len(graded) >= 7)
    assert (outcome.certain, outcome.asked, len(server.asked)) == (True, 0, asked)


def test_a_run_with_another_question_text_is_refused(take: Take, tmp_path: Path) -> None:
    with serving(knows_all) as server:
        take(server, limit=3)
        log = tmp_path / "log.jsonl"
        log.write_text(log.read_text().replace('"question_hash": "', '"question_hash": "0'))
        with pytest.raises(DataError, match="another text of question"):
            take(server, limit=3)


def test_a_larger_limit_asks_only_what_is_new(take: Take) -> None:
    with serving(knows_all) as server:
        take(server, limit=7)
        outcome, session = take(server, limit=12)
    assert (session.resumed, outcome.asked) == (7, 5)
    assert set(server.times_asked.values()) == {1}


def test_the_circle_test_counts_an_item_when_all_rotations_are_right(take: Take) -> None:
    def likes_first_letter(asked: Asked) -> Reply:
        return Says("A") if asked.item.startswith("drama") else knows_all(asked)

    with serving(likes_first_letter) as server:
        _, session = take(server, rotations=None)
    profile = session.tally.profile("x", make_test())
    assert profile.correct == {"algebra": 4, "botany": 4, "chess": 4, "drama": 0, "ethics": 4}
    assert {server.times_asked[item] for item in session.tally.graded if not item.startswith("drama")} == {5}
    places = {right_letter(asked) for asked in server.asked if asked.item == "chess/0"}
    assert places == set("ABCDE")
    assert all(server.times_asked[f"drama/{i}"] <= 2 for i in range(4)), "the first wrong answer decides an item"


def test_the_circle_test_goes_on_in_the_middle_of_an_item(take: Take) -> None:
    with serving(lambda asked: knows_all(asked) if asked.number < 12 else Fails(401)) as server:
        outcome, _ = take(server, rotations=3, effort=Effort(concurrency=1))
        assert outcome.stopped
        server.script = knows_all
        outcome, session = take(server, rotations=3, effort=Effort(concurrency=1))
    assert session.resumed == 12
    assert session.tally.answers == 3 * ALL
    assert sum(server.times_asked.values()) == 3 * ALL + 1


def test_completions_ask_plain_text(take: Take) -> None:
    with serving(lambda asked: Says(f" {right_letter(asked)}\n")) as server:
        _, session = take(server, limit=4, api="completions")
    assert session.tally.accuracy == 1.0
    assert server.asked[0].path == "/v1/completions"
    assert server.asked[0].text.endswith("\nAnswer:")
    assert (server.asked[0].body["max_tokens"], server.asked[0].body["stop"]) == (16, ["\nQuestion:"])


def test_thoughts_of_a_reasoning_model_are_logged_and_not_graded(take: Take, tmp_path: Path) -> None:
    with serving(lambda asked: Says(right_letter(asked), more={"reasoning_content": "The answer is (Z)"})) as server:
        _, session = take(server, limit=2)
    assert session.tally.accuracy == 1.0
    assert records(tmp_path)[1]["thoughts"] == "The answer is (Z)"


def test_a_server_that_echoes_the_key_cannot_put_it_into_the_log(take: Take, tmp_path: Path) -> None:
    def echoes(asked: Asked) -> Reply:
        if asked.number == 2:
            return Fails(400, {"error": {"message": f"odd request with {asked.headers['authorization']}"}})
        return Says(f"{asked.headers['authorization']} (A)", more={"reasoning": CANARY})

    with serving(echoes) as server:
        outcome, _ = take(server, limit=5, key=CANARY, effort=Effort(concurrency=1))
    assert len(outcome.failed) == 1
    assert CANARY not in (tmp_path / "log.jsonl").read_text()
    assert CANARY not in repr(outcome)


def test_a_server_without_a_key_gets_no_key_header(take: Take) -> None:
    with serving(knows_all) as server:
        take(server, limit=1)
    assert "authorization" not in server.asked[0].headers
