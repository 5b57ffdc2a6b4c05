"""The trainer learns, stops early, and after a kill goes on to exactly the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modelsat_engine.aptitude.test import AptitudeTask, AptitudeTest
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.outcomes import OutcomeData, Questions
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.inputs import NetworkInputs
from modelsat_engine.training.samples import AptitudeAnswers, BatchSampler
from modelsat_engine.training.trainer import Trainer
from tests.model.random_networks import TRUNK, make_network

MODELS, QUESTIONS, TASKS, ITEMS = 13, 211, 7, 3


def make_data() -> tuple[OutcomeData, AptitudeTest]:
    """Outcomes with a rule to learn: a question is hard or easy by its parity, a model strong by its row."""
    rng = np.random.default_rng(41)
    ease = np.where(np.arange(QUESTIONS) % 2, 1.5, -1.5) + np.linspace(-1.5, 1.5, MODELS)[:, None]
    outcomes = (rng.random((MODELS, QUESTIONS)) < 1 / (1 + np.exp(-ease))).astype(np.int8)
    outcomes[rng.random(outcomes.shape) < 0.05] = -1
    ids = [f"mmlu_pro/{number}" for number in range(QUESTIONS)]
    questions = Questions(
        np.array(ids), np.array(["mmlu_pro"] * QUESTIONS), np.array(["task"] * QUESTIONS), ("text",) * QUESTIONS
    )
    names = tuple(f"model-{row}" for row in range(MODELS))
    prices = np.full(MODELS, np.nan, np.float32)
    data = OutcomeData(questions, outcomes, names, names, names, ("greedy",) * MODELS, prices)
    tasks = [
        AptitudeTask(f"task {t}", tuple(f"word{t}{k}" for k in range(5)), tuple(ids[t * ITEMS : (t + 1) * ITEMS]))
        for t in range(TASKS)
    ]
    return data, AptitudeTest(tuple(tasks))


def make_tokenizer() -> InstructionTokenizer:
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "text": 4}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return InstructionTokenizer(tokenizer, 32)


def make_trainer(
    directory: Path,
    progress: Callable[[dict[str, Any]], None] | None = None,
    validate: Callable[[ModelSatNetwork], float] = lambda _network: 0.5,
    **schedule: Any,
) -> Trainer:
    data, test = make_data()
    network = make_network()
    recipe = {
        "seed": 5,
        "network": network.config.to_json(),
        "samples": {"questions_per_batch": 9, "candidates_per_batch": 6},
        "objective": {"binary_cross_entropy": 1.0, "in_batch_cross_entropy": 0.2, "choice": 0.2},
        "schedule": {"connector_steps": 12, "epochs": 2, "trunk_from": 1, "trunk_learning_rate": 1e-3, **schedule},
    }
    config = TrainConfig.from_json(recipe)
    # the first token tells the parity of the question
    rng = np.random.default_rng(42)
    tokens = [np.array([2, 10 + q % 2, *rng.integers(20, TRUNK.vocab, q % 11)], np.int32) for q in range(QUESTIONS)]
    inputs = NetworkInputs(tokens, make_tokenizer(), test, config.schedule.trunk_from)
    columns = np.arange(TASKS * ITEMS, QUESTIONS)
    sampler = BatchSampler(
        config.samples,
        data,
        np.arange(MODELS),
        columns,
        AptitudeAnswers(data, test),
        domains=np.arange(QUESTIONS) % 3,
        task_domains=np.arange(TASKS) % 3,
        lengths=np.array([len(row) for row in tokens]),
        notes=["text text"] * MODELS,
        seed=config.seed,
    )
    return Trainer(config, network, sampler, inputs, validate, directory, progress)


class KilledError(Exception):
    """Stands for the process dying between two steps."""


@pytest.mark.parametrize(("after", "soup"), [(5, False), (12, False), (17, False), (40, False), (40, True)])
def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, after: int, soup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelsat_engine.training.trainer.CHECKPOINT_STEPS", 4)
    whole = make_trainer(tmp_path / "whole", soup=soup)
    whole.run()
    seen = 0

    def kill(_event: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen > after:
            raise KilledError

    with pytest.raises(KilledError):
        make_trainer(tmp_path / "killed", kill, soup=soup).run()
    resumed = make_trainer(tmp_path / "killed", soup=soup)
    resumed.run(resume=True)
    assert resumed.state.history == whole.state.history
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_resume_refuses_nothing_and_another_recipe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to resume"):
        make_trainer(tmp_path).run(resume=True)
    make_trainer(tmp_path, epochs=1).run()
    with pytest.raises(DataError, match="another training config"):
        make_trainer(tmp_path, epochs=3).run(resume=True)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    make_trainer(tmp_path, lambda event: losses.append(event["loss"]), epochs=6, patience=99).run()
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])


def test_frozen_layers_stay_and_trained_ones_move(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in make_network().state_dict().items()}
    trainer = make_trainer(tmp_path)
    trainer.run()
    moved = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("trunk.embeddings.", "trunk.layers.0.")) for name in moved)
    assert any(name.startswith("trunk.layers.1.") for name in moved)
    assert any(name.startswith("connector.") for name in moved)


def test_validation_decides_which_weights_stay_and_when_to_stop(tmp_path: Path) -> None:
    scores = iter([0.6, 0.7, 0.65, 0.66, 0.9, 0.9, 0.9, 0.9])
    trainer = make_trainer(tmp_path, validate=lambda _network: next(scores), epochs=4, patience=2)
    state = trainer.run()
    assert [entry["validation_auc"] for entry in state.history] == [0.6, 0.7, 0.65, 0.66]
    assert state.best == 0.7
    assert state.best_step == state.history[1]["step"]


def test_a_soup_is_the_mean_of_the_best_and_the_last_weights(tmp_path: Path) -> None:
    evaluated: list[dict[str, torch.Tensor]] = []

    def validate(network: ModelSatNetwork) -> float:
        evaluated.append({name: value.clone() for name, value in network.state_dict().items()})
        return 0.9 - 0.1 * abs(len(evaluated) - 2)  # the second is the best

    trainer = make_trainer(tmp_path, validate=validate, soup=True, patience=99)
    state = trainer.run()
    assert state.best_step == state.history[1]["step"] < state.history[-1]["step"]
    for name, value in trainer.network.state_dict().items():
        assert torch.allclose(value, (evaluated[1][name] + evaluated[-1][name]) / 2, atol=1e-6), name


def test_products_in_half_precision_train_the_same_network_nearly(tmp_path: Path) -> None:
    networks = [make_trainer(tmp_path / p, epochs=1, precision=p) for p in ("float32", "bfloat16")]
    losses = [[entry["loss"] for entry in trainer.run().history] for trainer in networks]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)
    assert all(value.dtype == torch.float32 for value in networks[1].network.parameters())


def test_a_recipe_says_which_precisions_there_are() -> None:
    with pytest.raises(DataError, match="precision 'float16' is not known"):
        TrainConfig.from_json({"schedule": {"precision": "float16"}})


def test_batches_depend_on_seed_epoch_and_number_alone(tmp_path: Path) -> None:
    sampler = make_trainer(tmp_path).sampler
    questions = sampler.epoch(1)
    again = make_trainer(tmp_path).sampler.batch(1, 3, questions[3])
    sampler.batch(0, 0, questions[0])
    batch = sampler.batch(1, 3, questions[3])
    assert np.array_equal(batch.labels, again.labels)
    assert np.array_equal(batch.candidates.correct, again.candidates.correct)
    assert sorted(np.concatenate(questions).tolist()) == list(range(TASKS * ITEMS, QUESTIONS))


def test_profiles_are_noisy_but_never_impossible(tmp_path: Path) -> None:
    sampler = make_trainer(tmp_path).sampler
    for number, questions in enumerate(sampler.epoch(2)):
        batch = sampler.batch(2, number, questions)
        correct, total = batch.candidates.correct, batch.candidates.total
        assert (correct <= total).all()
        assert (total <= ITEMS).all()
        assert batch.labels.shape == (len(questions), 6) == batch.known.shape
        assert not (batch.labels.astype(bool) & ~batch.known).any()
