"""How much does the router gain from more training models, more questions, and longer aptitude tests?

    python benchmarks/learning_curves.py --data ../shared/data --base base --cache states.npz --json

The trunk keeps its base weights and the relevance head alone is trained, on pooled states that are computed once
(``--cache`` keeps them for the next run): every point takes seconds, so that all of them come from one run and
differ in nothing but what is varied. A fine-tuned router lies above these curves; their slopes are the answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelsat_engine.evaluation.metrics import pooled_auc
from modelsat_engine.evaluation.scenarios import make_scenarios, score_scenarios
from modelsat_engine.model.capability import TaskwiseEncoder, mean_pool
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.model.relevance import RelevanceHead
from modelsat_engine.training.config import TrainConfig
from modelsat_engine.training.objectives import binary_cross_entropy, choice
from modelsat_engine.training.preparation import Prepared, prepare
from modelsat_engine.training.samples import Candidates

RECIPE = Path(__file__).parents[1] / "modelsat_engine" / "training" / "configs" / "mini.toml"
STEPS = 900
RATE = 2e-3


def pooled_states(prepared: Prepared, columns: np.ndarray, cache: Path | None) -> np.ndarray:
    """Mean of the instruction's rows before the last layer, float32 ``[Q, D]``, NaN outside ``columns``."""
    if cache is not None and cache.is_file():
        kept: np.ndarray = np.load(cache)["pooled"]
        if np.isfinite(kept[columns]).all():
            return kept
    trunk, depth = prepared.network.trunk, prepared.network.config.trunk.layers - 1
    pooled = np.full((len(prepared.data.questions), prepared.network.config.trunk.hidden), np.nan, np.float32)
    ordered = columns[np.argsort([len(prepared.inputs.tokens[column]) for column in columns], kind="stable")]
    with torch.inference_mode():
        for done, part in enumerate(np.array_split(ordered, max(1, len(ordered) // 24))):
            ids, mask = prepared.inputs.instructions(part)
            pooled[part] = mean_pool(trunk(ids, mask > 0, layers=depth), mask > 0).numpy()
            if done % 50 == 0:
                print(f"\rpooling {done * 24} of {len(ordered)} questions", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if cache is not None:
        np.savez(cache, pooled=pooled)
    return pooled


def logits_of(prepared: Prepared, pooled: Tensor, candidates: Candidates) -> Tensor:
    """What the relevance head alone says, ``[B, M]``."""
    network = prepared.network
    weighed = network.relevance_and_evidence(pooled, prepared.inputs.connect(network, candidates).inquiry_start)
    assert weighed is not None
    return torch.einsum("be,me->bm", weighed[0], weighed[1][:, 0])


def _trainable(network: ModelSatNetwork) -> tuple[RelevanceHead, nn.Linear]:
    assert network.relevance is not None
    assert isinstance(network.capability, TaskwiseEncoder)
    assert network.capability.note_evidence is not None
    return network.relevance, network.capability.note_evidence


def fit(prepared: Prepared, pooled: Tensor, rows: np.ndarray, columns: np.ndarray, seed: int) -> None:
    """Trains the relevance head from its start, in place, on these models and questions."""
    network, sampler = prepared.network, prepared.sampler
    torch.manual_seed(seed)
    head, notes = _trainable(network)
    for part, fresh in zip((head, notes), _trainable(ModelSatNetwork(network.config)), strict=True):
        part.load_state_dict(fresh.state_dict())
    head.describe(pooled[columns])
    parameters = [*head.parameters(), *notes.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    sampler.rows, sampler.columns, sampler.seed = rows, columns, seed
    sampler.row_weight = np.ones(len(rows))
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.02)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    rng = np.random.default_rng(seed)
    head.train()
    for step in range(STEPS):
        batch = sampler.batch(0, step, rng.choice(columns, 64))
        logits = logits_of(prepared, pooled[batch.questions], batch.candidates)
        target = torch.from_numpy(batch.labels), torch.from_numpy(batch.known), torch.from_numpy(batch.weights)
        loss = binary_cross_entropy(logits, *target) + 0.3 * choice(logits, *target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    head.eval()


def judge(prepared: Prepared, pooled: Tensor, profiles: Callable[[np.ndarray], Candidates]) -> dict[str, float]:
    """AUC and gain over the best single model in zoos of similar strength, for seen and for new models."""
    data, split = prepared.data, prepared.split
    rows = np.concatenate([split.seen_rows, split.new_rows])
    P = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)  # [Q, M]
    with torch.inference_mode():
        logits = logits_of(prepared, pooled[split.test], profiles(rows))
    P[np.ix_(split.test, rows)] = torch.sigmoid(logits).numpy()
    scenarios = make_scenarios(data, split, ["seen_models", "new_models"])
    scored = score_scenarios(P, data, split, prepared.test, scenarios=scenarios, seeds=3)
    result = {}
    for name, scenario in zip(("seen", "new"), scenarios, strict=True):
        cut = np.ix_(scenario.columns, scenario.rows)
        result[f"auc_{name}"] = pooled_auc(P[cut], data.Y.T[cut])
        gain = scored[scenario.name]["zoos"]["similar"]["choices"]["router"]["gain_over_best_single"]["mean"]
        result[f"gain_{name}_points"] = 100 * gain
    return result


def shortened(prepared: Prepared, answers: int, seed: int) -> Callable[[np.ndarray], Candidates]:
    """Profiles of that many answers, drawn at random from the aptitude test."""

    def profiles(rows: np.ndarray) -> Candidates:
        known = prepared.answers.answers[rows]  # [M, T, N]
        rng = np.random.default_rng((seed, answers))
        kept = np.zeros(known[0].size, bool)
        kept[rng.permutation(known[0].size)[:answers]] = True
        given = np.where(kept.reshape(known.shape[1:]), known, -1)
        notes = tuple(prepared.notes[row] for row in rows)
        right, total = ((given == 1).sum(-1).astype(np.float32), (given >= 0).sum(-1).astype(np.float32))
        return Candidates(right, total, notes)

    return profiles


def curves(prepared: Prepared, pooled: Tensor, seeds: int, report: Callable[[dict[str, Any]], None]) -> None:
    """Every point of the three curves, handed to ``report`` as it comes."""
    split = prepared.split
    test_size = prepared.answers.answers[0].size

    def point(what: str, size: int, measured: list[dict[str, float]]) -> None:
        figures = {
            key: {
                "mean": float(np.mean([one[key] for one in measured])),
                "sd": float(np.std([o[key] for o in measured])),
            }
            for key in measured[0]
        }
        report({"varied": what, "size": size, **figures})

    def trained(rows: int, columns: int) -> list[dict[str, float]]:
        measured = []
        for seed in range(seeds):
            rng = np.random.default_rng((seed, rows, columns))
            some = np.sort(rng.permutation(split.seen_rows)[:rows])
            fit(prepared, pooled, some, np.sort(rng.permutation(split.train)[:columns]), seed)
            measured.append(judge(prepared, pooled, shortened(prepared, test_size, 0)))
        return measured

    every = len(split.seen_rows), len(split.train)
    for rows in (9, 18, 36):
        point("training models", rows, trained(rows, every[1]))
    for columns in (750, 1500, 3000, 6000):
        point("training questions", columns, trained(every[0], columns))
    point("everything", 0, trained(*every))
    for answers in (50, 100, 200, 500, test_size):
        drawn = [judge(prepared, pooled, shortened(prepared, answers, seed)) for seed in range(max(seeds, 3))]
        point("aptitude answers", answers, drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of real outcomes")
    parser.add_argument("--base", type=Path, required=True, help="directory of the base encoder")
    parser.add_argument("--cache", type=Path, help="keep the pooled states in this .npz file")
    parser.add_argument("--seeds", type=int, default=2, help="training runs per point (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepared = prepare(TrainConfig.load(RECIPE), options.data, options.base)
    prepared.network.requires_grad_(False)
    columns = np.concatenate([prepared.split.train, prepared.split.test])
    pooled = torch.from_numpy(pooled_states(prepared, columns, options.cache))
    points: list[dict[str, Any]] = []

    def report(point: dict[str, Any]) -> None:
        points.append(point)
        if not options.json:
            figures = "  ".join(f"{k} {v['mean']:.3f} +-{v['sd']:.3f}" for k, v in point.items() if isinstance(v, dict))
            print(f"{point['varied']:20s} {point['size']:6d}  {figures}", flush=True)

    curves(prepared, pooled, options.seeds, report)
    if options.json:
        print(json.dumps({"seeds": options.seeds, "points": points}, indent=1))


if __name__ == "__main__":
    main()
