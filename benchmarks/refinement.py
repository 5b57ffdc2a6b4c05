"""How many graded answers of one's own traffic refine a candidate, and by how much.

    python benchmarks/refinement.py --data DIR [--json]

New models, which the router knows by their aptitude profile alone, are refined by some answers to training questions,
drawn at random, and judged on the test questions. The same for seen models. Figures are the mean over draws.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine

from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scoring import score_predictions
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.refinement import fit, measure, require_axes

ANSWERS = (0, 50, 100, 200, 500, 1000, 2000, 5000, 12_104)
DRAWS = 3
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of real outcomes")
    parser.add_argument("--bundle", type=Path, help="the router; default: the shipped one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    bundle, data = Bundle.load(options.bundle), OutcomeData.load(options.data)
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    rows = np.concatenate([split.seen_rows, split.new_rows])
    columns = np.concatenate([split.train, split.test])
    texts = [data.questions.instruction[column] for column in columns.tolist()]
    offset, features = measure(bundle, profiles_from_outcomes(data, bundle.aptitude_test, rows), texts)
    variance = require_axes(bundle).prior_variance
    count = len(split.train)
    results = []
    for answers in (number for number in ANSWERS if number <= count):
        drawn = [
            _scored(data, split, bundle, rows, offset, features, variance, min(answers, count), SEED + draw)
            for draw in range(1 if answers in (0, count) else DRAWS)
        ]
        results.append({"answers": answers, **{key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}})
        if not options.json:
            print("  ".join(f"{key} {value:.4f}" for key, value in results[-1].items()), flush=True)
    if options.json:
        print(json.dumps({"bundle": bundle.label, "draws": DRAWS, "machine": machine(), "results": results}, indent=1))


def _scored(
    data: OutcomeData,
    split: Split,
    bundle: Bundle,
    rows: np.ndarray,
    offset: np.ndarray,
    features: np.ndarray,
    variance: np.ndarray,
    answers: int,
    seed: int,
) -> dict[str, float]:
    count = len(split.train)
    asked = np.random.default_rng(seed).permutation(count)[:answers]
    P = np.full((len(data.questions), len(data.model_keys)), np.nan, np.float32)
    for number, row in enumerate(rows.tolist()):
        outcomes = data.Y[row, split.train[asked]]
        known = asked[outcomes >= 0]
        theta = fit(features[known], offset[known, number], outcomes[outcomes >= 0], variance)
        P[split.test, row] = 1 / (1 + np.exp(-(offset[count:, number] + features[count:] @ theta)))
    scored: dict[str, Any] = score_predictions(
        P, data, split, bundle.aptitude_test, scenarios=["seen_models", "new_models"]
    )
    figures: dict[str, float] = {}
    for name, short in (("seen_models", "seen"), ("new_models", "new")):
        predicted = scored[name]["predictions"]["router"]
        choice = scored[name]["zoos"]["similar"]["choices"]["router"]
        figures |= {
            f"{short}_auc": predicted["auc"]["mean"],
            f"{short}_ece": predicted["ece"]["mean"],
            f"{short}_gain": 100 * choice["gain_over_best_single"]["mean"],
        }
    return figures


if __name__ == "__main__":
    main()
