"""How many graded answers of one's own traffic refine a zoo, and by how much.

    python benchmarks/refinement.py --data DIR [--json]

Seen and new models are dealt into zoos of five of similar strength. A log of so many answers, each of one instruction
by one of the five, refines a zoo, and other questions judge it. "known": traffic of kinds that the router was trained
on, the log out of one half of the test questions, judged on the other. "new": traffic of a dataset that it was never
trained on, the log out of one half of it, judged on the other; all such datasets, one after the other.

As `modelsat candidates refine` does it, a zoo stays as it is where held-out answers of the log are not predicted
clearly better; refined is the share that were. Figures are the mean over zoos and draws. auc and ece are over all pairs
of a zoo, auc_within and ece_within over those of one dataset at a time; ece_ideal and ece_within_ideal are what
probabilities would show that were right to the last digit, on so few pairs. gain is in points over the best single
model in hindsight.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _machine import machine

from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.evaluation.metrics import expected_calibration_error, pooled_auc, routed_accuracy
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scenarios import aptitude_accuracy
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.mixed_effects import Answers
from modelsat_engine.runtime.refinement import Axes, fit_axes, measure, predict_held_out, require_axes

ANSWERS = (0, 20, 50, 100, 200, 500, 1000, 2000, 5000)
ZOO_SIZE, DRAWS, SEED = 5, 5, 0


@dataclass(frozen=True, eq=False)
class Traffic:
    """What the router says of some questions, and what became of them: N questions, R models."""

    offset: np.ndarray  # float64 [N, R], logits
    features: np.ndarray  # float64 [N, A]
    outcomes: np.ndarray  # int8 [N, R]
    dataset: np.ndarray  # [N]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of real outcomes")
    parser.add_argument("--bundle", type=Path, help="the router; default: the shipped one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    bundle, data = Bundle.load(options.bundle), OutcomeData.load(options.data)
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    rows = np.concatenate([split.seen_rows, split.new_rows])
    strength = aptitude_accuracy(data, bundle.aptitude_test)[rows]
    results: dict[str, list[dict[str, float]]] = {"known": [], "new": []}
    for kind, columns in (("known", split.test), ("new", split.new_datasets)):
        traffic = measured(bundle, data, rows, columns, one_dataset=kind == "known")
        half = min(int((traffic.dataset == name).sum()) for name in set(traffic.dataset.tolist())) // 2
        for answers in (number for number in ANSWERS if number <= half * ZOO_SIZE):
            judged = [
                judge(require_axes(bundle), traffic, zoo, answers, np.random.default_rng([SEED, draw, *zoo.tolist()]))
                for draw in range(DRAWS)
                for zoo in deal(strength, np.random.default_rng([SEED, draw]))
            ]
            results[kind].append(
                {"answers": answers, **{key: float(np.nanmean([one[key] for one in judged])) for key in judged[0]}}
            )
            if not options.json:
                print(kind, "  ".join(f"{key} {value:.4g}" for key, value in results[kind][-1].items()), flush=True)
    if options.json:
        print(json.dumps({"bundle": bundle.label, "draws": DRAWS, "machine": machine(), "results": results}, indent=1))


def measured(bundle: Bundle, data: OutcomeData, rows: np.ndarray, columns: np.ndarray, one_dataset: bool) -> Traffic:
    """Some models on some questions."""
    texts = [data.questions.instruction[column] for column in columns.tolist()]
    offset, features = measure(bundle, profiles_from_outcomes(data, bundle.aptitude_test, rows), texts)
    questions = data.questions
    names = [f"{questions.benchmark[column]}/{questions.task[column]}" for column in columns.tolist()]
    dataset = np.array(["all"] * len(names) if one_dataset else names)
    return Traffic(offset, features, data.Y[rows][:, columns].T, dataset)


def deal(strength: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Zoos of similar strength: neighbours in an order by slightly shaken strength, every model in one of them."""
    order = np.argsort(strength + rng.normal(scale=0.02, size=len(strength)))
    zoos = len(order) // ZOO_SIZE
    spare = rng.permutation(len(order))[: len(order) - zoos * ZOO_SIZE]
    return np.split(np.delete(order, spare), zoos)


def judge(axes: Axes, traffic: Traffic, zoo: np.ndarray, answers: int, rng: np.random.Generator) -> dict[str, float]:
    """Refines a zoo, in each dataset by its own log, and judges it on the questions that are in no log."""
    offset, outcomes = traffic.offset[:, zoo], traffic.outcomes[:, zoo]
    logits, rest = offset.copy(), np.zeros(len(offset), bool)
    auc_within: list[float] = []
    within: list[float] = []
    within_ideal: list[float] = []
    refined: list[bool] = []
    for name in sorted(set(traffic.dataset.tolist())):
        place = rng.permutation(np.flatnonzero(traffic.dataset == name))
        log, others = place[: len(place) // 2], place[len(place) // 2 :]
        every = Answers.of_outcomes(outcomes[log])
        given = every[rng.permutation(len(every))[:answers]]
        if len(given):
            parts = axes, traffic.features[log], offset[log], given
            refined.append(predict_held_out(*parts)[0].better)
            if refined[-1]:
                logits[others] += traffic.features[others] @ fit_axes(*parts).total.T
        rest[others] = True
        auc_within.append(pooled_auc(logits[others], outcomes[others]))
        P = sigmoid(logits[others])
        within.append(expected_calibration_error(P, outcomes[others]))
        within_ideal.append(expected_calibration_error(P, as_predicted(P, outcomes[others], rng)))
    logits, outcomes = logits[rest], outcomes[rest]
    P = sigmoid(logits)
    routed = (outcomes >= 0).all(1)
    best = outcomes[routed].mean(0).max() if routed.any() else np.nan
    return {
        "refined": float(np.mean(refined)) if refined else 0.0,
        "auc": pooled_auc(logits, outcomes),
        "auc_within": float(np.nanmean(auc_within)),
        "ece": expected_calibration_error(P, outcomes),
        "ece_ideal": expected_calibration_error(P, as_predicted(P, outcomes, rng)),
        "ece_within": float(np.nanmean(within)),
        "ece_within_ideal": float(np.nanmean(within_ideal)),
        "gain": 100 * (routed_accuracy(logits[routed], outcomes[routed]) - best) if routed.any() else np.nan,
    }


def as_predicted(P: np.ndarray, outcomes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Outcomes as they would be if the probabilities were right, where there are any."""
    return np.where(outcomes >= 0, rng.random(P.shape) < P, -1)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities."""
    return np.asarray(1 / (1 + np.exp(-logits)))


if __name__ == "__main__":
    main()
