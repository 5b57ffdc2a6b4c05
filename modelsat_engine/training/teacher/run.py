"""`modelsat teach`: expectations of every training pair by an ensemble that has not seen its question."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.commands.files.atomic import atomic_file
from modelsat_engine.errors import DataError
from modelsat_engine.evaluation.metrics import pooled_auc
from modelsat_engine.model.capability import mean_pool
from modelsat_engine.training.calibration import fit_temperature
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.inputs import pad
from modelsat_engine.training.preparation import Prepared, prepare
from modelsat_engine.training.teacher.ensemble import head_logits, neighbour_logits, standardised
from modelsat_engine.training.teacher.states import language_model_states

FOLDS = 5
#: Member of the ensemble -> its weight in the mean of logits; the heads' members are several heads themselves.
WEIGHTS = {"middle": 1.0, "middle and late": 2.0, "base": 1.0, "neighbours, base": 1.0, "neighbours, middle": 1.0}
HEADS = {"middle": 4, "middle and late": 4, "base": 3}
_STATES, _TEXTS_AT_ONCE = 0.7, 32  # share of the work that the language model takes

Progress = Callable[[float, str], object]


@dataclass(frozen=True, eq=False)
class Teacher:
    """Expectations of the training pairs.

    Attributes:
        P: float32 ``[N, M]``, probability that the model answers the question right.
        questions: N ids. models: M keys.
        description: where they come from.
    """

    P: np.ndarray
    questions: np.ndarray
    models: np.ndarray
    description: str

    @classmethod
    def load(cls, path: str | Path) -> Teacher:
        """What `teach` wrote.

        Raises:
            DataError: the file is missing, or is no teacher.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                P, questions, models = (archive[name] for name in ("P", "questions", "models"))
                description = str(archive["description"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{path} is no teacher: {error}; make one with 'modelsat teach'") from error
        if P.shape != (len(questions), len(models)) or not ((P >= 0) & (P <= 1)).all():
            raise DataError(f"{path} is no teacher: it needs a probability for each of its questions and models")
        return cls(P, questions, models, description)

    def save(self, path: str | Path) -> None:
        """Write it whole or not at all."""
        content = io.BytesIO()
        np.savez_compressed(
            content, P=self.P, questions=self.questions, models=self.models, description=np.array(self.description)
        )
        with atomic_file(Path(path)) as file:
            file.write(content.getvalue())

    def expectations(self, prepared: Prepared) -> np.ndarray:
        """Float32 ``[Q, models]`` over all questions and models of the data, NaN where the teacher says nothing.

        Raises:
            DataError: it lacks a training question or a seen model of this split, or knows one that is neither.
        """
        data, split = prepared.data, prepared.split
        column_of = {str(data.questions.id[column]): column for column in split.train.tolist()}
        row_of = {data.model_keys[row]: row for row in split.seen_rows.tolist()}
        if set(self.questions.tolist()) != set(column_of) or set(self.models.tolist()) != set(row_of):
            raise DataError("the teacher knows other questions or models than this recipe trains on; teach it again")
        soft = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)
        columns = [column_of[question] for question in self.questions.tolist()]
        soft[np.ix_(columns, [row_of[model] for model in self.models.tolist()])] = self.P
        return soft


def teach(
    config_path: str | Path,
    data_dir: str | Path,
    base: str | Path,
    language_model: str | Path,
    output: str | Path,
    progress: Progress = lambda share, note: None,
    aptitude_test: str | Path | None = None,
) -> dict[str, Any]:
    """Makes the teacher of a recipe.

    The training questions are dealt into FOLDS parts; each part is judged by an ensemble that learned from the others
    alone. Of a question's own outcomes the teacher therefore knows nothing, and neither of any test question.

    Args:
        config_path, data_dir, base, aptitude_test: as for `training.run.train`.
        language_model: a .gguf file; see `states.language_model_states`.
        output: the .npz file to write. States of the language model are kept beside it.
        progress: called with the share done and a note.

    Returns:
        ``{"output", "questions", "models", "auc", "members": {name: auc}}`` over the training pairs.

    Raises:
        DataError, MissingExtraError: as `prepare` and `language_model_states`.
    """
    config, target = TrainConfig.load(config_path), Path(output)
    torch.set_num_threads(config.threads)
    test = None if aptitude_test is None else AptitudeTest.load(aptitude_test)
    prepared = prepare(config, Path(data_dir), Path(base), test)
    train, rows = prepared.split.train, prepared.split.seen_rows
    texts = [prepared.data.questions.instruction[column] for column in train]
    model_file = Path(language_model)
    states = language_model_states(model_file, texts, target.parent, lambda share: progress(_STATES * share, "reading"))
    middle, late, own = (
        _everywhere(part, train, len(prepared.data.questions))
        for part in (states[:, 0], states[:, 1], _base_states(prepared, train))
    )

    fold = np.random.default_rng(config.seed).permutation(len(train)) % FOLDS
    members = {name: np.empty((len(train), len(rows))) for name in WEIGHTS}
    for number in range(FOLDS):
        reference, held = train[fold != number], fold == number
        read = {
            "middle": standardised(middle, reference),
            "middle and late": torch.cat([standardised(middle, reference), standardised(late, reference)], 1),
            "base": standardised(own, reference),
        }
        for name, count in HEADS.items():
            seeds = [1000 * (config.seed + 1) + 100 * number + head for head in range(count)]
            members[name][held] = head_logits(prepared, read[name], reference, train[held], seeds)
        for name, raw in (("neighbours, base", own), ("neighbours, middle", middle)):
            members[name][held] = neighbour_logits(prepared, raw, reference, train[held])
        progress(_STATES + (1 - _STATES) * (number + 1) / FOLDS, f"part {number + 1} of {FOLDS}")

    outcomes = prepared.data.Y[np.ix_(rows, train)].T
    logits = np.average([members[name] for name in WEIGHTS], axis=0, weights=list(WEIGHTS.values()))
    temperature, bias = fit_temperature(logits[outcomes >= 0], outcomes[outcomes >= 0].astype(np.float64))
    P = (1 / (1 + np.exp(-(logits / temperature + bias)))).astype(np.float32)
    ids, keys = prepared.data.questions.id, prepared.data.model_keys
    with open(model_file, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    Teacher(
        P,
        np.array([str(ids[column]) for column in train]),
        np.array([keys[row] for row in rows]),
        f"{FOLDS}-fold ensemble on {model_file.name} (sha256 {digest[:16]}) and the base encoder",
    ).save(target)
    return {
        "output": str(target),
        "questions": len(train),
        "models": len(rows),
        "auc": pooled_auc(P, outcomes),
        "members": {name: pooled_auc(values.astype(np.float32), outcomes) for name, values in members.items()},
    }


def _everywhere(states: np.ndarray, columns: np.ndarray, questions: int) -> np.ndarray:
    """States ``[N, H]`` of some columns as float32 ``[questions, H]``, zero elsewhere."""
    spread = np.zeros((questions, states.shape[1]), np.float32)
    spread[columns] = states
    return spread


def _base_states(prepared: Prepared, columns: np.ndarray) -> np.ndarray:
    """Mean-pooled states of the base encoder before its last layer, ``[N, D]``."""
    tokens, trunk = prepared.inputs.tokens, prepared.network.trunk
    order = np.argsort([len(tokens[column]) for column in columns], kind="stable")
    states = np.empty((len(columns), prepared.network.config.trunk.hidden), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            chosen = order[start : start + _TEXTS_AT_ONCE]
            ids, mask = pad([tokens[columns[index]] for index in chosen])
            rows = trunk(ids, mask > 0, layers=prepared.network.config.trunk.layers - 1)
            states[chosen] = mean_pool(rows, mask > 0).numpy()
    return states
