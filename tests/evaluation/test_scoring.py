"""Scoring predictions that were made elsewhere, and drawing the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.plot import draw
from modelsat_engine.evaluation.routerbench import RouterBench
from modelsat_engine.evaluation.scenarios import score_scenarios
from modelsat_engine.evaluation.scoring import ALL_SCENARIOS, score_predictions
from modelsat_engine.evaluation.splits import Split
from tests.evaluation.conftest import SEED
from tests.evaluation.synthetic import write_routerbench
from tests.evaluation.test_scenarios import noisy_truth

FEW = {"seeds": 2, "zoo_size": 3, "zoos_per_seed": 4}


def test_one_matrix_is_scored_in_every_scenario(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    P = noisy_truth(data, 0.3)
    result = score_predictions(P, data, split, aptitude_test, **FEW)
    json.dumps(result, allow_nan=False)
    assert tuple(result) == tuple(name for name in ALL_SCENARIOS if name != "routerbench")
    assert (
        result["new_models"]
        == score_scenarios(P, data, split, aptitude_test, scenarios=["new_models"], **FEW)["new_models"]
    )
    assert result["cost_pairs"]["groups"]["priced"]["wide"]["predictors"]["router"]["apgr"]["mean"] > 0.5


def test_only_what_is_judged_must_be_predicted(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    P = np.full(data.Y.T.shape, np.nan)
    rows = np.concatenate([split.seen_rows, split.new_rows])
    P[np.ix_(split.test, rows)] = noisy_truth(data, 0.3)[np.ix_(split.test, rows)]
    names = ["cost_pairs", "size_classes", "new_models"]
    result = score_predictions(P, data, split, aptitude_test, scenarios=names, max_questions=90, **FEW)
    assert list(result) == names, "in the order asked for"
    assert result["cost_pairs"]["rules"]["router"]["chosen_on"] == "default"
    assert result["new_models"]["questions"] == result["cost_pairs"]["questions"] == 90


def test_routerbench_needs_its_own_predictions(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest, tmp_path: Path
) -> None:
    P, bench = noisy_truth(data, 0.3), RouterBench.load(write_routerbench(tmp_path, SEED))
    assert bench is not None
    with pytest.raises(DataError, match="routerbench needs"):
        score_predictions(P, data, split, aptitude_test, scenarios=["routerbench"])
    with pytest.raises(DataError, match="no scenario 'old_models'"):
        score_predictions(P, data, split, aptitude_test, scenarios=["old_models"])
    on_bench = np.full((len(bench.instruction), len(data.model_keys)), 0.5)
    result = score_predictions(
        P, data, split, aptitude_test, scenarios=["routerbench"], bench=bench, bench_P=on_bench, **FEW
    )
    assert result["routerbench"]["pairs"][0]["predictors"]["router"]["apgr"]["mean"] == pytest.approx(0.5)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_has_a_panel_for_every_scenario(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest, tmp_path: Path, ending: str
) -> None:
    bench = RouterBench.load(write_routerbench(tmp_path, SEED))
    assert bench is not None
    predictors = {"router": noisy_truth(data, 0.3), "best_per_task": noisy_truth(data, 0.2)}
    on_bench = {"router": np.full((len(bench.instruction), len(data.model_keys)), 0.5)}
    scored = score_predictions(predictors, data, split, aptitude_test, bench=bench, bench_P=on_bench, **FEW)
    result = {"bundle": {"name": "tiny", "hash": "sha256:0123456789abcdef"}, "settings": FEW, "scenarios": scored}
    path = tmp_path / f"quality.{ending}"
    draw(result, path)
    assert path.stat().st_size > 10_000
    if ending == "svg":
        drawn = path.read_text()
        for words in ("New models, new questions", "Stream of releases", "RouterBench", "tiny@0123456789ab"):
            assert words in drawn, "text stays text in an SVG"


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    empty = {"bundle": {"name": "x", "hash": "sha256:0"}, "settings": FEW, "scenarios": {}}
    with pytest.raises(DataError, match="no scenario to draw"):
        draw(empty, tmp_path / "a.png")
    with pytest.raises(DataError, match=r"use an ending out of \.png"):
        draw(empty, tmp_path / "a.txt")
