"""Everything a run computes once before its first step: split, test, tokens, domains, keyword embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelsat_engine.aptitude.building import build_reference_test
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.evaluation.model_names import expert_notes
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.splits import Split, task_paths
from modelsat_engine.model.capability import TaskwiseEncoder, TextEncoder, mean_pool
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.inputs import NetworkInputs, pad
from modelsat_engine.training.options import with_options_shuffled, without_options
from modelsat_engine.training.samples import AptitudeAnswers, BatchSampler

DOMAINS = 10
_QUESTIONS_PER_TASK = 6
_QUESTIONS_FOR_SCALE = 512


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run's fixed surroundings."""

    data: OutcomeData
    test: AptitudeTest
    split: Split
    answers: AptitudeAnswers
    inputs: NetworkInputs
    sampler: BatchSampler
    network: ModelSatNetwork
    notes: list[str]


def prepare(
    config: TrainConfig, data_directory: Path, base_directory: Path, test: AptitudeTest | None = None
) -> Prepared:
    """Reads the data and sets up the network with its base weights.

    Args:
        base_directory: a sentence encoder of the trunk's shape: ``model.safetensors`` and ``tokenizer.json``.
        test: the aptitude test; None builds the reference test from the outcomes of the seen models.

    Raises:
        DataError, BundleError: data or base weights are not what they should be.
    """
    data = OutcomeData.load(data_directory)
    test = test or build_reference_test(data, config.split_seed)
    split = Split.make(data, test, config.split_seed)
    if len(test.tasks) != config.network.capability_encoder.tasks:
        raise DataError(
            f"the aptitude test has {len(test.tasks)} tasks: set that number in [network.capability_encoder]"
        )
    torch.manual_seed(config.seed)
    network = ModelSatNetwork(config.network)
    network.trunk.load_pretrained(base_directory)
    if isinstance(network.capability, TextEncoder):
        network.capability.encoder.load_pretrained(base_directory)
    network.eval()

    tokenizer = InstructionTokenizer.from_file(base_directory / "tokenizer.json", config.samples.max_tokens)
    tokens = [tokenizer.tokenise(text).token_ids for text in data.questions.instruction]
    texts = InstructionTokenizer.from_file(base_directory / "tokenizer.json", config.network.trunk.max_positions)
    frozen = min(config.schedule.trunk_from, config.network.inject_at)
    bare: dict[int, np.ndarray] = {}
    if config.samples.bare_share:
        stems = {int(column): without_options(data.questions.instruction[column]) for column in split.train}
        bare = {column: tokenizer.tokenise(stem).token_ids for column, stem in stems.items() if stem is not None}

    def shuffled(column: int, order: int) -> np.ndarray:
        text = with_options_shuffled(data.questions.instruction[column], order)
        return tokens[column] if text is None else tokenizer.tokenise(text).token_ids

    inputs = NetworkInputs(tokens, texts, test, frozen, bare, shuffled)
    answers = AptitudeAnswers(data, test)

    paths = task_paths(data)
    task_of_item = {task.name: paths[int(data.columns(task.item_ids[:1])[0])] for task in test.tasks}
    domain_of = _domains(network, paths, tokens, config.seed)
    if isinstance(network.capability, TaskwiseEncoder):
        keywords = _embed(network, [texts.tokenise(", ".join(t.keywords)).token_ids for t in test.tasks])
        offsets, center = task_difficulty(*_counts(answers, split.seen_rows))
        network.capability.describe_test(keywords, offsets, center)
    if network.relevance is not None:
        some = np.random.default_rng(config.seed).permutation(split.train)[:_QUESTIONS_FOR_SCALE]
        depth = config.network.trunk.layers - 1
        pooled = [_embed(network, [tokens[column] for column in part], depth) for part in np.array_split(some, 32)]
        network.relevance.describe(torch.cat(pooled))
    notes = [expert_notes(key) for key in data.model_keys]
    sampler = BatchSampler(
        config.samples,
        data,
        split.seen_rows,
        split.train,
        answers,
        domains=np.array([domain_of[path] for path in paths]),
        task_domains=np.array([domain_of[task_of_item[task.name]] for task in test.tasks]),
        lengths=np.array([len(row) for row in tokens]),
        notes=notes,
        seed=config.seed,
    )
    return Prepared(data, test, split, answers, inputs, sampler, network, notes)


def task_difficulty(correct: Tensor, total: Tensor) -> tuple[Tensor, float]:
    """How much harder each task is than the test: counts ``[M, T]`` -> logit offsets ``[T]`` and the mean logit.

    The offset of a task is the mean over the models of (logit on the task - logit overall), half a pseudo-answer
    on each side.
    """
    overall = torch.logit((correct.sum(1) + 0.5) / (total.sum(1) + 1))
    by_task = torch.logit((correct + 0.5) / (total + 1))
    return (by_task - overall[:, None]).mean(0), float(overall.mean())


def _counts(answers: AptitudeAnswers, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    profiles = answers.profiles(rows, [""] * len(rows))
    return torch.from_numpy(profiles.correct), torch.from_numpy(profiles.total)


def _domains(network: ModelSatNetwork, paths: list[str], tokens: list[np.ndarray], seed: int) -> dict[str, int]:
    """Groups the tasks into domains by the mean embedding of a few of their questions."""
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise MissingExtraError("training", "train") from None
    names = sorted(set(paths))
    columns: dict[str, list[int]] = {name: [] for name in names}
    for column, path in enumerate(paths):
        if len(columns[path]) < _QUESTIONS_PER_TASK:
            columns[path].append(column)
    means = torch.stack([_embed(network, [tokens[c] for c in columns[name]]).mean(0) for name in names])
    means = torch.nn.functional.normalize(means, dim=-1)
    labels = KMeans(min(DOMAINS, len(names)), n_init=4, random_state=seed).fit_predict(means.numpy())
    return dict(zip(names, labels.tolist(), strict=True))


def _embed(network: ModelSatNetwork, rows: list[np.ndarray], layers: int | None = None) -> Tensor:
    """Mean-pooled trunk states of a few texts after that many layers, default all: ``[N, D]``."""
    if not rows:
        return torch.empty(0, network.config.trunk.hidden)
    ids, mask = pad(rows)
    with torch.inference_mode():
        return mean_pool(network.trunk(ids, mask > 0, layers=layers), mask > 0).clone()
