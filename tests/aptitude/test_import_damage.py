"""Whatever is broken in a file of results, the reader gives results or one clear error, and never falls over."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsat_engine.aptitude.importers import RESULT_FORMATS, read_results
from modelsat_engine.aptitude.importers.conversion import profile_from_results
from modelsat_engine.aptitude.item_matching import ItemMatcher
from modelsat_engine.aptitude.questions import load_questions
from modelsat_engine.errors import ModelSatError
from tests.aptitude.result_files import (
    SUBJECTS,
    helm_instance,
    helm_stats,
    lm_eval_results,
    mmlu_sample,
    pro_sample,
    pro_test,
    question,
)

TEST = pro_test(hashes=True)
STATE = {
    "request_states": [
        {
            "instance": helm_instance("id3", question(3)),
            "train_trial_index": 0,
            "output_mapping": {"A": "3 plus 0"},
            "result": {"completions": [{"text": " A"}]},
        }
    ]
}
FILES: dict[str, Any] = {
    "samples_mmlu_pro_health.jsonl": pro_sample(3, 1.0),
    "samples_mmlu_anatomy.jsonl": mmlu_sample(3, "anatomy", 1.0),
    "results_1.json": lm_eval_results({f"mmlu_{s}": (0.5, 150) for s in SUBJECTS}),
    "per_instance_stats.json": [helm_stats("id3", 1.0), helm_stats("id4", 0.0)],
    "scenario_state.json": STATE,
    "rows.jsonl": {"item": "mmlu_pro/3", "correct": 1, "task": "anatomy", "total": 3, "model": "m"},
    "questions.jsonl": {"id": 3, "question": "Which?", "options": ["a", "b"], "answer": "B", "task": "t"},
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["A", "id3", "mmlu:subject=", "1", "nan", "\ud800", "test"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def damaged(value: Any, choose: Callable[[int], int], replacement: Any) -> Any:
    """A copy in which one entry, somewhere, is replaced or (by a list that is empty) left out."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[choose(len(keys))]
        if isinstance(place[key], (dict, list)) and place[key] and choose(3):
            place = place[key]
            continue
        if replacement == []:
            del place[key]
        else:
            place[key] = replacement
        return value


def attempt(path: Path, format_name: str | None) -> None:
    """Read and convert; a ModelSatError is an answer, any other exception is not."""
    with contextlib.suppress(ModelSatError):
        if path.name.startswith("questions"):
            load_questions(path)
            return
        results, _ = read_results([path], format_name)
        profile_from_results("m", TEST, results, ItemMatcher(TEST), as_is=True)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data(), VALUES, st.sampled_from([None, *RESULT_FORMATS]))
def test_a_wrong_value_anywhere_is_an_error_or_is_nothing(
    name: str, data: st.DataObject, replacement: Any, format_name: str | None
) -> None:
    value = damaged(FILES[name], lambda count: data.draw(st.integers(0, count - 1)), replacement)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(json.dumps(value) + "\n", encoding="utf-8")
        attempt(path, format_name)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_cut_anywhere_is_an_error_or_is_nothing(name: str, tmp_path: Path) -> None:
    content = json.dumps(FILES[name]).encode()
    for end in range(0, len(content), 37):
        (tmp_path / name).write_bytes(content[:end])
        attempt(tmp_path / name, None)
    (tmp_path / name).write_bytes(content[: len(content) // 2] + b"\xff\x00\xfe" + content[len(content) // 2 :])
    attempt(tmp_path / name, None)
