"""`modelsat candidates refine`. Seed 81."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.aptitude import edit_zoo, load_zoo, save_zoo
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.refinement import measure
from tests.cli.conftest import Run
from tests.cli.test_entry import one_error_line
from tests.export.random_bundle import write_random_bundle

SEED = 81


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
    return [{"prompt": text, "correct": int(right)} for text, right in zip(texts, rng.random(len(P)) < P, strict=True)]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_graded_answers_refine_a_candidate(run: Run, tmp_path: Path, graded: list[dict[str, object]]) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    before = json.loads(run("score", "graded.jsonl", "-o", "before.jsonl", "--json").stdout)
    result = run("candidates", "refine", "model-1", "graded.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["written"], report["answers"]) == (True, 211)
    assert report["log_loss"]["refined"] < report["log_loss"]["before"]
    assert json.loads(run("score", "graded.jsonl", "-o", "after.jsonl", "--json").stdout)["rows"] == before["rows"]
    first, second = (
        json.loads((tmp_path / name).read_text().splitlines()[0])["probabilities"]
        for name in ("before.jsonl", "after.jsonl")
    )
    assert first["model-1"] != second["model-1"]
    assert first["model-2"] == second["model-2"]
    assert "refined by 211 more graded answers" in run("candidates", "show", "model-1").stdout
    listed = {entry["name"]: entry["refined_by"] for entry in json.loads(run("candidates", "list", "--json").stdout)}
    assert listed == {"model-0": 0, "model-1": 211, "model-2": 0}


def test_a_dry_run_changes_nothing(run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    save_zoo(tmp_path / "zoo.json", router.zoo)
    before = (tmp_path / "zoo.json").read_bytes()
    result = run("candidates", "refine", "model-1", "graded.jsonl", "--zoo", "zoo.json", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "Log loss of answers held out" in result.stdout
    assert (tmp_path / "zoo.json").read_bytes() == before


def test_answers_that_teach_nothing_leave_the_zoo(
    run: Run, tmp_path: Path, graded: list[dict[str, object]], router: Bundle
) -> None:
    rng = np.random.default_rng(SEED)
    save_zoo(tmp_path / "zoo.json", router.zoo)
    jsonl(tmp_path / "noise.jsonl", [{**row, "correct": bool(rng.random() < 0.5)} for row in graded])
    scored = run("score", "noise.jsonl", "-o", "scores.jsonl", "--zoo", "zoo.json")
    assert scored.exit_code == 0, scored.stderr
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    as_expected = [
        {**row, "correct": bool(rng.random() < score["probabilities"]["model-1"])}
        for row, score in zip(graded, rows, strict=True)
    ]
    jsonl(tmp_path / "expected.jsonl", as_expected)
    before = (tmp_path / "zoo.json").read_bytes()
    result = run("candidates", "refine", "model-1", "expected.jsonl", "--zoo", "zoo.json")
    assert result.exit_code == 0
    assert "stays as it is" in result.stderr
    assert (tmp_path / "zoo.json").read_bytes() == before
    anyway = run("candidates", "refine", "model-1", "expected.jsonl", "--zoo", "zoo.json", "--anyway", "--json")
    assert json.loads(anyway.stdout)["written"]
    refined = {profile.name: profile.refinement for profile in load_zoo(tmp_path / "zoo.json")}
    assert refined["model-1"] is not None
    assert refined["model-2"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "correct": 1}] * 9, "at least 10"),
        ([{"prompt": "a", "correct": 0.5}] * 12, "neither right"),
        ([{"prompt": "a"}] * 12, "neither right"),
        ([{"prompt": "a", "correct": 1}] * 11 + [{"prompt": " ", "correct": 1}], "line 12"),
        ([{"prompt": "a", "correct": 1}, {"correct": 1}], "line 2"),
    ],
)
def test_answers_that_cannot_be_read_are_named(
    run: Run, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    jsonl(tmp_path / "graded.jsonl", rows)
    result = run("candidates", "refine", "model-1", "graded.jsonl")
    assert result.exit_code == 1
    assert message in one_error_line(result.stderr)


def test_other_mistakes_are_named(run: Run, tmp_path: Path, tiny_bundle: Path, graded: list[dict[str, object]]) -> None:
    jsonl(tmp_path / "graded.jsonl", graded)
    assert "no candidate is called" in one_error_line(run("candidates", "refine", "nobody", "graded.jsonl").stderr)
    assert "does not exist" in one_error_line(run("candidates", "refine", "model-1", "none.jsonl").stderr)
    (tmp_path / "bad.csv").write_bytes(b"prompt,correct\n\xff\xfe,1\n")
    assert "UTF-8" in one_error_line(run("candidates", "refine", "model-1", "bad.csv").stderr)
    result = run("candidates", "refine", "model-1", "graded.jsonl", "--bundle", tiny_bundle)
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
    result = run("candidates", "refine", "model-1", "graded.jsonl", "--zoo", "zoo.json")
    assert "meanwhile" in one_error_line(result.stderr)
