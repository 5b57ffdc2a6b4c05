"""`modelsat aptitude import`: from result files to a candidate that is routed to."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile
from modelsat_engine.export.bundle import Bundle
from tests.aptitude.conftest import Run
from tests.aptitude.result_files import (
    SUBJECTS,
    lm_eval_results,
    pro_sample,
    pro_test,
    question,
    write_json,
    write_lines,
)


@pytest.fixture(scope="module")
def shipped() -> AptitudeTest:
    return Bundle.load().aptitude_test


def test_samples_become_a_candidate_that_is_routed_to(run: Run, tmp_path: Path, shipped: AptitudeTest) -> None:
    coin = random.Random(5)
    numbers = [int(item.partition("/")[2]) for item in sorted(shipped.item_ids)] + [9_000_001]
    write_lines(
        tmp_path / "samples_leaderboard_mmlu_pro_2025-01-01T00-00-00.1.jsonl",
        [
            {**pro_sample(n, 0), "filter": "none", "metrics": ["acc"], "acc": float(coin.random() < 0.9)}
            for n in numbers
        ],
    )
    samples = next(tmp_path.glob("samples*"))
    imported = run("aptitude", "import", "--format", "lm-eval", samples, "--name", "my-model", "--json")
    assert imported.exit_code == 0, imported.stderr
    summary = json.loads(imported.stdout)
    assert (summary["answers"], summary["items_not_in_test"], summary["missing_tasks"]) == (1000, 1, [])
    assert summary["notes"] == "scored by log-likelihood"
    added = run("candidates", "add", "my-model.json", "--zoo", "z.json", "--json")
    assert added.exit_code == 0, added.stderr
    routed = run("route", "Which bone is the longest?", "--zoo", "z.json", "--json")
    assert routed.exit_code == 0, routed.stderr
    assert "my-model" in json.loads(routed.stdout)["probabilities"]


def test_a_profile_is_written_whole_and_not_over_another(run: Run, tmp_path: Path) -> None:
    pro_test().save(tmp_path / "aptitude.json")
    (tmp_path / "r.csv").write_text("item,correct\nmmlu_pro/0,1\nmmlu_pro/1,0\n")
    arguments = ("aptitude", "import", "r.csv", "--name", "org/my model", "--test", "aptitude.json")
    first = run(*arguments, "--notes", "instruction-tuned", "--price", "0.5")
    assert first.exit_code == 0, first.stderr
    assert "50.0% of 2 answers (15 make the whole test), 1 of 3 tasks, from csv" in first.stdout
    assert "no result for 2 of 3 tasks, which stay unknown" in first.stderr
    profile = CapabilityProfile.from_json(json.loads((tmp_path / "org_my_model.json").read_text()))
    assert (profile.name, profile.notes, profile.usd_per_million_tokens) == ("org/my model", "instruction-tuned", 0.5)
    again = run(*arguments)
    assert again.exit_code == 1
    assert "exists; pass --overwrite" in again.stderr
    assert run(*arguments, "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aptitude.json", "org_my_model.json", "r.csv"]


def test_mmlu_is_refused_taken_as_it_is_or_carried_over(run: Run, tmp_path: Path) -> None:
    pro_test().save(tmp_path / "aptitude.json")
    write_json(tmp_path / "mmlu.json", lm_eval_results({f"mmlu_{s}": (0.8, 150) for s in SUBJECTS}))
    write_json(tmp_path / "anchor.json", lm_eval_results({f"mmlu_{s}": (0.6, 150) for s in SUBJECTS}))
    known = CapabilityProfile("known", dict.fromkeys(SUBJECTS, 1), dict.fromkeys(SUBJECTS, 5))
    write_json(tmp_path / "known.json", known.to_json())
    arguments = ("aptitude", "import", "mmlu.json", "--name", "m", "--test", "aptitude.json", "--json", "--overwrite")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "another scale" in refused.stderr
    assert not (tmp_path / "m.json").exists()
    as_is = json.loads(run(*arguments, "--as-is").stdout)
    carried = run(*arguments, "--anchor", "anchor.json=known.json")
    assert carried.exit_code == 0, carried.stderr
    assert json.loads(carried.stdout)["accuracy"] < as_is["accuracy"] == 0.8
    assert json.loads(carried.stdout)["step"]["pairs"] == 3
    for extra, words in (
        (("--anchor", "anchor.json"), "is not FILE=CANDIDATE"),
        (("--anchor", "anchor.json=known.json", "--as-is"), "exclude each other"),
    ):
        assert run(*arguments, *extra).exit_code == 2
        assert words in run(*arguments, *extra).stderr
    unknown = run(*arguments, "--anchor", "anchor.json=nobody")
    assert unknown.exit_code == 1
    assert "'nobody' is neither a file nor a candidate" in unknown.stderr


def test_questions_find_items_by_their_content(run: Run, tmp_path: Path) -> None:
    pro_test().save(tmp_path / "aptitude.json")
    write_lines(
        tmp_path / "questions.jsonl",
        [
            {"id": q.id.removeprefix("mmlu_pro/"), "question": q.text, "options": q.options, "answer": q.answer}
            for q in (question(n) for n in (0, 1, 100))
        ],
    )
    sample = pro_sample(0, 1.0)
    sample["doc"] = {**sample["doc"], "question_id": 4711}
    write_lines(tmp_path / "samples_mmlu_pro_x.jsonl", [sample])
    arguments = ("aptitude", "import", "samples_mmlu_pro_x.jsonl", "--name", "m", "--test", "aptitude.json")
    assert run(*arguments).exit_code == 1
    found = run(*arguments, "--questions", "questions.jsonl", "--json")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["items"] == 1
    write_lines(tmp_path / "other.jsonl", [{"question": "What?", "answer": "that"}])
    nothing = run(*arguments, "--questions", "other.jsonl", "--overwrite")
    assert "has no question of the aptitude test" in nothing.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.json", '{"results": {"mmlu_law": {"acc,no', "not valid JSON, or cut short"),
        ("r.json", '{"results": {"mmlu_law": {"acc,none": 1.7}}}', "need a share between 0 and 1"),
        ("r.json", "{}", "no format known here"),
        ("r.csv", "item,correct\nother/1,1\n", "nothing here says anything about the aptitude test"),
        ("r.csv", "item,correct\nmmlu_pro/0,1\nmmlu_pro/0,0\n", "keep one of them"),
        ("r.csv", "", "has no row"),
    ],
)
def test_hostile_files_end_in_one_line(run: Run, tmp_path: Path, name: str, content: str, words: str) -> None:
    pro_test().save(tmp_path / "aptitude.json")
    (tmp_path / name).write_text(content)
    extra = ("--format", "lm-eval") if content.startswith('{"') else ()
    result = run("aptitude", "import", name, "--name", "m", "--test", "aptitude.json", *extra)
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m.json").exists()


def test_bad_usage_is_told(run: Run, tmp_path: Path) -> None:
    assert run("aptitude", "import").exit_code == 2
    assert run("aptitude", "import", "x.csv").exit_code == 2
    assert "does not exist" in run("aptitude", "import", "x.csv", "--name", "m").stderr
    assert "Examples:" in run("aptitude", "import", "--help").stdout
    (tmp_path / "r.csv").write_text("item,correct\nmmlu_pro/0,1\n")
    assert "name one with -o" in run("aptitude", "import", "r.csv", "--name", "..").stderr
    nowhere = run("aptitude", "import", "r.csv", "--name", "m", "-o", "no/such/m.json")
    assert "is not a folder; make it first" in nowhere.stderr
