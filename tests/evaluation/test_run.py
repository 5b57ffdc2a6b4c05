"""A whole evaluation, from a bundle and a directory of outcomes to the tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from modelsat_engine.aptitude import AptitudeTest, save_zoo
from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.errors import BundleError, DataError
from modelsat_engine.evaluation import run
from modelsat_engine.evaluation.baselines import BASELINES
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.report import render
from modelsat_engine.evaluation.router import instruction_embeddings, router_probabilities
from modelsat_engine.evaluation.run import evaluate
from modelsat_engine.evaluation.scenarios import SCENARIO_NAMES, ZOO_KINDS
from modelsat_engine.evaluation.scoring import ALL_SCENARIOS
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle, write_manifest
from tests.evaluation.conftest import SEED
from tests.evaluation.synthetic import synthetic_test, write_outcomes, write_routerbench
from tests.runtime.tiny_bundle import HIDDEN, SUBJECTS, write_tiny_bundle


@pytest.fixture(scope="module")
def five_tasks(data: OutcomeData) -> AptitudeTest:
    """As many tasks as the tiny bundle's encoder reads."""
    return synthetic_test(data, SEED, num_tasks=len(SUBJECTS))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, data: OutcomeData, five_tasks: AptitudeTest) -> Path:
    """A tiny router that records the synthetic split."""
    path = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", memory_rows=2)
    five_tasks.save(path / "aptitude.json")
    save_zoo(path / "zoo.json", [])
    config = json.loads((path / "router.json").read_text())
    config["aptitude_test_id"] = five_tasks.id
    config["training"] = {"split": Split.make(data, five_tasks, SEED).to_json()}
    (path / "router.json").write_text(json.dumps(config))
    write_manifest(path)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, data: OutcomeData) -> Path:
    return write_routerbench(write_outcomes(tmp_path_factory.mktemp("data") / "outcomes", data), SEED)


def test_an_evaluation_has_every_scenario_and_predictor(bundle: Path, directory: Path) -> None:
    seen: list[tuple[float, str]] = []
    result = evaluate(bundle, directory, seeds=2, zoo_size=3, progress=lambda share, note: seen.append((share, note)))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["bundle"]["name"] == "tiny"
    assert result["bundle"]["hash"] == Bundle.load(bundle).hash
    assert result["settings"]["seeds"] == 2
    assert result["settings"]["executor"] in ("native", "onnxruntime")
    assert result["split"]["seed"] == SEED
    assert tuple(result["scenarios"]) == ALL_SCENARIOS
    for scenario in [result["scenarios"][name] for name in SCENARIO_NAMES]:
        assert tuple(scenario["predictions"]) == ("router", *BASELINES)
        for kind in ZOO_KINDS:
            choices = scenario["zoos"][kind]["choices"]
            assert tuple(choices) == ("random", "best_single", "oracle", "router", *BASELINES)
            best = max(choice["routed_accuracy"]["mean"] for choice in choices.values())
            assert choices["oracle"]["routed_accuracy"]["mean"] == best
    for scenario in [result["scenarios"][name] for name in ("size_classes", "release_stream")]:
        assert any(zoo["count"] for zoo in scenario["zoos"].values())
    priced = result["scenarios"]["cost_pairs"]["groups"]["priced"]["wide"]
    assert set(priced["predictors"]) == {"random", "router", *BASELINES, "oracle"}
    assert priced["predictors"]["aptitude_accuracy"]["apgr"]["mean"] == pytest.approx(0.5)
    bench = result["scenarios"]["routerbench"]
    assert set(bench["pairs"][0]["predictors"]) == {"random", "router", *BASELINES, "oracle"} - {"best_per_task"}
    assert set(result["seconds"]) == {"embedding", "refining", "routing", "baselines", "scoring"}
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert {note for _, note in seen} >= {"embedding", "routing", "baselines", "scoring"}


def test_an_evaluation_repeats_itself_and_can_be_smaller(bundle: Path, directory: Path, embedding: np.ndarray) -> None:
    settings = {"seeds": 1, "scenarios": ["new-models"], "max_questions": 60, "zoo_size": 3, "embedding": embedding}
    result = evaluate(bundle, directory, **settings)
    assert list(result["scenarios"]) == ["new_models"]
    assert result["scenarios"]["new_models"]["questions"] == 60
    again = evaluate(bundle, directory, **settings)
    assert {**again, "seconds": None} == {**result, "seconds": None}


def test_the_table_shows_router_and_baselines(bundle: Path, directory: Path) -> None:
    result = evaluate(bundle, directory, seeds=2, scenarios=["new_models"])
    text = io.StringIO()
    Console(file=text, width=100).print(render(result))
    shown = text.getvalue()
    for words in (
        "Strongest minus weakest",
        "New models, new questions",
        "router",
        "oracle",
        "best single in hindsight",
        "kNN (64)",
        "±",
    ):
        assert words in shown
    auc = result["scenarios"]["new_models"]["predictions"]["router"]["auc"]["mean"]
    assert f"{auc:.3f}".removeprefix("0") in shown


def test_the_tables_of_all_scenarios_fit_a_terminal(bundle: Path, directory: Path) -> None:
    result = evaluate(bundle, directory, seeds=2, zoo_size=3, max_questions=80)
    text = io.StringIO()
    Console(file=text, width=100).print(render(result))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    shown = " ".join(text.getvalue().split())
    for words in ("Zoos by size class", "Stream of releases", "random mix", "strength, weakest first", "RouterBench"):
        assert words in shown
    assert "P_strong - P_weak" in shown or "1 - P_weak" in shown
    assert "did not take the aptitude test" in shown, "models that are left out are named with the reason"


def test_a_cache_saves_the_embedding_and_changes_nothing(
    bundle: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"seeds": 1, "scenarios": ["new-models", "cost-pairs"], "max_questions": 60, "zoo_size": 3}
    plain = evaluate(bundle, directory, **settings)
    first = evaluate(bundle, directory, **settings, cache=tmp_path)
    monkeypatch.setattr(
        "modelsat_engine.evaluation.embedding_cache.instruction_embeddings", lambda *_, **__: pytest.fail("embedded")
    )
    second = evaluate(bundle, directory, **settings, cache=tmp_path)
    assert first["scenarios"] == second["scenarios"]
    for name, predicted in plain["scenarios"]["new_models"]["predictions"].items():
        assert predicted["auc"]["mean"] == pytest.approx(
            first["scenarios"]["new_models"]["predictions"][name]["auc"]["mean"], abs=2e-3
        )


def test_routerbench_is_asked_for_only_where_it_is(bundle: Path, data: OutcomeData, tmp_path: Path) -> None:
    bare = write_outcomes(tmp_path / "bare", data)
    settings = {"seeds": 1, "max_questions": 60, "zoo_size": 3}
    assert "routerbench" not in evaluate(bundle, bare, **settings)["scenarios"]
    with pytest.raises(DataError, match=r"routerbench needs routerbench_0shot_subset\.parquet"):
        evaluate(bundle, bare, scenarios=["routerbench"], **settings)


def test_probabilities_keep_the_order_of_texts_and_profiles(
    bundle: Path, data: OutcomeData, five_tasks: AptitudeTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = profiles_from_outcomes(data, five_tasks, [4, 9, 30])
    texts = [f"what is {'the square root of ' * (number % 5)}{number}" for number in range(23)]
    whole = router_probabilities(bundle, profiles, texts)
    assert whole.shape == (23, 3)
    monkeypatch.setattr("modelsat_engine.evaluation.router.TEXTS_PER_CALL", 4)
    np.testing.assert_allclose(router_probabilities(bundle, profiles, texts), whole, atol=1e-5)
    for text in (0, 7, 22):
        for one in range(3):
            alone = router_probabilities(bundle, [profiles[one]], [texts[text]])
            assert alone[0, 0] == pytest.approx(whole[text, one], abs=1e-5)


def test_embeddings_do_not_depend_on_the_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"what is {'the square root of ' * (number % 5)}{number}" for number in range(23)]
    whole = instruction_embeddings(bundle, texts)
    assert whole.shape == (23, HIDDEN)
    monkeypatch.setattr("modelsat_engine.evaluation.router.TOKENS_PER_CALL", 64)
    np.testing.assert_allclose(instruction_embeddings(bundle, texts), whole, atol=1e-5)
    np.testing.assert_allclose(instruction_embeddings(bundle, texts[5:6])[0], whole[5], atol=1e-5)


def test_a_bundle_without_a_recorded_split_is_refused(tmp_path: Path, directory: Path) -> None:
    with pytest.raises(BundleError, match=r"records no training\.split"):
        evaluate(write_tiny_bundle(tmp_path / "bare"), directory)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 10**6}, "seeds is"),
        ({"zoo_size": 1}, "zoo_size is 1"),
        ({"max_questions": 0}, "max_questions is 0"),
        ({"scenarios": ["old_models"]}, "'old_models'"),
        ({"scenarios": []}, "no scenario"),
        ({"scenarios": "new_models"}, "list of names"),
    ],
)
def test_bad_settings_are_told_before_any_work(
    settings: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Bundle, "load", lambda path: pytest.fail("the bundle was opened"))
    with pytest.raises(DataError, match=words):
        evaluate(None, "nowhere", **settings)  # type: ignore[arg-type]


def test_a_missing_data_directory_is_told(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a directory"):
        evaluate(bundle, tmp_path / "nowhere")
