"""A teacher: what it may know, what it says, and how a router is trained with it. Seed 91."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelsat_engine.errors import DataError
from modelsat_engine.training.config import SampleConfig, TrainConfig
from modelsat_engine.training.preparation import prepare
from modelsat_engine.training.run import train
from modelsat_engine.training.samples import AptitudeAnswers, BatchSampler
from modelsat_engine.training.teacher import ensemble, run
from modelsat_engine.training.teacher.run import Teacher, teach
from modelsat_engine.training.teacher.states import MAX_TOKENS, language_model_states
from tests.e2e.test_train_export_route import RECIPE, write_base
from tests.evaluation.synthetic import synthetic_outcomes, synthetic_test, write_outcomes
from tests.training.test_trainer import ITEMS, MODELS, QUESTIONS, TASKS, make_data
from tests.training.tiny_language_model import HIDDEN, write_language_model

SEED = 91


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a teacher is made of, as arguments of `teach`."""

    folder: Path
    config_path: Path
    data_dir: Path
    base: Path
    language_model: Path
    aptitude_test: Path

    def arguments(self) -> dict[str, Path]:
        return {name: value for name, value in vars(self).items() if name != "folder"}

    def training(self) -> dict[str, Path]:
        return {name: value for name, value in self.arguments().items() if name != "language_model"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("teacher")
    data, _ = synthetic_outcomes(SEED)
    synthetic_test(data, 0).save(folder / "aptitude.json")
    recipe = RECIPE.format(network="relevance_hidden = 9").replace(
        "max_tokens = 24", "max_tokens = 24\nteacher_share = 0.5"
    )
    (folder / "tiny.toml").write_text(recipe, encoding="utf-8")
    return Ground(
        folder,
        folder / "tiny.toml",
        write_outcomes(folder / "outcomes", data),
        write_base(folder / "base", data.questions.instruction),
        write_language_model(folder / "lm.gguf", SEED),
        folder / "aptitude.json",
    )


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    """The heads' training is what takes time, and its length is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "HEAD_STEPS", 60)
        yield


@pytest.fixture(scope="module")
def taught(ground: Ground) -> dict[str, object]:
    return teach(**ground.arguments(), output=ground.folder / "teacher.npz")


def test_a_teacher_expects_what_models_are_good_at(ground: Ground, taught: dict[str, object]) -> None:
    teacher = Teacher.load(ground.folder / "teacher.npz")
    assert teacher.P.shape == (taught["questions"], taught["models"])
    assert isinstance(taught["auc"], float)
    assert taught["auc"] > 0.6
    assert "lm.gguf" in teacher.description
    assert set(taught["members"]) == set(run.WEIGHTS)  # type: ignore[call-overload]


def test_a_question_is_judged_by_who_has_not_seen_it(ground: Ground, taught: dict[str, object], tmp_path: Path) -> None:
    """Other outcomes of one part of the questions change nothing that is said of that part."""
    data, _ = synthetic_outcomes(SEED)
    prepared = prepare(TrainConfig.load(ground.config_path), ground.data_dir, ground.base, synthetic_test(data, 0))
    train_columns = prepared.split.train
    part = np.random.default_rng(prepared.sampler.seed).permutation(len(train_columns)) % run.FOLDS == 2
    rng, mixed = np.random.default_rng(SEED), data.Y.copy()
    for row in mixed:  # as strong as before, or the split would change
        row[train_columns[part]] = rng.permutation(row[train_columns[part]])
    other = write_outcomes(tmp_path / "outcomes", dataclasses.replace(data, Y=mixed))
    teach(**{**ground.arguments(), "data_dir": other}, output=tmp_path / "teacher.npz")
    one, two = (Teacher.load(folder / "teacher.npz") for folder in (ground.folder, tmp_path))
    assert [one.questions.tolist(), one.models.tolist()] == [two.questions.tolist(), two.models.tolist()]
    logit = [np.log(teacher.P) - np.log1p(-teacher.P) for teacher in (one, two)]
    # the temperature is fitted to all of them, so equal up to a line
    slope, shift = np.polyfit(logit[0][part].ravel(), logit[1][part].ravel(), 1)
    assert np.abs(logit[0][part] * slope + shift - logit[1][part]).max() < 1e-3
    assert np.abs(logit[0][~part] * slope + shift - logit[1][~part]).max() > 0.3


def test_a_router_is_trained_with_its_teacher(ground: Ground, taught: dict[str, object], tmp_path: Path) -> None:
    record = train(**ground.training(), output=tmp_path / "run", teacher=ground.folder / "teacher.npz")
    assert record["teacher"] == Teacher.load(ground.folder / "teacher.npz").description
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["samples"]["teacher_share"] == 0.5
    with pytest.raises(DataError, match="wants a teacher"):
        train(**ground.training(), output=tmp_path / "without")
    plain = tmp_path / "plain.toml"
    plain.write_text(ground.config_path.read_text().replace("teacher_share = 0.5", ""))
    with pytest.raises(DataError, match="leave --teacher out"):
        train(
            **{**ground.training(), "config_path": plain},
            output=tmp_path / "with",
            teacher=ground.folder / "teacher.npz",
        )
    teacher = Teacher.load(ground.folder / "teacher.npz")
    dataclasses.replace(teacher, P=teacher.P[1:], questions=teacher.questions[1:]).save(tmp_path / "short.npz")
    with pytest.raises(DataError, match="teach it again"):
        train(**ground.training(), output=tmp_path / "short", teacher=tmp_path / "short.npz")


def test_a_label_lies_between_outcome_and_expectation() -> None:
    data, test = make_data()
    columns = np.arange(TASKS * ITEMS, QUESTIONS)
    config = SampleConfig(synthetic_share=0.0, candidates_per_batch=MODELS, teacher_share=0.25)
    sampler = BatchSampler(
        config,
        data,
        np.arange(MODELS),
        columns,
        AptitudeAnswers(data, test),
        np.zeros(QUESTIONS, int),
        np.zeros(TASKS, int),
        np.ones(QUESTIONS),
        [""] * MODELS,
        SEED,
    )
    questions = columns[:17]
    plain = sampler.batch(0, 0, questions).labels
    sampler.expectations = np.full((QUESTIONS, MODELS), 0.8, np.float32)
    sampler.expectations[questions[0]] = np.nan
    mixed = sampler.batch(0, 0, questions).labels
    np.testing.assert_array_equal(mixed[0], plain[0])
    np.testing.assert_allclose(mixed[1:], 0.75 * plain[1:] + 0.2, atol=1e-6)


def test_states_that_are_there_are_not_computed_again(ground: Ground, tmp_path: Path) -> None:
    texts = ["one", "another question", "x" * (3 * MAX_TOKENS), "", "one"]
    shares: list[float] = []
    first = language_model_states(ground.language_model, texts, tmp_path, shares.append)
    assert first.shape == (5, 2, HIDDEN)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first[0], first[4])
    assert shares[-1] == 1
    file = next(tmp_path.glob("states-*.npy"))
    kept = np.load(file)
    kept[1], kept[2] = np.nan, 7.0
    np.save(file, kept)  # a killed run that had not come to the second text
    second = language_model_states(ground.language_model, texts, tmp_path)
    np.testing.assert_allclose(second[1].astype(float), first[1].astype(float), atol=0.05)
    assert (second[2] == 7).all()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all"])
def test_what_is_no_language_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lm.gguf").write_bytes(content)
    with pytest.raises(DataError, match="language model"):
        language_model_states(tmp_path / "lm.gguf", ["a"], tmp_path)
    with pytest.raises(DataError, match="no file"):
        language_model_states(tmp_path / "none.gguf", ["a"], tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK not a zip", b"\x93NUMPY"])
def test_what_is_no_teacher_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "teacher.npz").write_bytes(content)
    with pytest.raises(DataError, match="no teacher"):
        Teacher.load(tmp_path / "teacher.npz")
    np.savez(tmp_path / "teacher.npz", P=np.full((2, 1), np.nan), questions=["a", "b"], models=["m"], description="")
    with pytest.raises(DataError, match="no teacher"):
        Teacher.load(tmp_path / "teacher.npz")
