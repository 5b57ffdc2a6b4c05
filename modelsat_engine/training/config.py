"""The recipe of a router as one TOML file; everything a training run depends on, besides data and base weights."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.model.config import CapabilityEncoderConfig, NetworkConfig


@dataclass(frozen=True)
class SampleConfig:
    """What a batch is made of.

    Args:
        max_tokens: an instruction is cut to this many tokens, head and tail kept.
        questions_per_batch: B.
        candidates_per_batch: M, drawn anew for every batch.
        synthetic_share: part of the candidates whose answers are mixed from two models, domain by domain.
        noisy_share: part of the profiles that are resampled with replacement, so that they are noisy as in life.
        partial_share: part of the profiles of which a random part of the answers is missing.
        homogeneous_share: part of the questions in batches of one domain, which makes the paper's negatives hard.
        strength_weight: a candidate's weight in the loss runs from 1 (weakest) to 1 + this (strongest).
        note_share: part of the profiles that keep their expert note.
        bare_share: part of the questions with lettered options that are shown without them. Without it a router
            learns that a free-form prompt is one that models fail, for that is so in the benchmarks.
        shuffle_share: part of the questions with lettered options that are shown with them in a new order, drawn
            anew every time, so that a router learns a question less by heart.
        teacher_share: how much of a label is the teacher's expectation instead of the outcome (`training.teacher`;
            distillation, Hinton et al. 2015); 0 trains without a teacher.
    """

    max_tokens: int = 128
    questions_per_batch: int = 24
    candidates_per_batch: int = 24
    synthetic_share: float = 0.25
    noisy_share: float = 0.8
    partial_share: float = 0.15
    homogeneous_share: float = 0.5
    strength_weight: float = 0.5
    note_share: float = 0.7
    bare_share: float = 0.0
    shuffle_share: float = 0.0
    teacher_share: float = 0.0


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the objectives in the sum that is minimised; see `training.objectives`."""

    binary_cross_entropy: float = 1.0
    in_batch_cross_entropy: float = 0.0
    choice: float = 0.0
    squared_error: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """Two stages: connector, encoder and head first, then everything.

    Args:
        connector_steps: steps of stage one; the trunk stands still.
        connector_learning_rate: of encoder, connector and head, in both stages.
        epochs: of stage two.
        trunk_learning_rate: of the trunk in stage two, at its peak.
        warmup_steps: of stage two; then the rate falls linearly to a tenth.
        trunk_from: first trunk layer that is trained.
        weight_decay: of AdamW.
        dropout: on the residual branches of the trunk, in stage two.
        average_decay: of the exponential moving average of the weights, which is what is evaluated and kept.
        evaluations_per_epoch: how often the validation split decides whether to go on.
        patience: evaluations without a better one before the run stops.
        soup: keep the mean of the best evaluation's weights and the last one's (a model soup, Wortsman et al. 2022)
            instead of the best one's alone.
        precision: of the products in training: "float32", or "bfloat16", which processors with AMX multiply several
            times faster. Weights, their averages and calibration are float32 either way.
    """

    connector_steps: int = 150
    connector_learning_rate: float = 1e-3
    epochs: int = 3
    trunk_learning_rate: float = 5e-5
    warmup_steps: int = 50
    trunk_from: int = 0
    weight_decay: float = 0.01
    dropout: float = 0.1
    average_decay: float = 0.998
    evaluations_per_epoch: int = 2
    patience: int = 3
    soup: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision {self.precision!r} is not known: use 'float32' or 'bfloat16'")


@dataclass(frozen=True)
class TrainConfig:
    """A whole recipe; `load` reads it from TOML with one table per attribute."""

    name: str = "mini"
    seed: int = 0
    split_seed: int = 0
    threads: int = 1
    network: NetworkConfig = field(default_factory=NetworkConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Reads a recipe.

        Raises:
            DataError: not a TOML file, or a key or a type that no recipe has.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the training config {file}: {error}") from None
        toml = _toml()
        try:
            data = toml.loads(text)
        except toml.TOMLDecodeError as error:
            raise DataError(f"{file} is not valid TOML: {error}") from None
        return cls.from_json(data, str(file))

    @classmethod
    def from_json(cls, data: dict[str, Any], origin: str = "training config") -> TrainConfig:
        """Builds a recipe from plain data; missing keys take their defaults. Raises `DataError` as `load`."""
        data = dict(data)
        network = dict(data.pop("network", {}))
        encoder = _build(CapabilityEncoderConfig, network.pop("capability_encoder", {}), f"{origin}: encoder")
        trunk = network.pop("trunk", {})
        try:
            built = NetworkConfig.from_json(
                {**network, "trunk": trunk, "capability_encoder": dataclasses.asdict(encoder)}
            )
            unknown = set(network) - {f.name for f in dataclasses.fields(NetworkConfig)}
            if unknown:
                raise ValueError(f"unknown keys in [network]: {', '.join(sorted(unknown))}")
        except (TypeError, ValueError) as error:
            raise DataError(f"{origin}: {error}") from None
        parts = {
            "samples": _build(SampleConfig, data.pop("samples", {}), f"{origin}: [samples]"),
            "objective": _build(ObjectiveConfig, data.pop("objective", {}), f"{origin}: [objective]"),
            "schedule": _build(ScheduleConfig, data.pop("schedule", {}), f"{origin}: [schedule]"),
        }
        plain = _build(_Plain, data, origin)
        return cls(**dataclasses.asdict(plain), network=built, **parts)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Plain:
    name: str = "mini"
    seed: int = 0
    split_seed: int = 0
    threads: int = 1


def _build(kind: Any, values: Any, origin: str) -> Any:
    """A dataclass from a table, every key known and of the default's type."""
    if not isinstance(values, dict):
        raise DataError(f"{origin} must be a table")
    defaults = {f.name: getattr(kind(), f.name) for f in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in defaults:
            raise DataError(f"{origin}: unknown key {key!r}; known are {', '.join(defaults)}")
        wanted = type(defaults[key])
        if isinstance(value, bool) != (wanted is bool) or not isinstance(
            value, (wanted, int) if wanted is float else wanted
        ):
            raise DataError(f"{origin}: {key} must be {wanted.__name__}, not {value!r}")
    try:
        return kind(**values)
    except ValueError as error:
        raise DataError(f"{origin}: {error}") from None


def _toml() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli
    except ImportError:
        raise MissingExtraError("reading a training config on Python 3.10", "train") from None
    return tomli
