"""`modelsat candidates`: looking at a zoo and changing it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsat_engine.aptitude import load_zoo
from modelsat_engine.aptitude.files import locked
from modelsat_engine.export.bundle import SHIPPED_BUNDLE, Bundle
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line

SUBJECTS = ("algebra", "botany", "chess", "drama", "ethics")


def profile(name: str = "mine", **others: object) -> dict[str, object]:
    return {
        "name": name,
        "correct": dict.fromkeys(SUBJECTS, 3),
        "total": dict.fromkeys(SUBJECTS, 4),
        **others,
    }


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_list_shows_the_strongest_first(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile(usd_per_million_tokens=2))
    run("candidates", "add", "mine.json", "--zoo", "zoo.json")
    table = run("candidates", "list", "--zoo", "zoo.json").stdout.splitlines()
    assert table[1].startswith("mine")
    assert "75.0%" in table[1]
    assert "$2.00" in table[1]
    listed = json.loads(run("candidates", "list", "--zoo", "zoo.json", "--json").stdout)
    assert listed[0] == {
        "name": "mine",
        "accuracy": 0.75,
        "items": 20,
        "refined_by": 0,
        "usd_per_million_tokens": 2.0,
        "notes": "",
    }


def test_show_lists_tasks_by_accuracy(run: Run) -> None:
    result = run("candidates", "show", "model-1")
    lines = result.stdout.splitlines()
    shares = [float(line.split("%")[0].split()[-1]) for line in lines if " of 4" in line]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert "$0.50 per million tokens" in result.stdout


def test_what_show_prints_as_json_can_be_added_again(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "again.json").write_text(run("candidates", "show", "model-1", "--json").stdout)
    result = run("candidates", "add", "again.json", "--zoo", "zoo.json", "--empty")
    assert result.exit_code == 0, result.stderr
    assert load_zoo(tmp_path / "zoo.json") == [Bundle.load(tiny_bundle).zoo[1]]


def test_a_new_zoo_starts_as_a_copy_of_the_bundles(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    write(tmp_path / "mine.json", profile())
    result = run("candidates", "add", "mine.json", "--zoo", "zoo.json", "--json")
    assert json.loads(result.stdout) == {
        "zoo": "zoo.json",
        "created": True,
        "added": ["mine"],
        "replaced": [],
        "candidates": 4,
    }
    zoo = load_zoo(tmp_path / "zoo.json")
    assert [candidate.name for candidate in zoo] == ["model-0", "model-1", "model-2", "mine"]
    assert zoo[-1].test_id == Bundle.load(tiny_bundle).aptitude_test.id
    answer = json.loads(run("route", "hello", "--zoo", "zoo.json", "--json").stdout)
    assert set(answer["probabilities"]) == {"model-0", "model-1", "model-2", "mine"}


@pytest.mark.parametrize("form", ["list", "zoo", "stdin"])
def test_a_file_may_hold_one_profile_a_list_or_a_zoo(run: Run, tmp_path: Path, form: str) -> None:
    both = [profile("a"), profile("b")]
    given = None
    if form == "list":
        file = write(tmp_path / "file.json", both)
    elif form == "zoo":
        file = write(tmp_path / "file.json", {"format_version": 1, "candidates": both})
    else:
        file, given = "-", json.dumps(both)
    assert run("candidates", "add", file, "--zoo", "zoo.json", "--empty", stdin=given).exit_code == 0
    assert [candidate.name for candidate in load_zoo(tmp_path / "zoo.json")] == ["a", "b"]


def test_a_price_is_set_and_forgotten(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile(usd_per_million_tokens=5))
    run("candidates", "add", "mine.json", "--zoo", "zoo.json", "--price", "0.6")
    assert load_zoo(tmp_path / "zoo.json")[-1].usd_per_million_tokens == 0.6
    run("candidates", "add", "mine.json", "--zoo", "zoo.json", "--replace", "--no-price")
    assert load_zoo(tmp_path / "zoo.json")[-1].usd_per_million_tokens is None
    result = run("route", "hello", "--zoo", "zoo.json", "--policy", "cheapest-above", "--threshold", "0.5")
    assert result.exit_code == 1
    assert "needs the price of 'mine'" in one_error_line(result.stderr)


def test_replacing_keeps_the_place(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "new.json", profile("model-1"))
    result = run("candidates", "add", "new.json", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "--replace" in one_error_line(result.stderr)
    assert not (tmp_path / "zoo.json").exists()
    result = run("candidates", "add", "new.json", "--zoo", "zoo.json", "--replace")
    assert "Replaced model-1" in result.stdout
    zoo = load_zoo(tmp_path / "zoo.json")
    assert [candidate.name for candidate in zoo] == ["model-0", "model-1", "model-2"]
    assert zoo[1].accuracy == 0.75


def test_missing_tasks_are_a_warning(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "part.json", {"name": "part", "correct": {"chess": 1}, "total": {"chess": 4}})
    result = run("candidates", "add", "part.json", "--zoo", "zoo.json")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: part: no answers for 4 of 5 tasks")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (profile(correct=dict.fromkeys(SUBJECTS, 9)), "correct"),
        (profile(correct=dict.fromkeys(SUBJECTS, -1)), "correct"),
        (profile(test_id="sha256:0123456789abcdef"), "aptitude test"),
        (profile(correct={"alchemy": 1}, total={"alchemy": 2}), "alchemy"),
        (profile(usd_per_million_tokens=-1), "price"),
        (profile(price=3), "unknown key 'price'"),
        ({"name": "no counts"}, "missing"),
        ([profile("twice"), profile("twice")], "two profiles called 'twice'"),
        ([], "no profile"),
        (7, "JSON object"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_and_the_zoo_untouched(
    run: Run, tmp_path: Path, value: object, says: str
) -> None:
    write(tmp_path / "bad.json", value)
    result = run("candidates", "add", "bad.json", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert says in one_error_line(result.stderr.splitlines()[-1])
    assert not (tmp_path / "zoo.json").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"", b"[" * 100_000])
def test_a_file_that_is_not_json_is_refused(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    result = run("candidates", "add", "bad.json", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "bad.json is not JSON" in one_error_line(result.stderr)


def test_remove_takes_several_names_or_none_of_them(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile())
    run("candidates", "add", "mine.json", "--zoo", "zoo.json")
    result = run("candidates", "remove", "mine", "nobody", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "the zoo has mine, model-0, model-1, model-2" in one_error_line(result.stderr)
    assert len(load_zoo(tmp_path / "zoo.json")) == 4
    result = run("candidates", "remove", "mine", "model-0", "--zoo", "zoo.json", "--json")
    assert json.loads(result.stdout) == {"zoo": "zoo.json", "removed": ["mine", "model-0"], "candidates": 2}


def test_an_empty_zoo_is_allowed_but_not_silent(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile())
    run("candidates", "add", "mine.json", "--zoo", "zoo.json", "--empty")
    result = run("candidates", "remove", "mine", "--zoo", "zoo.json")
    assert result.exit_code == 0
    assert "empty now" in result.stderr
    assert "zoo is empty" in run("candidates", "list", "--zoo", "zoo.json").stdout
    routed = run("route", "hello", "--zoo", "zoo.json")
    assert routed.exit_code == 1
    assert "is empty" in one_error_line(routed.stderr)


def own_zoo(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "share" / "modelsat-engine").glob("*.json")
    return found


def test_without_a_name_it_is_the_users_own_zoo_everywhere(run: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    before = (tiny_bundle / "zoo.json").read_bytes()
    write(tmp_path / "mine.json", profile())
    assert json.loads(run("route", "hello", "--json").stdout)["zoo"] == "the bundle's own"
    assert "the bundle's own" in run("candidates", "list").stdout

    added = json.loads(run("candidates", "add", "mine.json", "--json").stdout)
    assert added == {
        "zoo": str(own_zoo(tmp_path)),
        "created": True,
        "added": ["mine"],
        "replaced": [],
        "candidates": 4,
    }
    routed = json.loads(run("route", "hello", "--json").stdout)
    assert set(routed["probabilities"]) == {"model-0", "model-1", "model-2", "mine"}
    assert routed["zoo"] == added["zoo"]
    assert f"4 candidates, {added['zoo']}" in run("candidates", "list").stdout
    assert json.loads(run("doctor", "--json").stdout)["bundle"]["zoo"] == added["zoo"]

    assert run("candidates", "remove", "model-0").exit_code == 0
    assert set(json.loads(run("route", "hello", "--json").stdout)["probabilities"]) == {"model-1", "model-2", "mine"}
    assert (tiny_bundle / "zoo.json").read_bytes() == before, "what ships is never edited"


def test_removing_first_starts_from_the_bundles_zoo(run: Run, tmp_path: Path) -> None:
    assert run("candidates", "remove", "model-0").exit_code == 0
    assert [profile.name for profile in load_zoo(own_zoo(tmp_path))] == ["model-1", "model-2"]


def test_routers_of_other_tests_have_other_zoos(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile())
    run("candidates", "add", "mine.json")
    listed = run("candidates", "list", "--bundle", SHIPPED_BUNDLE)
    assert "mine" not in listed.stdout
    assert "the bundle's own" in listed.stdout


def test_the_environment_names_a_zoo_for_every_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSAT_ZOO", str(tmp_path / "named.json"))
    write(tmp_path / "mine.json", profile())
    missing = run("route", "hello")
    assert missing.exit_code == 1
    assert "cannot read the zoo" in one_error_line(missing.stderr)
    assert run("candidates", "add", "mine.json").exit_code == 0
    assert "mine" in json.loads(run("route", "hello", "--json").stdout)["probabilities"]
    assert not (tmp_path / "share").exists()


def test_a_user_without_a_home_is_asked_for_a_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelsat_engine.user_files.user_zoo_path", lambda _: None)
    write(tmp_path / "mine.json", profile())
    result = run("candidates", "add", "mine.json")
    assert result.exit_code == 1
    assert "--zoo" in one_error_line(result.stderr)
    assert run("route", "hello").exit_code == 0


def test_replace_keeps_the_place_and_wants_the_candidate_to_be_there(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", [profile("model-1"), profile("model-0")])
    result = run("candidates", "replace", "mine.json", "--no-price", "--json")
    assert json.loads(result.stdout)["replaced"] == ["model-1", "model-0"]
    zoo = load_zoo(own_zoo(tmp_path))
    assert [(entry.name, entry.accuracy, entry.usd_per_million_tokens) for entry in zoo[:2]] == [
        ("model-0", 0.75, None),
        ("model-1", 0.75, None),
    ]
    write(tmp_path / "other.json", [profile("model-2"), profile("nobody")])
    refused = run("candidates", "replace", "other.json")
    assert refused.exit_code == 1
    assert "'nobody'" in one_error_line(refused.stderr)
    assert load_zoo(own_zoo(tmp_path)) == zoo


def test_a_zoo_that_somebody_else_is_changing_is_waited_for_and_not_for_ever(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelsat_engine.aptitude.zoo.LOCK_TIMEOUT_S", 0.02)
    write(tmp_path / "mine.json", profile())
    with locked(tmp_path / "zoo.json"):
        result = run("candidates", "add", "mine.json", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "somebody else has been changing it" in one_error_line(result.stderr)
    assert not (tmp_path / "zoo.json").exists()


def test_a_damaged_zoo_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", profile())
    (tmp_path / "zoo.json").write_text('{"candidates": [')
    result = run("candidates", "add", "mine.json", "--zoo", "zoo.json")
    assert result.exit_code == 1
    assert "zoo.json" in one_error_line(result.stderr)
    assert (tmp_path / "zoo.json").read_text() == '{"candidates": ['


def test_price_options_that_contradict_are_bad_usage(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "two.json", [profile("a"), profile("b")])
    assert run("candidates", "add", "two.json", "--zoo", "z.json", "--price", "1", "--no-price").exit_code == 2
    assert run("candidates", "add", "two.json", "--zoo", "z.json", "--price", "1").exit_code == 2
