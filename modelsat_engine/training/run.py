"""`modelsat train`: from a recipe, outcome data and base weights to a checkpoint that export turns into a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.errors import DataError, MissingExtraError

try:
    import torch
except ImportError:
    raise MissingExtraError("training", "train") from None

from safetensors.torch import save_file

from modelsat_engine.aptitude.building import DEFAULT_ZOO, default_zoo, profiles_from_outcomes
from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.aptitude.zoo import save_zoo
from modelsat_engine.evaluation.metrics import expected_calibration_error, mean_auc_per_model
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.training.calibration import fit_temperature
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.preparation import Prepared, prepare
from modelsat_engine.training.refinement import describe_axes
from modelsat_engine.training.teacher.run import Teacher
from modelsat_engine.training.trainer import Progress, Trainer, TrainState

#: Files of a finished run, which `modelsat export` reads.
NETWORK_FILE, RUN_FILE = "network.safetensors", "run.json"
#: Whose results of named models on public benchmarks a reference run trains on; see the README.
SOURCES = (
    "TIGER-AI-Lab/MMLU-Pro evaluation results (Apache-2.0)",
    "Open LLM Leaderboard v2 results, by way of PredictaBoard and CARROT",
)
_MAX_VALIDATION_QUESTIONS = 800


def train(
    config_path: str | Path,
    data_dir: str | Path,
    base: str | Path,
    output: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    aptitude_test: str | Path | None = None,
    teacher: str | Path | None = None,
) -> dict[str, Any]:
    """Trains a router and writes ``network.safetensors``, ``aptitude.json``, ``zoo.json`` and ``run.json``.

    Args:
        config_path: a TOML recipe, see `training.config`.
        data_dir: real outcomes, see `evaluation.outcomes`.
        base: directory of the base encoder (``model.safetensors``, ``tokenizer.json``).
        output: directory of the checkpoint; a run that was killed goes on with `resume`.
        progress: called after every step, see `training.trainer.Progress`.
        aptitude_test: an ``aptitude.json``; None builds the reference test (50 MMLU subjects x 20 items).
        teacher: what `training.teacher.run.teach` wrote for this recipe, if it has a ``teacher_share``.

    Returns:
        What run.json records: recipe, split, provenance, validation AUC, calibration error before and after.

    Raises:
        DataError, BundleError: see `prepare` and `Trainer`; also when `output` holds a run and `resume` is false,
            and when the recipe wants a teacher and there is none, or the other way round.
    """
    config = TrainConfig.load(config_path)
    directory, base_directory = Path(output), Path(base)
    taught = _teacher(config, teacher)
    if not resume and directory.is_dir() and any(directory.iterdir()):
        raise DataError(f"{directory} is not empty; give --resume to go on with it, or another --output")
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    test = None if aptitude_test is None else AptitudeTest.load(aptitude_test)
    prepared = prepare(config, Path(data_dir), base_directory, test)
    if taught is not None:
        prepared.sampler.expectations = taught.expectations(prepared)
    trainer = Trainer(
        config, prepared.network, prepared.sampler, prepared.inputs, _validation(prepared), directory, progress
    )
    state = trainer.run(resume)
    prepared.inputs.forget_states()  # so that a finished run is calibrated alike whether it was resumed or not
    return write_checkpoint(config, prepared, state, base_directory, directory, taught)


def _teacher(config: TrainConfig, path: str | Path | None) -> Teacher | None:
    if bool(config.samples.teacher_share) != (path is not None):
        wants = "wants a teacher: make one with 'modelsat teach' and name it with --teacher"
        raise DataError(f"the recipe {'has no teacher_share, so leave --teacher out' if path is not None else wants}")
    return None if path is None else Teacher.load(path)


def write_checkpoint(
    config: TrainConfig,
    prepared: Prepared,
    state: TrainState,
    base_directory: Path,
    directory: Path,
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """Calibrates the trained network and writes what `modelsat export` reads; returns what run.json records."""
    calibration = calibrate(prepared)
    axes = describe_axes(prepared)
    split, data = prepared.split, prepared.data
    record = {
        "recipe": config.to_json(),
        "split": split.to_json(),
        "aptitude_test_id": prepared.test.id,
        "base_weights": {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "license": "Apache-2.0",
            "sha256": _sha256(base_directory / "model.safetensors"),
        },
        "data": {
            "models": len(split.seen_rows),
            "questions": len(split.train),
            "outcomes": int(data.known[np.ix_(split.seen_rows, split.train)].sum()),
            "sources": SOURCES,
        },
        "teacher": None if teacher is None else teacher.description,
        "best_step": state.best_step,
        "steps": state.step,
        "history": state.history,
        "calibration": calibration,
        **({} if axes is None else {"refinement": axes.to_json()}),
    }
    weights = {name: value.contiguous() for name, value in prepared.network.state_dict().items()}
    save_file(weights, directory / NETWORK_FILE)
    prepared.test.save(directory / "aptitude.json")
    save_zoo(directory / "zoo.json", _zoo(data, prepared.test))
    shutil.copyfile(base_directory / "tokenizer.json", directory / "tokenizer.json")
    (directory / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def predict_logits(
    prepared: Prepared, rows: np.ndarray, columns: np.ndarray, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Logits of the given models, with their full profiles, on the given questions: float32 ``[questions, models]``.

    The mean over the views is taken of the logits.
    """
    network, inputs = prepared.network, prepared.inputs
    candidates = prepared.answers.profiles(rows, [prepared.notes[row] for row in rows])
    order = np.argsort([len(inputs.tokens[column]) for column in columns], kind="stable")
    logits = np.empty((len(columns), len(rows)), np.float32)
    with torch.inference_mode():
        zoo = inputs.connect(network, candidates)
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            logits[chosen] = network.zoo_logits(*inputs.prefix(network, columns[chosen]), zoo).mean(-1).float().numpy()
            if progress is not None:
                progress(len(chosen))
    return logits


def calibrate(prepared: Prepared) -> dict[str, Any]:
    """Fits temperature and bias on the validation questions and sets them in the network.

    Half of the weight lies on models that trained the router, half on validation models that did not.
    """
    columns = _validation_columns(prepared)
    seen, new = prepared.split.seen_rows, prepared.split.validation_rows
    pairs = []
    for rows in (seen, np.repeat(new, max(1, round(len(seen) / max(len(new), 1))))):
        logits = predict_logits(prepared, rows, columns)
        outcomes = prepared.data.Y[np.ix_(rows, columns)].T
        pairs.append((logits[outcomes >= 0], outcomes[outcomes >= 0]))
    logits = np.concatenate([pair[0] for pair in pairs]).astype(np.float64)
    labels = np.concatenate([pair[1] for pair in pairs]).astype(np.float64)
    temperature, bias = fit_temperature(logits, labels)
    prepared.network.temperature.fill_(temperature)
    prepared.network.calibration_bias.fill_(bias)
    return {
        "method": "temperature",
        "temperature": temperature,
        "bias": bias,
        "expected_calibration_error_before": expected_calibration_error(_sigmoid(logits), labels),
        "expected_calibration_error_after": expected_calibration_error(_sigmoid(logits / temperature + bias), labels),
        "fitted_on": "validation questions; seen and validation models in equal parts",
    }


def _zoo(data: OutcomeData, test: AptitudeTest) -> list[CapabilityProfile]:
    """The well-known default zoo where the data has it, else the ten strongest models of the data.

    None of them is refined: what benchmarks say of a model beside its aptitude is mostly how it met their formats.
    """
    if set(DEFAULT_ZOO.values()) <= set(data.model_keys):
        return default_zoo(data, test)
    strongest = np.argsort(-np.nan_to_num(data.strength), kind="stable")[:10]
    return profiles_from_outcomes(data, test, strongest)


def _validation(prepared: Prepared) -> Callable[[ModelSatNetwork], float]:
    """AUC on validation questions, mean of the seen and of the validation models."""
    columns = _validation_columns(prepared)

    def validate(_network: ModelSatNetwork) -> float:
        scores = []
        for rows in (prepared.split.seen_rows[::4], prepared.split.validation_rows):
            logits = predict_logits(prepared, rows, columns)
            scores.append(mean_auc_per_model(logits, prepared.data.Y[np.ix_(rows, columns)].T))
        return float(np.mean(scores))

    return validate


def _validation_columns(prepared: Prepared) -> np.ndarray:
    columns = prepared.split.validation
    if len(columns) > _MAX_VALIDATION_QUESTIONS:
        columns = np.random.default_rng(0).choice(columns, _MAX_VALIDATION_QUESTIONS, replace=False)
    return columns


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow_digest(file)
        )


def _slow_digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
