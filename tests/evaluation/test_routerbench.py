"""RouterBench: only models that took the aptitude test are scored, and the others are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.routerbench import FILE, SAME_MODEL, RouterBench, profile_rows, score_routerbench
from tests.evaluation.conftest import SEED
from tests.evaluation.synthetic import write_routerbench


@pytest.fixture
def bench(tmp_path: Path) -> RouterBench:
    loaded = RouterBench.load(write_routerbench(tmp_path, SEED))
    assert loaded is not None
    return loaded


def test_the_file_is_read_and_gaps_are_not_answers(bench: RouterBench) -> None:
    assert bench.models == ("maker/Scorer-3", "maker/Scorer-5-hf", "maker/stranger")
    assert bench.Y.shape == bench.usd.shape == (3, 70)
    assert (bench.Y[:, 3] == -1).all()
    assert np.isnan(bench.usd[:, 3]).all()
    few, more = bench.sample(11), bench.sample(29)
    assert len(few.instruction) == 11
    assert set(few.instruction) < set(more.instruction)
    assert few.Y.shape == (3, 11)


def test_only_models_with_a_profile_are_scored(bench: RouterBench, data: OutcomeData) -> None:
    rows = np.arange(len(data.model_keys))
    found = profile_rows(data, rows, bench.models)
    assert {model: [data.model_keys[row] for row in of] for model, of in found.items()} == {
        "maker/Scorer-3": ["olb2/maker/scorer-3"],
        "maker/Scorer-5-hf": ["olb2/maker/scorer-5"],
    }
    P = np.full((70, len(rows)), np.nan)
    strong, weak = found["maker/Scorer-5-hf"][0], found["maker/Scorer-3"][0]
    P[:, weak], P[:, strong] = bench.Y[0].clip(0), 0.9
    same = np.full_like(P, 0.5)
    result = score_routerbench(
        {"router": P, "same": same}, bench, data, rows, dict.fromkeys(("router", "same"), "P_strong - P_weak"), seeds=3
    )
    json.dumps(result, allow_nan=False)
    assert result["left_out"] == {"maker/stranger": "did not take the aptitude test"}
    (pair,) = result["pairs"]
    assert (pair["weak"], pair["strong"], pair["questions"]) == ("maker/Scorer-3", "maker/Scorer-5-hf", 69)
    assert pair["predictors"]["router"]["apgr"]["mean"] > 0.6 > 0.5
    assert pair["predictors"]["same"]["apgr"]["mean"] == pytest.approx(0.5)
    assert pair["predictors"]["oracle"]["apgr"]["mean"] >= pair["predictors"]["router"]["apgr"]["mean"]
    saved = pair["predictors"]["router"]["cost_saved"]["mean"]
    assert 0 < saved < 1 - pair["weak_usd_per_call"] / pair["strong_usd_per_call"]


def test_one_name_that_may_be_two_releases_gives_two_pairs(
    bench: RouterBench, data: OutcomeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAME_MODEL, "maker/stranger", ("scorer-1#again", "scorer-6"))
    found = profile_rows(data, np.arange(len(data.model_keys)), bench.models)
    assert [data.model_keys[row] for row in found["maker/stranger"]] == ["olb2/maker/scorer-6"]
    monkeypatch.setitem(SAME_MODEL, "maker/stranger", ("scorer-6", "scorer-7"))
    found = profile_rows(data, np.arange(len(data.model_keys)), bench.models)
    assert [data.model_keys[row] for row in found["maker/stranger"]] == ["olb2/maker/scorer-6", "olb2/maker/scorer-7"]


def test_a_missing_file_is_none_and_a_broken_one_is_told(tmp_path: Path) -> None:
    assert RouterBench.load(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=FILE.replace(".", r"\.")):
        RouterBench.load(tmp_path)
