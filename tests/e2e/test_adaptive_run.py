"""`aptitude run --adaptive`: it stops when it is certain, says so, and a later run without it asks the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aptitude.taking.fault_server import serving
from tests.aptitude.taking.made_up import knows_all, make_questions, make_test, write_questions
from tests.e2e.conftest import Finished

ALL = len(make_test().item_ids)


@pytest.fixture(autouse=True)
def _questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "MODELSAT_QUESTIONS", str(write_questions(tmp_path / "questions.jsonl", make_questions(make_test())))
    )
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def arguments(url: str, *more: str) -> list[str]:
    return ["aptitude", "run", "--endpoint", url, "--model", "tiny", "--concurrency", "1", *more]


def test_it_stops_when_it_is_certain_and_can_be_gone_on_with(finish: Finished, tmp_path: Path) -> None:
    with serving(knows_all) as server:
        done = finish(*arguments(server.url, "--adaptive", "--target-error", "0.13", "--json"))
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["complete"], summary["certain"]) == (True, True)
        assert 0 < summary["graded_items"] == len(server.asked) < ALL
        assert sum(json.loads((tmp_path / "tiny.json").read_text())["total"].values()) == summary["graded_items"]

        again = finish(*arguments(server.url, "--adaptive", "--target-error", "0.13"))
        assert len(server.asked) == summary["graded_items"], "it is certain already"
        assert f"Certain enough after {summary['graded_items']} of {ALL} questions".encode() in again.stdout

        rest = json.loads(finish(*arguments(server.url, "--json")).stdout)
        assert (rest["certain"], rest["graded_items"]) == (False, ALL)
        assert len(server.asked) == ALL


def test_a_target_out_of_reach_asks_everything(finish: Finished) -> None:
    with serving(knows_all) as server:
        summary = json.loads(finish(*arguments(server.url, "--adaptive", "--target-error", "0.001", "--json")).stdout)
    assert (summary["complete"], summary["certain"], summary["graded_items"]) == (True, False, ALL)


@pytest.mark.parametrize("more", [["--target-error", "0.1"], ["--adaptive", "--target-error", "0.7"]])
def test_bad_options_are_one_line(finish: Finished, more: list[str]) -> None:
    done = finish(*arguments("http://127.0.0.1:9/v1", *more))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert b"--target-error" in done.stderr
