"""Zoos by size class and by density, the stream of releases, and the facts that order them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation import releases
from modelsat_engine.evaluation.model_facts import billions_of_parameters, released
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.releases import BY_MONTH, BY_STRENGTH, release_zoos
from modelsat_engine.evaluation.scenarios import aptitude_accuracy, make_scenarios, score_scenarios
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.evaluation.zoos import SIZE_CLASSES, SPARSE, draw_zoos
from tests.evaluation.test_scenarios import noisy_truth


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", 13),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 56),
        ("jaredjoss/pythia-410m-roberta-lr_8e7-kl_01-steps_12000-rlhf-model", 0.41),
        ("NousResearch/Yarn-Llama-2-13b-128k", 13),
        ("LenguajeNaturalAI/leniachat-qwen2-1.5B-v0", 1.5),
        ("awnr/Mistral-7B-v0.1-signtensors-7-over-16", 7),
        ("migtissera/Tess-v2.5.2-Qwen2-72B", 72),
        ("xxx777xxxASD/L3.1-ClaudeMaid-4x8B", 32),
        ("Phi-3-mini-4k-instruct", 3.8),
        ("gemini-1.5-pro-002", None),
        ("OpenAI/GPT-4o-2024-08-06", None),
    ],
)
def test_sizes_are_read_from_names_or_from_the_table(name: str, billions: float | None) -> None:
    assert billions_of_parameters(name) == (None if billions is None else pytest.approx(billions))


def test_months_of_release_are_known_or_not() -> None:
    assert released("meta-llama/Meta-Llama-3.1-70B-Instruct") == "2024-07"
    assert released("nobody/some-merge-7b") is None
    months = [released(name) for name in ("Qwen/Qwen2.5-7B-Instruct", "Yi-34B")]
    assert months == ["2024-09", "2023-11"]


@pytest.fixture
def sized(data: OutcomeData) -> OutcomeData:
    """The same outcomes, with a size in every name but every fifth."""
    sizes = (3, 7, 13, 34, 70, None)
    names = [
        f"maker/model-{row}" + (f"-{sizes[row % 6]}b" if sizes[row % 6] else "") for row in range(len(data.model_keys))
    ]
    return dataclasses.replace(data, model_names=tuple(names))


@pytest.mark.parametrize("kind", SIZE_CLASSES)
def test_size_classes_hold_what_their_name_says(sized: OutcomeData, split: Split, kind: str) -> None:
    scenario = make_scenarios(sized, split, ["size_classes"])[0]
    found = draw_zoos(sized, scenario, kind, seed=1, zoo_size=4, count=11)
    assert found
    for zoo in found:
        assert len({sized.families[row] for row in zoo}) == 4
        size = np.array([billions_of_parameters(sized.model_names[row]) or np.nan for row in zoo])
        if kind == "small":
            assert (size < 10).all()
        elif kind == "middle_mixed":
            assert (size < 40).all()
            assert (size < 10).any()
            assert (size >= 10).any()
        elif kind == "large_mixed":
            assert not np.isnan(size).any()
            assert (size < 40).any()
            assert (size >= 40).any()
    if kind == "high_performance":
        members = sized.strength[np.unique(np.concatenate(found))]
        assert members.mean() > sized.strength[scenario.rows].mean()
        assert members.min() > np.median(sized.strength[scenario.rows])


def test_sparse_zoos_are_as_wide_as_those_of_few_families(data: OutcomeData, split: Split) -> None:
    scenario = make_scenarios(data, split, ["seen_models"])[0]

    def span(kind: str, families: int | None = None) -> float:
        drawn = [draw_zoos(data, scenario, kind, seed=s, zoo_size=3, families=families) for s in range(4)]
        return float(np.mean([np.ptp(data.strength[zoo]) for of_seed in drawn for zoo in of_seed]))

    assert span(SPARSE, families=5) > 1.3 * span("similar")
    assert span(SPARSE) == pytest.approx(span("similar"), rel=0.25), "without a limit it is the same rule"
    with pytest.raises(DataError, match="no kind of zoo"):
        draw_zoos(data, scenario, "tiny", seed=0)


def test_every_arrival_joins_the_best_so_far_by_aptitude(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest
) -> None:
    aptitude = aptitude_accuracy(data, aptitude_test)
    rows = np.concatenate([split.seen_rows, split.new_rows])
    rule, arrivals = release_zoos(data, rows, split.test, aptitude, min_questions=10, best=4)
    assert rule == BY_STRENGTH, "invented models have no month of release"
    families = len({data.families[row] for row in rows})
    assert len(arrivals) == families - 4
    came = [arrival.row for arrival in arrivals]
    assert data.strength[came].tolist() == sorted(data.strength[came])
    first = set(arrivals[0].zoo[:-1].tolist())
    for place, arrival in enumerate(arrivals):
        assert arrival.zoo[-1] == arrival.row
        assert arrival.month is None
        before = first | set(came[:place])
        best = sorted((float(aptitude[row]) for row in before), reverse=True)[:4]
        assert [float(aptitude[row]) for row in arrival.zoo[:-1]] == best


def test_known_months_order_the_stream_and_leave_the_others_out(
    data: OutcomeData, split: Split, aptitude_test: AptitudeTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.concatenate([split.seen_rows, split.new_rows])
    month = {name: f"2024-{1 + place % 9:02d}" for place, name in enumerate(sorted(set(data.model_names))) if place % 2}
    monkeypatch.setattr(releases, "released", month.get)
    rule, arrivals = release_zoos(data, rows, split.test, aptitude_accuracy(data, aptitude_test), 10, best=3)
    assert rule == BY_MONTH
    assert arrivals
    months = [arrival.month for arrival in arrivals]
    assert months == sorted(month[data.model_names[arrival.row]] for arrival in arrivals)
    assert all(data.model_names[row] in month for arrival in arrivals for row in arrival.zoo)


def test_the_stream_is_scored_step_by_step(data: OutcomeData, split: Split, aptitude_test: AptitudeTest) -> None:
    predictors = {"truth": (data.Y.T == 1).astype(float), "poor": noisy_truth(data, 0.1)}
    result = score_scenarios(predictors, data, split, aptitude_test, scenarios=["release_stream"], seeds=2)
    stream = result["release_stream"]
    counts = {kind: zoo["count"] for kind, zoo in stream["zoos"].items()}
    assert counts["all_arrivals"] == counts["seen_arrivals"] + counts["new_arrivals"] == len(stream["steps"])
    for step in stream["steps"]:
        assert step["accuracy"]["truth"] == pytest.approx(step["accuracy"]["oracle"])
        assert step["accuracy"]["oracle"] >= step["accuracy_before"]["oracle"], "one more candidate cannot hurt it"
        assert step["accuracy"]["oracle"] > step["accuracy"]["poor"]
        assert step["seen"] is (data.model_keys.index(step["model"]) in split.seen_rows)
    gain = stream["zoos"]["all_arrivals"]["choices"]["poor"]["gain_over_best_single"]["mean"]
    steps = [step["accuracy"]["poor"] - step["accuracy"]["best_single"] for step in stream["steps"]]
    assert gain == pytest.approx(np.mean(steps))
