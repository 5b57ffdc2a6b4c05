"""Draws the committed sample of the quality guard: ids of questions and real outcomes on them, no text.

    python -m tests.quality.draw_sample OUTCOME_DIRECTORY

Questions: SIZE test questions of the shipped router's split, a sample that depends on ids only, so that it has the
benchmarks of the whole test set in their proportions. Models: every row that the router's record counts as seen or new.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from modelsat_engine.evaluation.outcomes import OutcomeData
from modelsat_engine.evaluation.run import recorded_split
from modelsat_engine.evaluation.scenarios import sample_of
from modelsat_engine.evaluation.splits import Split
from modelsat_engine.export.bundle import Bundle

SIZE = 300
SAMPLE = Path(__file__).with_name("sample.json")
SIGNS = {1: "1", 0: "0", -1: "-"}


def main(directory: str) -> None:
    bundle, data = Bundle.load(), OutcomeData.load(directory)
    split = Split.from_json(recorded_split(bundle), data, bundle.aptitude_test)
    columns = sample_of(data, split.test, SIZE)
    sample = {
        "about": "Real outcomes of real models on benchmark questions: 1 right, 0 wrong, - not available, in the order "
        "of the questions. Sources: TIGER-AI-Lab/MMLU-Pro evaluation results (Apache-2.0) and Open LLM Leaderboard v2 "
        "results, by way of PredictaBoard and CARROT. Drawn by tests/quality/draw_sample.py.",
        "questions": data.questions.id[columns].tolist(),
        "outcomes": {
            data.model_keys[row]: "".join(SIGNS[y] for y in data.Y[row, columns].tolist())
            for row in sorted([*split.seen_rows.tolist(), *split.new_rows.tolist()])
        },
    }
    SAMPLE.write_text(json.dumps(sample, indent=1) + "\n", encoding="utf-8")
    print(f"{len(columns)} questions, {len(sample['outcomes'])} models written to {SAMPLE}")


if __name__ == "__main__":
    main(sys.argv[1])
