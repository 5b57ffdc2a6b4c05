"""Branches start alike, see their batches in orders of their own, and end as the mean of their weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from modelsat_engine.errors import DataError
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.training.branches import run_branches
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.trainer import Progress, TrainState
from tests.training.test_trainer import KilledError, make_trainer


def run(
    directory: Path, branches: int, resume: bool = False, progress: Progress | None = None, seed: int = 5
) -> tuple[dict[str, Tensor], list[TrainState]]:
    made = make_trainer(directory / "unused", branches=branches, epochs=1)
    recipe = made.config.to_json()
    config = TrainConfig.from_json({**recipe, "seed": seed})
    prepared: Any = SimpleNamespace(network=made.network, sampler=made.sampler, inputs=made.inputs)

    def validate(_network: ModelSatNetwork) -> float:
        return 0.5

    states = run_branches(config, prepared, validate, directory, resume, progress)
    return {name: value.clone() for name, value in made.network.state_dict().items()}, states


def test_the_result_is_the_mean_of_runs_of_other_seeds_from_one_start(tmp_path: Path) -> None:
    together, states = run(tmp_path / "together", 2)
    alone = [run(tmp_path / f"alone-{seed}", 1, seed=seed)[0] for seed in (5, 6)]
    assert len(states) == 2
    assert not torch.equal(alone[0]["connector.weight"], alone[1]["connector.weight"])
    for name, value in together.items():
        assert torch.allclose(value, (alone[0][name] + alone[1][name]) / 2, atol=1e-6), name


@pytest.mark.parametrize("after", [3, 32, 50])
def test_branches_resume_where_they_were_killed(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelsat_engine.training.trainer.CHECKPOINT_STEPS", 2)
    whole, states = run(tmp_path / "whole", 2)
    print(f"{[state.step for state in states]} steps of stage two, killed after {after} in all")
    told: list[dict[str, Any]] = []

    def kill(event: dict[str, Any]) -> None:
        told.append(event)
        if len(told) > after:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path / "killed", 2, progress=kill)
    assert {(event["branch"], event["branches"]) for event in told} <= {(0, 2), (1, 2)}
    resumed, _ = run(tmp_path / "killed", 2, resume=True)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_recipes_say_what_is_wrong_with_their_schedule() -> None:
    for schedule, message in (
        ({"branches": 0}, "branches must be 1 or more"),
        ({"soup_from": 1.5}, "soup_from a share"),
        ({"precision": "float16"}, "precision 'float16' is not known"),
    ):
        with pytest.raises(DataError, match=message):
            TrainConfig.from_json({"schedule": schedule})
