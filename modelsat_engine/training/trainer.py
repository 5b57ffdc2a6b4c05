"""The two-stage trainer: connector first, then everything; stops early, survives a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelsat_engine.errors import DataError
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.inputs import NetworkInputs
from modelsat_engine.training.objectives import OBJECTIVES
from modelsat_engine.training.samples import Batch, BatchSampler

#: Called after every step with what happened: stage, step, steps, loss; after an evaluation also validation_auc.
Progress = Callable[[dict[str, Any]], None]

CHECKPOINT_STEPS = 100


@dataclass
class TrainState:
    """Where a run stands; with the tensors beside it, all that a resumed run needs."""

    stage: str = "connector"
    step: int = 0
    best: float = -1.0
    best_step: int = 0
    bad_evaluations: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains a network in place.

    Args:
        config: the recipe.
        network: with the aptitude test described and the trunk's base weights loaded.
        sampler: the training batches.
        inputs: turns questions and candidates into tensors.
        validate: network -> validation AUC; decides which weights are kept and when to stop.
        directory: checkpoints go to ``directory/checkpoint``.
        progress: see `Progress`.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: ModelSatNetwork,
        sampler: BatchSampler,
        inputs: NetworkInputs,
        validate: Callable[[ModelSatNetwork], float],
        directory: Path,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.network, self.sampler, self.inputs = config, network, sampler, inputs
        self.validate, self.progress = validate, progress or (lambda _event: None)
        self.checkpoint = directory / "checkpoint"
        self.state = TrainState()
        self.average = {name: value.clone() for name, value in network.state_dict().items()}
        self.best = {name: value.clone() for name, value in self.average.items()}
        schedule = config.schedule
        self.steps = {
            "connector": schedule.connector_steps,
            "all": schedule.epochs * sampler.batches_per_epoch,
        }
        self.evaluate_every = max(1, sampler.batches_per_epoch // max(1, schedule.evaluations_per_epoch))

    def run(self, resume: bool = False) -> TrainState:
        """Trains to the end and leaves the weights to keep in the network: the soup, or the best averaged ones.

        Raises:
            DataError: `resume` without a checkpoint, or with one of another recipe.
        """
        pending = self._load_checkpoint() if resume else None
        for stage in ("connector", "all"):
            if self.state.finished or (stage == "connector" and self.state.stage == "all"):
                continue
            if stage == "all" and self.state.stage == "connector":
                self.state.stage, self.state.step = "all", 0
                self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
            self._run_stage(stage, pending)
            pending = None
        if self.state.history:
            self.network.load_state_dict(self._kept())
        self.network.eval()
        return self.state

    def _run_stage(self, stage: str, optimizer_state: dict[str, Tensor] | None) -> None:
        optimizer = self._optimizer(stage)
        if optimizer_state is not None:
            _restore_optimizer(optimizer, optimizer_state)
        self.network.train()
        self.network.trunk.set_dropout(0.0)  # the relevance head keeps its own
        for layer in self.network.trunk.between(self.config.schedule.trunk_from) if stage == "all" else ():
            layer.dropout.p = self.config.schedule.dropout
        total = self.steps[stage]
        while self.state.step < total:
            epoch, index = divmod(self.state.step, self.sampler.batches_per_epoch)
            epoch += stage == "all"  # epoch 0 belongs to stage one
            questions = self._epoch(epoch)
            for position in range(index, len(questions)):
                if self.state.step >= total:
                    break
                self._set_rates(optimizer, stage)
                torch.manual_seed(hash((self.config.seed, epoch, position)) % 2**31)
                loss = self._step(optimizer, self.sampler.batch(epoch, position, questions[position]))
                self.state.step += 1
                event = {"stage": stage, "step": self.state.step, "steps": total, "loss": loss}
                evaluated = stage == "all" and (self.state.step % self.evaluate_every == 0 or self.state.step == total)
                if evaluated:
                    event["validation_auc"] = self._evaluate(loss)
                self.progress(event)
                if evaluated or self.state.step % CHECKPOINT_STEPS == 0:
                    self._save_checkpoint(optimizer)
                if stage == "all" and self.state.bad_evaluations >= self.config.schedule.patience:
                    total = self.state.step
        if stage == "all":
            self.state.finished = True
            self._save_checkpoint(optimizer)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        # two epochs can differ by a batch, for the share of homogeneous questions is random
        batches = self.sampler.epoch(epoch)[: self.sampler.batches_per_epoch]
        return batches + batches[: self.sampler.batches_per_epoch - len(batches)]

    def _step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
        with self._precision():
            prefix, mask = self.inputs.prefix(self.network, batch.questions, batch.forms)
            zoo = self.inputs.connect(self.network, batch.candidates)
            logits = self.network.zoo_logits(prefix, mask, zoo).mean(-1)  # [B, M]
        logits = logits.float()
        labels, known = torch.from_numpy(batch.labels), torch.from_numpy(batch.known)
        weights = torch.from_numpy(batch.weights)
        loss = logits.new_zeros(())
        for name, objective in OBJECTIVES.items():
            share = getattr(self.config.objective, name)
            if share:
                loss = loss + share * objective(logits, labels, known, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), 1.0)
        optimizer.step()
        # a young average follows quickly, an old one slowly
        decay = min(self.config.schedule.average_decay, (1 + self.state.step) / (10 + self.state.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return loss.item()

    def _evaluate(self, loss: float) -> float:
        current = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        with self._precision():
            auc = self.validate(self.network)
        if auc > self.state.best:
            self.state.best, self.state.best_step, self.state.bad_evaluations = auc, self.state.step, 0
            self.best = {name: value.clone() for name, value in self.average.items()}
        else:
            self.state.bad_evaluations += 1
        self.state.history.append({"step": self.state.step, "loss": loss, "validation_auc": auc})
        self.network.load_state_dict(current)
        self.network.train()
        return auc

    def _kept(self) -> dict[str, Tensor]:
        """The best weights; in a soup their mean with the last ones, which predicts about as their ensemble would."""
        if not self.config.schedule.soup:
            return self.best
        return {name: torch.lerp(value, self.average[name], 0.5) for name, value in self.best.items()}

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.schedule.precision == "bfloat16")

    # -- rates --------------------------------------------------------------------------------------------------------

    def _optimizer(self, stage: str) -> torch.optim.Optimizer:
        schedule, trunk = self.config.schedule, self.network.trunk
        fresh = [p for name, p in self.network.named_parameters() if not name.startswith("trunk.")]
        trained = [] if stage == "connector" else _parameters(trunk.layers[schedule.trunk_from :])
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        groups = []
        for parameters, rate in ((fresh, schedule.connector_learning_rate), (trained, schedule.trunk_learning_rate)):
            for decays in (True, False):
                chosen = [p for p in parameters if (p.dim() > 1) == decays]
                for parameter in chosen:
                    parameter.requires_grad_(True)
                if chosen:
                    decay = schedule.weight_decay if decays else 0.0
                    groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
        return torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def _set_rates(self, optimizer: torch.optim.Optimizer, stage: str) -> None:
        total, warmup = self.steps[stage], self.config.schedule.warmup_steps if stage == "all" else 1
        rising = (self.state.step + 1) / max(warmup, 1)
        falling = 1 - 0.9 * self.state.step / max(total, 1) if stage == "all" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(rising, falling)

    # -- checkpoint ---------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, optimizer: torch.optim.Optimizer) -> None:
        """Written beside the last one and swapped in, so that a kill at any moment leaves a whole checkpoint."""
        fresh = self.checkpoint.with_name("checkpoint.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        save_file(_contiguous(self.network.state_dict()), fresh / "network.safetensors")
        save_file(_contiguous(self.average), fresh / "average.safetensors")
        save_file(_contiguous(self.best), fresh / "best.safetensors")
        save_file(_optimizer_tensors(optimizer), fresh / "optimizer.safetensors")
        state = {"recipe": self.config.to_json(), "state": vars(self.state)}
        (fresh / "state.json").write_text(json.dumps(state, indent=1))
        old = self.checkpoint.with_name("checkpoint.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.checkpoint.exists():
            os.replace(self.checkpoint, old)
        os.replace(fresh, self.checkpoint)
        shutil.rmtree(old, ignore_errors=True)

    def _load_checkpoint(self) -> dict[str, Tensor]:
        directory = self.checkpoint
        if not directory.exists():  # killed between the two renames
            directory = self.checkpoint.with_name("checkpoint.old")
        if not directory.exists():
            raise DataError(f"nothing to resume: {self.checkpoint} does not exist; start without --resume")
        saved = json.loads((directory / "state.json").read_text())
        if saved["recipe"] != json.loads(json.dumps(self.config.to_json())):
            raise DataError(f"{directory} belongs to another training config; start without --resume")
        self.state = TrainState(**saved["state"])
        self.network.load_state_dict(load_file(directory / "network.safetensors"))
        self.average = load_file(directory / "average.safetensors")
        self.best = load_file(directory / "best.safetensors")
        return load_file(directory / "optimizer.safetensors")


def _parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of AdamW as plain tensors, by parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value.clone() for number, slots in state.items() for name, value in slots.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    described = optimizer.state_dict()
    if len(state) not in (0, sum(len(group["params"]) for group in described["param_groups"])):
        raise DataError("the checkpoint's optimizer belongs to another network; start without --resume")
    optimizer.load_state_dict({"state": state, "param_groups": described["param_groups"]})
