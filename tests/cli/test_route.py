"""`modelsat route`: every way to give an instruction, every policy, both outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsat_engine.runtime.engine import Engine
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line

QUESTION = "Prove that the square root of two is irrational."
KEYS = {
    "candidate",
    "probability",
    "probabilities",
    "policy",
    "timing_us",
    "bundle",
    "executor",
    "truncated",
    "instruction_tokens",
    "ignored_parts",
    "zoo",
    "interval",
    "intervals",
    "aptitude_items",
    "aptitude_answers",
}


def test_json_holds_what_the_engine_answers(run: Run, tiny_bundle: Path) -> None:
    result = run("route", QUESTION, "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    with Engine.load(tiny_bundle) as engine:
        decision = engine.route(QUESTION)
    assert set(answer) == KEYS
    assert answer["candidate"] == decision.candidate
    assert answer["probabilities"] == pytest.approx(dict(decision.probabilities), abs=1e-6)
    assert answer["probability"] == answer["probabilities"][answer["candidate"]]
    assert answer["instruction_tokens"] == decision.instruction_tokens
    assert set(answer["timing_us"]) == {"tokenise", "queue", "execute", "total"}
    assert result.stderr == ""


def test_the_table_is_sorted_by_probability_and_marks_the_choice(run: Run) -> None:
    answer = json.loads(run("route", QUESTION, "--json").stdout)
    result = run("route", QUESTION)
    lines = [line for line in result.stdout.splitlines() if "model-" in line]
    expected = sorted(answer["probabilities"], key=lambda name: -answer["probabilities"][name])
    assert [line.split("model-")[1][0] for line in lines] == [name[-1] for name in expected]
    assert [line.startswith("➜") for line in lines] == [True, False, False]
    assert f"${(int(expected[0][-1]) + 1) / 4:.2f}" in lines[0]
    assert "policy highest" in result.stdout
    assert "tiny@" in result.stdout


def test_ranges_are_shown_and_can_be_left_out(run: Run) -> None:
    answer = json.loads(run("route", QUESTION, "--json").stdout)
    assert answer["interval"] == 0.9
    for name, (low, high) in answer["intervals"].items():
        assert 0 <= low <= answer["probabilities"][name] <= high <= 1
        assert low < high
    narrow = json.loads(run("route", QUESTION, "--json", "--interval", "0.5").stdout)
    assert narrow["probabilities"] == answer["probabilities"]
    for name, (low, high) in narrow["intervals"].items():
        assert answer["intervals"][name][0] < low < high < answer["intervals"][name][1]
    table = run("route", QUESTION).stdout
    assert "90 % range" in table
    low, high = answer["intervals"]["model-1"]
    assert f"{low:.2f} to {high:.2f}" in next(line for line in table.splitlines() if "model-1" in line)
    without = json.loads(run("route", QUESTION, "--json", "--interval", "0").stdout)
    assert (without["interval"], without["intervals"]) == (None, None)
    assert "range" not in run("route", QUESTION, "--interval", "0").stdout
    for wrong in ("1", "-0.1", "sure"):
        assert run("route", QUESTION, "--interval", wrong).exit_code == 2


def test_a_thin_profile_is_called_thin(run: Run, tmp_path: Path) -> None:
    assert " answers" not in run("route", QUESTION).stdout, "nothing to say of complete ones"
    for name, tasks in (("half", {"chess": 4, "drama": 4, "ethics": 2}), ("thin", {"chess": 3})):
        value = {"name": name, "correct": dict.fromkeys(tasks, 2), "total": tasks}
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        assert run("candidates", "add", f"{name}.json").exit_code == 0
    lines = run("route", QUESTION).stdout.splitlines()
    assert next(line for line in lines if " half " in line).rstrip().endswith("  10 of 20 answers")
    assert next(line for line in lines if " thin " in line).rstrip().endswith("thin: 3 of 20 answers")
    answer = json.loads(run("route", QUESTION, "--json").stdout)
    assert answer["aptitude_items"] == 20
    assert answer["aptitude_answers"] == {"model-0": 20, "model-1": 20, "model-2": 20, "half": 10, "thin": 3}


def test_every_way_to_give_an_instruction_gives_the_same_answer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(QUESTION)
    messages = [{"role": "user", "content": QUESTION}]
    (tmp_path / "list.json").write_text(json.dumps(messages))
    (tmp_path / "request.json").write_text(json.dumps({"model": "any", "messages": messages}))
    answers = [
        json.loads(run("route", *arguments, "--json", stdin=given).stdout)["probabilities"]
        for arguments, given in [
            ([QUESTION], None),
            (["-"], QUESTION),
            (["--file", "text.txt"], None),
            (["--messages", "list.json"], None),
            (["--messages", "request.json"], None),
        ]
    ]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--policy", "cheapest-above", "--threshold", "0"], "CheapestAbove(threshold=0.0)"),
        (
            ["--policy", "maximum-utility", "--usd-value", "0.5"],
            "MaximumUtility(usd_value_of_correct=0.5, tokens_per_request=1000.0)",
        ),
        (
            ["--policy", "maximum-utility", "--usd-value", "0", "--tokens-per-request", "9"],
            "MaximumUtility(usd_value_of_correct=0.0, tokens_per_request=9.0)",
        ),
    ],
)
def test_policies_take_their_parameters(run: Run, options: list[str], policy: str) -> None:
    answer = json.loads(run("route", QUESTION, *options, "--json").stdout)
    assert answer["policy"] == policy
    if "0.5" not in options:  # nothing to gain: the cheapest
        assert answer["candidate"] == "model-0"


def test_the_table_says_when_nobody_reaches_the_threshold(run: Run) -> None:
    result = run("route", QUESTION, "--policy", "cheapest-above", "--threshold", "1")
    assert "policy cheapest-above 1" in result.stdout
    assert "nobody reaches it" in result.stdout


def test_a_threshold_outside_0_to_1_is_refused(run: Run) -> None:
    result = run("route", QUESTION, "--policy", "cheapest-above", "--threshold", "1.5")
    assert result.exit_code == 1
    assert "threshold must be a probability" in one_error_line(result.stderr)


def test_candidates_restrict_the_zoo_without_changing_its_probabilities(run: Run) -> None:
    everyone = json.loads(run("route", QUESTION, "--json").stdout)["probabilities"]
    some = json.loads(
        run("route", QUESTION, "--json", "--candidates", "model-2, model-0", "--candidates", "model-2").stdout
    )["probabilities"]
    assert list(some) == ["model-2", "model-0"]
    assert some == pytest.approx({name: everyone[name] for name in some}, abs=1e-6)


@pytest.mark.parametrize("names", ["model-7", ",", "model-0,model-7"])
def test_unknown_or_no_candidates_are_refused(run: Run, names: str) -> None:
    result = run("route", QUESTION, "--candidates", names)
    assert result.exit_code == 1
    one_error_line(result.stderr)


def test_a_long_instruction_is_cut_and_both_outputs_say_so(run: Run) -> None:
    answer = json.loads(run("route", "word " * 5000, "--json").stdout)
    assert answer["truncated"] is True
    assert answer["instruction_tokens"] > 64
    assert "cut to fit" in run("route", "word " * 5000).stdout


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([""], None),
        (["  \n\t "], None),
        (["-"], b""),
        (["-"], b"abc\n\xff\xfe"),
        (["--file", "missing.txt"], None),
        (["--file", "."], None),
        (["--messages", "not.json"], None),
        (["--messages", "object.json"], None),
        (["--messages", "wrong.json"], None),
        (["--messages", "empty.json"], None),
        (["hello", "--zoo", "missing.json"], None),
        (["hello", "--bundle", "missing"], None),
        (["hello", "--executor", "abacus"], None),
        (["hello", "--executor", "tensorrt"], None),
    ],
)
def test_bad_input_is_one_line_and_exit_1(run: Run, tmp_path: Path, arguments: list[str], given: bytes | None) -> None:
    (tmp_path / "not.json").write_text("{")
    (tmp_path / "object.json").write_text('{"role": "user"}')
    (tmp_path / "wrong.json").write_text('[{"role": "user", "content": 7}]')
    (tmp_path / "empty.json").write_text("[]")
    result = run("route", *arguments, stdin=given)
    assert result.exit_code == 1
    assert result.stdout == ""
    one_error_line(result.stderr)


def test_bytes_that_are_not_utf8_are_named_by_line(run: Run) -> None:
    result = run("route", "-", stdin=b"one\ntwo \xff\n")
    assert "byte 0xff in line 2" in one_error_line(result.stderr)


@pytest.mark.parametrize("text", ["nul \0 byte", "emoji 🦉", "مرحبا بالعالم", "x" * 10_000_000, "tab\tand\rreturn"])
def test_unusual_text_is_routed(run: Run, text: str) -> None:
    result = run("route", "-", "--json", stdin=text.encode())
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["candidate"]
