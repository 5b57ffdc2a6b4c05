"""Streams are put together or known to be cut, and addresses and keys are checked before anything is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from modelsat_engine.aptitude.taking.access import ApiKey, check_url, in_the_clear
from modelsat_engine.aptitude.taking.failures import server_words
from modelsat_engine.aptitude.taking.session import Effort, Outcome
from modelsat_engine.errors import OptionError
from tests.aptitude.taking.fault_server import Asked, Fails, Reply, Streams, Waits, serving, stream_of
from tests.aptitude.taking.made_up import right_letter

Take = Callable[..., Any]


def streams_all(asked: Asked) -> Reply:
    return Streams(stream_of("The answer", " is (", right_letter(asked), ")."))


def test_an_answer_in_pieces_is_put_together(take: Take) -> None:
    with serving(streams_all) as server:
        outcome, session = take(server, limit=3, stream=True)
    assert (outcome.stopped, session.tally.accuracy, session.tally.tokens) == (None, 1.0, 27)
    assert server.asked[0].body["stream"] is True
    assert server.asked[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "fault",
    [
        Streams(stream_of("The answer is", finish_reason=None), cut=True),
        Streams(stream_of("The answer is", finish_reason=None)),
        Streams(()),
        Streams(("{not json",)),
        Streams(("5",)),
        Streams(('{"error": {"message": "overloaded"}}',)),
        Streams((*stream_of("half", finish_reason=None, usage=False), '{"choices": [{"del'), cut=True),
        Fails(500),
    ],
    ids=["cut", "no end", "empty", "no JSON", "a number", "an error", "cut in an event", "a status"],
)
def test_a_broken_stream_is_asked_for_again(take: Take, fault: Reply) -> None:
    with serving(lambda asked: fault if asked.number == 1 else streams_all(asked)) as server:
        outcome, session = take(server, limit=3, stream=True, effort=Effort(concurrency=1))
    assert (outcome.stopped, session.tally.accuracy, len(server.asked)) == (None, 1.0, 4)


def test_a_cancelled_run_keeps_what_it_has(take: Take) -> None:
    """What Ctrl-C does: the task of the run is cancelled while a request is under way."""
    never, under_way = threading.Event(), threading.Event()
    task: list[asyncio.Task[Outcome]] = []

    def stuck(asked: Asked) -> Reply:
        if asked.number < 3:
            return streams_all(asked)
        under_way.set()
        task[0].get_loop().call_soon_threadsafe(task[0].cancel)
        return Waits(never)

    with serving(stuck) as server:
        outcome, session = take(
            server,
            stream=True,
            effort=Effort(concurrency=1),
            tell=lambda note: task.append(asyncio.current_task()),  # type: ignore[arg-type]
        )
        never.set()
    assert under_way.is_set()
    assert (outcome.interrupted, session.tally.answers) == (True, 3)


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8000", "ftp://host/v1", "http://", "http://:80/v1", "http://[::1/v1", "http://host:99999/v1",
        "http://user:secret@host/v1", "https://host/v1?key=secret", "https://host/v1#secret",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(OptionError) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value)


def test_an_address_loses_its_last_slash() -> None:
    assert check_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"
    assert in_the_clear("http://example.org/v1")
    assert not in_the_clear("http://localhost:1/v1")
    assert not in_the_clear("https://example.org/v1")


def test_a_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-secret \n")
    key = ApiKey.from_environment("MY_KEY", required=True)
    assert key.value == "sk-secret"
    assert "secret" not in repr(key)
    assert key.hidden_in("no sk-secret here") == "no [key] here"
    monkeypatch.setenv("MY_KEY", "sk-secret\nsecond line")
    with pytest.raises(OptionError, match="MY_KEY holds") as refusal:
        ApiKey.from_environment("MY_KEY", required=True)
    assert "sk-secret" not in str(refusal.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(OptionError, match=r"MY_KEY .* is not set"):
        ApiKey.from_environment("MY_KEY", required=True)
    assert ApiKey.from_environment("MY_KEY", required=False).value == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too\nlong", "code": 3}}, "too long"),
        ({"error": "flat"}, "flat"),
        ({"detail": [{"msg": "first"}, {"msg": "second"}]}, "first"),
        ("<!doctype html><title>Bad Gateway</title>", "Bad Gateway"),
        ({"message": {"detail": {"msg": {"deep": 1}}}}, "{'deep': 1}"),
        (None, ""),
        ({}, ""),
        (["x"], "x"),
        (7, "7"),
        ("y" * 1000, "y" * 237 + "..."),
        ("\x1b[31mred\x00", "[31mred"),
    ],
)
def test_the_words_of_a_server_become_one_short_line(body: Any, words: str) -> None:
    assert server_words(body) == words
