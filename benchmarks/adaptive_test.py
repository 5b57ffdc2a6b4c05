"""How many questions does a profile need, in which order, and do its ranges hold?

    python benchmarks/adaptive_test.py --data ../shared/data --json

New models, test questions, five seeds, the shipped router through its fastest executor. Orders of asking:

    random       any items
    stratified   every task in turn, items at random
    by_task      the next task is the one whose accuracy in logits is least certain
    by_item      items of the difficulty that tells most about this model (Rasch model, difficulties from the seen
                 models' outcomes), tasks in turn; the profile counts the answers as they are
    by_item_fair the same, with the counts that the model would have had on all items of the task

and, under ``stopping``, the stratified order until the profile is certain enough. AUC, calibration error and gain in
zoos of similar strength are those of `evaluation`; ``coverage`` is how often the range of a short profile holds the
probability that the whole profile gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine import CapabilityProfile, Engine
from modelsat_engine.aptitude.adaptive import AdaptiveTest
from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.aptitude.uncertainty import TaskPrior, ability
from modelsat_engine.evaluation.metrics import expected_calibration_error, mean_auc_per_model, pooled_auc
from modelsat_engine.evaluation.outcomes import RIGHT, OutcomeData
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scenarios import make_scenarios, sample_of, score_scenarios
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.intervals import task_prior

SIZES = (50, 100, 200, 500, 1000)
ORDERS = ("random", "stratified", "by_task", "by_item", "by_item_fair")
TARGETS = (0.13, 0.12, 0.11, 0.105, 0.1, 0.09)
LEVELS = (0.5, 0.9)
BATCH = 25
TASK_SPREAD = 0.5  # of a model's ability on a task around its overall ability, logits


class Items:
    """The test's items as arrays: who answered what, how hard each is, and to which task it belongs."""

    def __init__(self, bundle: Bundle, data: OutcomeData, split: Split) -> None:
        test = bundle.aptitude_test
        self.ids = [item for task in test.tasks for item in task.item_ids]
        self.task = np.repeat(np.arange(len(test.tasks)), [len(task.item_ids) for task in test.tasks])  # [I]
        self.Y = data.Y[:, data.columns(self.ids)]  # [models, I]
        self.prior: TaskPrior = task_prior(bundle)
        seen = self.Y[split.seen_rows]
        known = seen >= 0
        right = ((seen == RIGHT).sum(0) + 0.5) / (known.sum(0) + 1)  # [I]
        theta = _logit(((seen == RIGHT).sum(1) + 0.5) / (known.sum(1) + 1))  # [models]
        self.difficulty = theta.mean() - _logit(right)
        for _ in range(20):  # the Rasch model's difficulties, given the seen models' abilities
            p = _sigmoid(theta[:, None] - self.difficulty)
            slope = (known * p * (1 - p)).sum(0) + 1
            self.difficulty += ((known * (p - (seen == RIGHT))).sum(0)) / slope


def asked(order: str, items: Items, y: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(answers, bool ``[I]`` which items) at every size of SIZES."""
    rng = np.random.default_rng(seed)
    tie = rng.random(len(y))
    tasks = len(items.prior.difficulty)
    have = np.zeros(len(y), bool)
    usable = y >= 0
    for size in SIZES:
        while have.sum() < min(size, usable.sum()):
            count = min(BATCH, size - int(have.sum()))
            answered = np.bincount(items.task[have], minlength=tasks)
            if order == "random":
                rank = tie
            elif order == "stratified":
                rank = _in_turn(items, have, usable, tie, answered.astype(float))
            elif order == "by_task":
                correct = np.bincount(items.task[have & (y == RIGHT)], minlength=tasks)
                estimate, _ = ability(correct, answered, items.prior)
                expected = _sigmoid(estimate - items.prior.difficulty)
                strength = items.prior.strength
                m = (strength * expected + correct) / (strength + answered)
                rank = _in_turn(items, have, usable, tie, (strength + answered) * m * (1 - m), m * (1 - m))
            else:
                overall, shift = _abilities(items, have, y)
                p = _sigmoid(overall + shift[items.task] - items.difficulty)
                best_first = -p * (1 - p) + 1e-3 * tie
                rank = _in_turn(items, have, usable, best_first, answered.astype(float))
            rank = np.where(have | ~usable, np.inf, rank)
            have[np.argsort(rank, kind="stable")[:count]] = True
        yield size, have.copy()


def _in_turn(
    items: Items,
    have: np.ndarray,
    usable: np.ndarray,
    inside: np.ndarray,
    before: np.ndarray,
    step: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Ranks that take tasks of the least ``before`` first; each item adds ``step``, best items first."""
    rank = np.full(len(have), np.inf)
    steps = np.broadcast_to(step, before.shape)
    for task in range(len(before)):
        free = np.flatnonzero((items.task == task) & usable & ~have)
        free = free[np.argsort(inside[free], kind="stable")]
        if len(free):
            rank[free] = before[task] + steps[task] * np.arange(len(free)) + 1e-3 * inside[free[0]]
    return rank


def _abilities(items: Items, have: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Overall ability and every task's shift under the Rasch model with known difficulties, most likely values."""
    overall, shift = items.prior.center, np.zeros(len(items.prior.difficulty))
    right, task, b = (y[have] == RIGHT).astype(float), items.task[have], items.difficulty[have]
    for _ in range(8):
        p = _sigmoid(overall + shift[task] - b)
        weight = p * (1 - p)
        overall += ((right - p).sum() - 0.5 * (overall - items.prior.center)) / (weight.sum() + 0.5)
        p = _sigmoid(overall + shift[task] - b)
        slope = np.bincount(task, p * (1 - p), len(shift)) + TASK_SPREAD**-2
        shift += (np.bincount(task, right - p, len(shift)) - shift * TASK_SPREAD**-2) / slope
    return float(overall), shift


def profile_of(
    items: Items, bundle: Bundle, name: str, notes: str, y: np.ndarray, have: np.ndarray, fair: bool
) -> CapabilityProfile:
    """The profile of these answers; a fair one counts what the model would have had on all items of each task."""
    test = bundle.aptitude_test
    total = np.bincount(items.task[have], minlength=len(test.tasks))
    correct = np.bincount(items.task[have & (y == RIGHT)], minlength=len(test.tasks)).astype(float)
    if fair:
        overall, shift = _abilities(items, have, y)
        guess = np.where(have, y == RIGHT, _sigmoid(overall + shift[items.task] - items.difficulty))
        share = np.bincount(items.task, guess, len(test.tasks)) / np.bincount(items.task, minlength=len(test.tasks))
        correct = np.rint(share * total)
    right, answered = (
        dict(zip(test.task_names, column.astype(int).tolist(), strict=True)) for column in (correct, total)
    )
    return CapabilityProfile(name, right, answered, notes=notes, test_id=test.id)


class Judge:
    """Scores profiles of the new models on test questions."""

    def __init__(self, bundle: Bundle, data: OutcomeData, split: Split, questions: int) -> None:
        self.bundle, self.data, self.split = bundle, data, split
        self.columns = sample_of(data, split.test, questions)
        self.texts = [data.questions.instruction[column] for column in self.columns]
        self.Y = data.Y[np.ix_(split.new_rows, self.columns)].T  # [q, m]
        self.scenarios = make_scenarios(data, split, ["new_models"], questions)

    def probabilities(self, profiles: list[CapabilityProfile]) -> np.ndarray:
        """P of every profile for every question, float32 ``[q, profiles]``."""
        parts = []
        with Engine.load(self.bundle, zoo=profiles, mode="throughput") as engine:
            for start in range(0, len(self.texts), 20):
                parts.append(engine.score(self.texts[start : start + 20]))
                print(f"\rscoring {start} of {len(self.texts)} questions", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return np.concatenate(parts)

    def figures(self, P: np.ndarray) -> dict[str, float]:
        """What one profile for each new model, P ``[q, m]``, is worth."""
        whole = np.full((len(self.data.questions), len(self.data.model_keys)), np.nan, np.float32)
        whole[np.ix_(self.columns, self.split.new_rows)] = P
        scored = score_scenarios(
            whole, self.data, self.split, self.bundle.aptitude_test, scenarios=self.scenarios, seeds=3
        )
        gain = scored["new_models"]["zoos"]["similar"]["choices"]["router"]["gain_over_best_single"]["mean"]
        return {
            "auc": pooled_auc(P, self.Y),
            "auc_inside_a_model": mean_auc_per_model(P, self.Y),
            "calibration_error": expected_calibration_error(P, self.Y),
            "gain_points": 100 * gain,
        }


def summary(measured: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure."""
    return {
        key: {
            "mean": round(float(np.mean([one[key] for one in measured])), 4),
            "sd": round(float(np.std([one[key] for one in measured])), 4),
        }
        for key in measured[0]
    }


def curves(judge: Judge, items: Items, seeds: int) -> dict[str, Any]:
    """order -> answers -> figures; and where the stratified order stops."""
    rows = judge.split.new_rows.tolist()
    notes = [profile.notes for profile in profiles_from_outcomes(judge.data, judge.bundle.aptitude_test, rows)]
    profiles: list[CapabilityProfile] = []
    place: dict[tuple[Any, ...], list[int]] = {}
    asked_count: dict[tuple[float, int], list[int]] = {}

    def add(key: tuple[Any, ...], row: int, note: str, have: np.ndarray, fair: bool = False) -> None:
        place.setdefault(key, []).append(len(profiles))
        name = f"{len(profiles)}"
        profiles.append(profile_of(items, judge.bundle, name, note, items.Y[row], have, fair))

    for row, note in zip(rows, notes, strict=True):
        y = items.Y[row]
        answers = {item: bool(value) for item, value in zip(items.ids, y, strict=True) if value >= 0}
        for seed in range(seeds):
            for order in ORDERS[:-1]:
                for size, have in asked(order, items, y, 1000 * seed + row):
                    add((order, size, seed), row, note, have)
                    if order == "by_item":
                        add(("by_item_fair", size, seed), row, note, have, fair=True)
            for target in TARGETS:
                taking = AdaptiveTest(
                    judge.bundle.aptitude_test, items.prior, target, BATCH, seed=seed, available=answers
                )
                given: dict[str, bool] = {}
                while batch := taking.next_items(given):
                    given.update({item: answers[item] for item in batch})
                asked_count.setdefault((target, seed), []).append(len(given))
                add((target, seed), row, note, np.array([item in given for item in items.ids]))
    P = judge.probabilities(profiles)
    return {
        "orders": {
            order: {
                str(size): summary([judge.figures(P[:, place[order, size, seed]]) for seed in range(seeds)])
                for size in SIZES
            }
            for order in ORDERS
        },
        "stopping": {
            str(target): {
                "answers": {
                    "mean": round(float(np.mean([asked_count[target, seed] for seed in range(seeds)])), 1),
                    "least": int(np.min([asked_count[target, seed] for seed in range(seeds)])),
                    "most": int(np.max([asked_count[target, seed] for seed in range(seeds)])),
                },
                **summary([judge.figures(P[:, place[target, seed]]) for seed in range(seeds)]),
            }
            for target in TARGETS
        },
    }


def coverage(judge: Judge, items: Items) -> dict[str, Any]:
    """answers -> how often a range holds the whole profile's P, and how wide it is; random items, one seed."""
    rows = judge.split.new_rows.tolist()
    notes = [profile.notes for profile in profiles_from_outcomes(judge.data, judge.bundle.aptitude_test, rows)]
    profiles = [
        profile_of(items, judge.bundle, f"{row} {size}", note, items.Y[row], have, False)
        for row, note in zip(rows, notes, strict=True)
        for size, have in asked("random", items, items.Y[row], row)
    ]
    result: dict[str, Any] = {}
    with Engine.load(judge.bundle, zoo=profiles, mode="throughput") as engine:
        for level in LEVELS:
            decisions = [
                d
                for s in range(0, len(judge.texts), 8)
                for d in engine.route_many(judge.texts[s : s + 8], interval=level)
            ]
            of_level = {}
            for size in SIZES:
                inside, width = [], []
                for decision in decisions:
                    assert decision.intervals is not None
                    for row in rows:
                        low, high = decision.intervals[f"{row} {size}"]
                        inside.append(low <= decision.probabilities[f"{row} {SIZES[-1]}"] <= high)
                        width.append(high - low)
                of_level[str(size)] = {
                    "coverage": round(float(np.mean(inside)), 3),
                    "mean_width": round(float(np.mean(width)), 3),
                }
            result[str(level)] = of_level
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of real outcomes")
    parser.add_argument("--questions", type=int, default=800, help="test questions to judge on (default 800)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of every profile (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    bundle, data = Bundle.load(), OutcomeData.load(options.data)
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    judge, items = Judge(bundle, data, split, options.questions), Items(bundle, data, split)
    result = {
        "bundle": bundle.label,
        "machine": machine("numpy"),
        "questions": len(judge.columns),
        "models": len(split.new_rows),
        "seeds": options.seeds,
        **curves(judge, items, options.seeds),
        "coverage": coverage(judge, items),
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for kind in ("orders", "stopping", "coverage"):
        for name, value in result[kind].items():
            print(f"{kind} {name}: {json.dumps(value)}")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p) - np.log1p(-p))


if __name__ == "__main__":
    main()
