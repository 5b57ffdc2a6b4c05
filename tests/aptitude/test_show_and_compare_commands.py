"""`modelsat aptitude show` and `compare`: tables, pictures, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.export.bundle import Bundle
from tests.aptitude.conftest import Run
from tests.aptitude.result_files import SUBJECTS, write_json

STRONG, WEAK = "Llama-3.1-70B-Instruct", "gemma-2b-it"


def partial(name: str = "mine") -> CapabilityProfile:
    tasks = (*SUBJECTS, "sociology")
    return CapabilityProfile(
        name, dict(zip(tasks, (3, 0, 5, 0), strict=True)), dict(zip(tasks, (5, 5, 5, 0), strict=True))
    )


def test_show_lists_tasks_with_intervals_best_first_and_the_notes(run: Run) -> None:
    result = run("aptitude", "show", STRONG)
    assert result.exit_code == 0, result.stderr
    assert "notes: instruction-tuned" in result.stdout
    rows = [line for line in result.stdout.splitlines() if " of 20" in line]
    shares = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert len(shares) == 50
    assert shares == sorted(shares, reverse=True)
    assert all("[" in row and "]" in row for row in rows)


def test_show_reads_a_file_and_says_what_is_unknown(run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", partial().to_json())
    shown = json.loads(run("aptitude", "show", "mine.json", "--json", "--confidence", "0.9").stdout)
    assert shown["overall"]["accuracy"] == pytest.approx(8 / 15, abs=1e-4)
    assert shown["confidence"] == 0.9
    assert shown["tasks"][-1]["task"] == "sociology"
    assert shown["tasks"][-1]["accuracy"] is None
    assert shown["tasks"][-1]["interval"] == [0.0, 1.0]
    assert "sociology" in run("aptitude", "show", "mine.json").stdout.splitlines()[-1]


def test_show_of_a_zoo_names_the_candidate(run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", partial().to_json())
    assert run("candidates", "add", "mine.json", "--zoo", "z.json").exit_code == 0
    assert run("aptitude", "show", "mine", "--zoo", "z.json").exit_code == 0
    both = run("aptitude", "show", "z.json")
    assert both.exit_code == 1
    assert "holds several profiles" in both.stderr
    assert "neither a file nor a candidate" in run("aptitude", "show", "nobody").stderr
    (tmp_path / "bad.json").write_text('{"name": "x"')
    assert "cut short" in run("aptitude", "show", "bad.json").stderr


@pytest.mark.parametrize(("style", "ending", "magic"), [("bar", "svg", b"<?xml"), ("radar", "png", b"\x89PNG")])
def test_pictures_are_drawn(run: Run, tmp_path: Path, style: str, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    odd = CapabilityProfile.from_json({**partial().to_json(), "name": "a$b\n" + "x" * 99})
    write_json(tmp_path / "mine.json", odd.to_json())
    assert run("aptitude", "show", "mine.json", "--plot", f"a.{ending}", "--style", style).exit_code == 0
    compared = run("aptitude", "compare", "mine.json", STRONG, "--plot", f"b.{ending}", "--style", style, "--json")
    assert compared.exit_code == 0, compared.stderr
    for name in ("a", "b"):
        assert (tmp_path / f"{name}.{ending}").read_bytes().startswith(magic)
    if ending == "svg":
        assert "anatomy" in (tmp_path / "a.svg").read_text(), "text stays text"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{ending}", f"b.{ending}", "mine.json"]


def test_a_picture_that_cannot_be_drawn_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no picture file" in run("aptitude", "show", STRONG, "--plot", "a.txt").stderr
    assert "is not a folder" in run("aptitude", "show", STRONG, "--plot", "no/a.png").stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("aptitude", "show", STRONG, "--plot", "a.png")
    assert result.exit_code == 1
    assert "pip install 'modelsat-engine[evaluate]'" in result.stderr


def test_compare_says_how_sure_it_is(run: Run) -> None:
    result = run("aptitude", "compare", STRONG, WEAK)
    assert result.exit_code == 0, result.stderr
    assert "A less B over 50 tasks in common: +" in result.stdout
    assert "paired" in result.stdout
    assert "notes: instruction-tuned" in result.stdout
    assert "to be expected by luck" in result.stdout
    value = json.loads(run("aptitude", "compare", STRONG, WEAK, "--json").stdout)
    zoo = {profile.name: profile for profile in Bundle.load().zoo}
    assert value["overall"]["difference"] == pytest.approx(zoo[STRONG].accuracy - zoo[WEAK].accuracy, abs=1e-3)
    assert value["overall"]["p_value"] < 1e-20
    assert set(value["tasks_that_differ"]) < {task["task"] for task in value["tasks"]}


def test_compare_leaves_out_what_one_side_does_not_know(run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "mine.json", partial().to_json())
    result = run("aptitude", "compare", "mine.json", WEAK)
    assert "over 3 tasks in common" in result.stdout
    assert "47 tasks that one of them has no answer for are left out" in result.stdout
    other = CapabilityProfile.from_json({**partial().to_json(), "test_id": "sha256:0123456789abcdef"})
    write_json(tmp_path / "other.json", other.to_json())
    refused = run("aptitude", "compare", "other.json", WEAK)
    assert refused.exit_code == 1
    assert "grade both on one test" in refused.stderr


def test_bad_usage_is_told(run: Run) -> None:
    assert run("aptitude", "compare", STRONG).exit_code == 2
    assert run("aptitude", "show", STRONG, "--confidence", "1").exit_code == 2
    assert run("aptitude", "show", STRONG, "--style", "pie").exit_code == 2
    for name in ("show", "compare"):
        assert "Examples:" in run("aptitude", name, "--help").stdout
