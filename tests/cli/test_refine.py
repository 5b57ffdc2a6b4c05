"""`modelsat candidates refine`. Seed 81."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from modelsat_engine.aptitude import edit_zoo, load_zoo, save_zoo
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.refinement import measure
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line
from tests.export.random_bundle import write_random_bundle

SEED = 81
GOOD: dict[str, object] = {"prompt": "a", "candidate": "model-1", "correct": 1}
GOODS = [{**GOOD, "prompt": "a b " * number} for number in range(1, 13)]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("axes") / "bundle", relevance_hidden=13, refinement_axes=5)


@pytest.fixture
def run(run: Run, router: Bundle, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MODELSAT_BUNDLE", str(router.path))
    return run


@pytest.fixture(scope="module")
def graded(router: Bundle) -> list[dict[str, object]]:
    """Answers that depend on the second axis, as no aptitude test can show."""
    rng = np.random.default_rng(SEED)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(211)]
    _, features = measure(router, router.zoo[1:2], texts)
    P = 1 / (1 + np.exp(-3 * features[:, 1] / features[:, 1].std()))
    right = (rng.random(len(P)) < P).astype(int).tolist()
    return [
        {"prompt": text, "candidate": "model-1", "correct": outcome} for text, outcome in zip(texts, right, strict=True)
    ]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_graded_answers_refine_a_candidate(run: Run, tmp_path: Path, graded: list[dict[str, object]]) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    before = json.loads(run("score", "graded.jsonl", "-o", "before.jsonl", "--json").stdout)
    result = run("candidates", "refine", "graded.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["written"], report["answers"], list(report["candidates"])) == (True, 211, ["model-1"])
    assert report["log_loss"]["refined"] < report["log_loss"]["before"]
    assert report["candidates"]["model-1"]["log_loss"] == report["log_loss"]
    assert json.loads(run("score", "graded.jsonl", "-o", "after.jsonl", "--json").stdout)["rows"] == before["rows"]
    first, second = (
        json.loads((tmp_path / name).read_text().splitlines()[0])["probabilities"]
        for name in ("before.jsonl", "after.jsonl")
    )
    assert first["model-1"] != second["model-1"]
    assert first["model-2"] != second["model-2"]  # by what they share
    shown = [run("candidates", "show", name).stdout for name in ("model-1", "model-2")]
    assert "refined by 211 more graded answers, and by what all candidates of its zoo share" in shown[0]
    assert "refined by 0 more graded answers, and by what all candidates of its zoo share" in shown[1]
    listed = {entry["name"]: entry["refined_by"] for entry in json.loads(run("candidates", "list", "--json").stdout)}
    assert listed == {"model-0": 0, "model-1": 211, "model-2": 0}


def test_a_log_of_several_candidates_refines_each(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle
) -> None:
    save_zoo(tmp_path / "zoo.json", router.zoo)
    names = ("model-0", "model-1", "stranger", "model-2")
    rows = [{"text": row["prompt"], "model": names[i % 4], "ok": row["correct"]} for i, row in enumerate(graded)]
    jsonl(tmp_path / "log.jsonl", rows)
    columns = ("--candidate-field", "model", "--correct-field", "ok")
    dry = run("candidates", "refine", "log.jsonl", *columns, "--zoo", "zoo.json", "--dry-run", "--json")
    assert json.loads(dry.stdout)["left_out"] == {"not_in_zoo": {"stranger": 53}, "ungraded": 0}
    result = run("candidates", "refine", "log.jsonl", *columns, "--zoo", "zoo.json", "--anyway")
    assert result.exit_code == 0, result.stderr
    assert "stranger is not in the zoo; its answers are left out: 53" in result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines[1:5]] == [
        ["model-0", "53"],
        ["model-1", "53"],
        ["model-2", "52"],
        ["all", "158"],
    ]
    refined = [profile.refinement for profile in load_zoo(tmp_path / "zoo.json")]
    assert [refinement.answers for refinement in refined if refinement] == [53, 53, 52]
    assert len({refinement.shared for refinement in refined if refinement}) == 1
    assert len({refinement.values for refinement in refined if refinement}) == 3


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_every_format_says_the_same(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], kind: str, named: bool
) -> None:
    rows = [{**row, "correct": bool(row["correct"])} for row in graded] + [{**GOOD, "correct": None}]
    columns = {name: [row[name] for row in rows] for name in ("prompt", "candidate", "correct")}
    if not named:
        del columns["candidate"]
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif kind == "jsonl":
        jsonl(path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            writer.writerows([columns, *zip(*columns.values(), strict=True)])
    who = [] if named else ["--candidate", "model-1"]
    result = run("candidates", "refine", path.name, *who, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["answers"], list(report["candidates"])) == (211, ["model-1"])
    assert report["accuracy"] == pytest.approx(np.mean([bool(row["correct"]) for row in graded]), abs=1e-4)
    assert f"left out: {2 if kind == 'jsonl' else 1}" in result.stderr


def test_fewer_answers_than_before_do_not_replace_them(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle
) -> None:
    save_zoo(tmp_path / "zoo.json", router.zoo)
    jsonl(tmp_path / "all.jsonl", graded)
    jsonl(tmp_path / "some.jsonl", graded[:150])
    assert run("candidates", "refine", "all.jsonl", "--zoo", "zoo.json").exit_code == 0
    before = (tmp_path / "zoo.json").read_bytes()
    result = run("candidates", "refine", "some.jsonl", "--zoo", "zoo.json")
    assert result.exit_code == 0
    assert "the zoo is refined by 211 answers already and these are 150: give all of them" in result.stderr
    assert (tmp_path / "zoo.json").read_bytes() == before
    assert run("candidates", "refine", "some.jsonl", "--zoo", "zoo.json", "--anyway").exit_code == 0
    assert [p.refinement.answers for p in load_zoo(tmp_path / "zoo.json") if p.refinement] == [0, 150, 0]


def test_a_candidate_added_later_takes_what_all_share(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle
) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    save_zoo(tmp_path / "zoo.json", router.zoo[:2])
    profile = router.zoo[2].to_json()
    (tmp_path / "new.json").write_text(json.dumps(profile), encoding="utf-8")
    assert run("candidates", "refine", "graded.jsonl", "--zoo", "zoo.json").exit_code == 0
    assert run("candidates", "add", "new.json", "--zoo", "zoo.json").exit_code == 0
    refined = [profile.refinement for profile in load_zoo(tmp_path / "zoo.json")]
    assert refined[1] is not None
    assert refined[2] is not None
    assert refined[2].shared == refined[1].shared
    assert (refined[2].answers, set(refined[2].values)) == (0, {0.0})


def test_a_dry_run_changes_nothing(run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    save_zoo(tmp_path / "zoo.json", router.zoo)
    before = (tmp_path / "zoo.json").read_bytes()
    result = run("candidates", "refine", "graded.jsonl", "--zoo", "zoo.json", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "Log loss of answers held out" in result.stdout
    assert "Without --dry-run it would be written." in result.stdout
    assert (tmp_path / "zoo.json").read_bytes() == before


def test_answers_that_teach_nothing_leave_the_zoo(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle
) -> None:
    rng = np.random.default_rng(SEED + 1)
    save_zoo(tmp_path / "zoo.json", router.zoo)
    jsonl(tmp_path / "graded.jsonl", graded)
    scored = run("score", "graded.jsonl", "-o", "scores.jsonl", "--zoo", "zoo.json")
    assert scored.exit_code == 0, scored.stderr
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    as_expected = [
        {**row, "correct": bool(rng.random() < score["probabilities"]["model-1"])}
        for row, score in zip(graded, rows, strict=True)
    ]
    jsonl(tmp_path / "expected.jsonl", as_expected)
    before = (tmp_path / "zoo.json").read_bytes()
    result = run("candidates", "refine", "expected.jsonl", "--zoo", "zoo.json")
    assert result.exit_code == 0
    assert "stays as it is" in result.stderr
    assert (tmp_path / "zoo.json").read_bytes() == before
    anyway = run("candidates", "refine", "expected.jsonl", "--zoo", "zoo.json", "--anyway", "--json")
    assert json.loads(anyway.stdout)["written"]
    refined = {profile.name: profile.refinement for profile in load_zoo(tmp_path / "zoo.json")}
    assert all(refined.values())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD] * 12, "at least 10"),
        ([*GOODS, {**GOOD, "prompt": chr(0x200B)}], "line 13: the instruction is empty"),
        ([*GOODS, {**GOOD, "prompt": [{"role": "nobody", "content": "a"}]}], "line 13: message 0"),
        ([{**GOOD, "correct": 0.5}] * 12, "neither right"),
        ([{**GOOD, "correct": "perhaps"}] * 12, "neither right"),
        ([{**GOOD, "correct": None}] * 12, "has no graded answer of a candidate"),
        ([GOOD] * 11 + [{**GOOD, "prompt": " "}], "line 12"),
        ([GOOD, {"candidate": "model-1", "correct": 1}], "line 2"),
        ([GOOD, {"prompt": "a", "correct": 1}], "line 2: 'candidate' names no candidate; give its column"),
        ([{**GOOD, "candidate": 7}] * 12, "line 1: 'candidate' names no candidate"),
        ([{**GOOD, "candidate": ""}] * 12, "line 1: 'candidate' names no candidate"),
    ],
)
def test_answers_that_cannot_be_read_are_named(
    run: Run, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    jsonl(tmp_path / "graded.jsonl", rows)
    result = run("candidates", "refine", "graded.jsonl")
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]


def test_other_mistakes_are_named(run: Run, tmp_path: Path, tiny_bundle: Path, graded: list[dict[str, object]]) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    nobody = run("candidates", "refine", "graded.jsonl", "--candidate", "nobody")
    assert "no candidate is called 'nobody'; the zoo has model-0" in one_error_line(nobody.stderr)
    jsonl(tmp_path / "strange.jsonl", [{**row, "candidate": "stranger"} for row in graded])
    strange = run("candidates", "refine", "strange.jsonl")
    assert strange.exit_code == 1
    assert "strange.jsonl has no graded answer of a candidate; the zoo has model-0" in strange.stderr
    assert "does not exist" in one_error_line(run("candidates", "refine", "none.jsonl").stderr)
    (tmp_path / "lean.csv").write_text("prompt,correct\na,1\n", encoding="utf-8")
    assert "candidate" in one_error_line(run("candidates", "refine", "lean.csv").stderr)
    (tmp_path / "bad.csv").write_bytes(b"prompt,correct\n\xff\xfe,1\n")
    assert "UTF-8" in one_error_line(run("candidates", "refine", "bad.csv", "--candidate", "model-1").stderr)
    (tmp_path / "plain.txt").write_text("a\n", encoding="utf-8")
    assert "cannot say what was right" in one_error_line(run("candidates", "refine", "plain.txt").stderr)
    other = run("candidates", "refine", "graded.jsonl", "--candidate", "model-2")
    assert "line 1: 'candidate' names 'model-1', but --candidate says" in one_error_line(other.stderr)
    result = run("candidates", "refine", "graded.jsonl", "--bundle", tiny_bundle)
    assert "no axes" in one_error_line(result.stderr)


def test_a_candidate_that_changes_meanwhile_is_not_overwritten(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.runtime import refinement

    jsonl(tmp_path / "graded.jsonl", graded)
    save_zoo(tmp_path / "zoo.json", router.zoo)
    real = refinement.refine

    def slow(*arguments: object, **options: object) -> object:
        with edit_zoo(tmp_path / "zoo.json") as zoo:
            del zoo["model-1"]
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(refinement, "refine", slow)
    result = run("candidates", "refine", "graded.jsonl", "--zoo", "zoo.json")
    assert "meanwhile" in one_error_line(result.stderr)
