"""Several runs of one recipe from one start, each in an order of its own, whose weights are averaged.

Fine-tuned from the same weights, the runs end in one valley of the loss: the mean of their weights predicts about as
their ensemble would (model soups, Wortsman et al. 2022), and costs no more than one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.preparation import Prepared
from modelsat_engine.training.trainer import Progress, Trainer, TrainState


def run_branches(
    config: TrainConfig,
    prepared: Prepared,
    validate: Callable[[ModelSatNetwork], float],
    directory: Path,
    resume: bool,
    progress: Progress | None,
) -> list[TrainState]:
    """Runs every branch and leaves the mean of their weights in the network.

    Args:
        directory: of the run; with more than one branch each has a folder of its own in it.
        resume: go on with what is there; branches that are finished are not run again.

    Returns:
        Where each branch ended.

    Raises:
        DataError: see `Trainer.run`.
    """
    network, count = prepared.network, config.schedule.branches
    start = {name: value.clone() for name, value in network.state_dict().items()}
    mean = {name: torch.zeros_like(value) for name, value in start.items()}
    states = []
    for branch in range(count):
        folder = directory if count == 1 else directory / f"branch-{branch}"
        network.load_state_dict(start)
        prepared.sampler.seed = config.seed + branch
        seeded = dataclasses.replace(config, seed=config.seed + branch)
        trainer = Trainer(
            seeded, network, prepared.sampler, prepared.inputs, validate, folder, _of_branch(progress, branch, count)
        )
        # a later branch may not have begun when the run was killed
        states.append(trainer.run(resume and (branch == 0 or folder.exists())))
        for name, value in network.state_dict().items():
            mean[name].lerp_(value, 1 / (branch + 1))
    network.load_state_dict(mean)
    return states


def _of_branch(progress: Progress | None, branch: int, count: int) -> Progress | None:
    if progress is None or count == 1:
        return progress

    def tell(event: dict[str, Any]) -> None:
        progress({**event, "branch": branch, "branches": count})

    return tell
