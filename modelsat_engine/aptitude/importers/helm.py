"""Results of Stanford's HELM: a run's folder, its `per_instance_stats.json`, or its `scenario_state.json`.

``per_instance_stats.json`` is a list of {"instance_id": "id70", "train_trial_index": 0, "stats": [{"name": {"name":
"exact_match", "split": "test"}, "count": 1, "sum": 1, ...}]}, with "perturbation" where the question was altered.
Beside it lie ``instances.json`` (the questions: "input", "references" with the tag "correct", "id") and
``run_spec.json`` ("name": "mmlu:subject=anatomy,method=...,model=..."). ``scenario_state.json`` holds the model's
outputs, which are graded here when there is no ``per_instance_stats.json`` and the answers were letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.importers.results import (
    CHAIN_OF_THOUGHT,
    ItemResult,
    Results,
    as_outcome,
    existing,
)
from modelsat_engine.aptitude.questions import LETTERS, MAX_TEXT_CHARACTERS, Question
from modelsat_engine.aptitude.records import parse_json, read_bytes
from modelsat_engine.errors import DataError

STATS, INSTANCES, SPEC, STATE = "per_instance_stats.json", "instances.json", "run_spec.json", "scenario_state.json"
METRICS = ("chain_of_thought_correctness", "exact_match", "quasi_exact_match", "prefix_exact_match")
EVALUATED = ("test", "valid", None)


def looks_like(path: Path, head: Any) -> bool:
    """Whether a file, of which ``head`` is the first JSON value, or a folder, comes from HELM."""
    if path.is_dir():
        return any(True for _ in _runs(path))
    if isinstance(head, list) and head:
        return isinstance(head[0], dict) and "instance_id" in head[0] and "stats" in head[0]
    return isinstance(head, dict) and "request_states" in head


def read(
    paths: Iterable[str | Path],
    *,
    metric: str | None = None,
    content: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Results:
    """Everything in some runs.

    Args:
        paths: run folders, folders of run folders, or one of the two files named above.
        metric: which statistic says whether an answer is right; default the first there is of
            chain_of_thought_correctness, exact_match, quasi_exact_match, prefix_exact_match.
        content: whether to compute content hashes, from ``instances.json``.
        progress: told the share of the runs that are read.

    Raises:
        DataError: no such file, not of HELM, or a value that is no outcome; the message names file and entry.
    """
    results = Results()
    files: list[Path] = []
    for path in existing(paths):
        inside = sorted(_runs(path)) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no {STATS} and no {STATE}")
        files += inside
    for done, file in enumerate(files, start=1):
        results.extend(_run(file, metric, content))
        if progress is not None:
            progress(done / len(files))
    return results


def _runs(path: Path) -> Iterator[Path]:
    """The files that hold a run's answers, in a run's folder, a suite's, or the one of all suites."""
    for file in (file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*.json*")):
        name = file.name.removesuffix(".gz")
        if name == STATS or (name == STATE and _beside(file, STATS) is None):
            yield file


def _beside(file: Path, name: str) -> Path | None:
    return next((other for other in (file.with_name(name), file.with_name(f"{name}.gz")) if other.is_file()), None)


def _run(file: Path, metric: str | None, content: bool) -> Results:
    value = parse_json(read_bytes(file), str(file))
    spec_file = _beside(file, SPEC)
    spec = parse_json(read_bytes(spec_file), str(spec_file)) if spec_file else {}
    name = spec.get("name") if isinstance(spec, dict) else None
    run_name = name if isinstance(name, str) else file.parent.name
    benchmark, options = _run_name(run_name)
    task = options.get("subject")
    results = Results(model=options.get("model"))
    if isinstance(value, dict) and isinstance(value.get("request_states"), list):
        outcomes = _from_state(file, value["request_states"])
        instances: Any = [state.get("instance") for state in value["request_states"] if isinstance(state, dict)]
        used = "exact_match"
    else:
        outcomes, used = _from_stats(file, value, metric, results)
        beside = _beside(file, INSTANCES) if content else None
        instances = parse_json(read_bytes(beside), str(beside)) if beside else []
    hashes = _hashes(instances) if content else {}
    for where, instance, correct in outcomes:
        results.items.append(
            ItemResult(where, correct, _ids(benchmark, instance), hashes.get(instance), task, benchmark)
        )
    if not results.items:
        raise DataError(f"{file} holds no graded, unaltered question of the test split")
    if used == "chain_of_thought_correctness":
        results.protocol = CHAIN_OF_THOUGHT
    return results


def _run_name(name: str) -> tuple[str | None, dict[str, str]]:
    """("mmlu", {"subject": "anatomy", ...}) of "mmlu:subject=anatomy,method=...,model=openai_gpt2"."""
    scenario, separator, rest = name.partition(":")
    if not separator and "," not in name:
        return None, {}
    options = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
    return scenario or None, options


def _ids(benchmark: str | None, instance: str) -> tuple[str, ...]:
    """HELM numbers instances by their place, except where the scenario names them, as the one of MMLU-Pro does."""
    number = re.fullmatch(r"id(\d+)", instance)
    if number is None:
        return (instance,)
    return (f"mmlu_pro/{number[1]}", number[1]) if benchmark == "mmlu_pro" else ()


def _from_stats(
    file: Path, value: Any, metric: str | None, results: Results
) -> tuple[list[tuple[str, str, bool]], str]:
    if not isinstance(value, list):
        raise DataError(f"{file}: need the list of {STATS}, not {type(value).__name__}")
    found: dict[str, list[tuple[str, str, Any]]] = {}
    altered, repeated = 0, 0
    for number, entry in enumerate(value, start=1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict) or "instance_id" not in entry or not isinstance(entry.get("stats"), list):
            raise DataError(f"{where}: need an object with instance_id and stats")
        if entry.get("perturbation"):
            altered += 1
            continue
        if entry.get("train_trial_index", 0) != 0:
            repeated += 1
            continue
        for stat in entry["stats"]:
            name = stat.get("name") if isinstance(stat, dict) else None
            if not isinstance(name, dict) or name.get("perturbation") or name.get("split") not in EVALUATED:
                continue
            if name.get("name") in ((metric,) if metric else METRICS):
                found.setdefault(name["name"], []).append((where, str(entry["instance_id"]), _value(stat)))
    if altered:
        results.remarks.append(f"{altered:,} answers to altered questions (perturbations) do not count")
    if repeated:
        results.remarks.append(f"{repeated:,} answers of repeated trials do not count, the first trial does")
    used = next((name for name in ((metric,) if metric else METRICS) if name in found), None)
    if used is None:
        raise DataError(f"{file}: no statistic {metric or ', '.join(METRICS)}; choose one with --metric")
    return [(where, item, as_outcome(score, f"{where}, {used}")) for where, item, score in found[used]], used


def _value(stat: Mapping[str, Any]) -> Any:
    count, total = stat.get("count"), stat.get("sum")
    if isinstance(count, int) and isinstance(total, (int, float)) and count > 0:
        return total / count
    return stat.get("mean")


def _from_state(file: Path, states: list[Any]) -> list[tuple[str, str, bool]]:
    """Grade letters: the output, mapped to an option's text, is one of the correct references."""
    outcomes = []
    for number, state in enumerate(states, start=1):
        where = f"{file}, request {number}"
        try:
            instance = state["instance"]
            if instance.get("perturbation") or state.get("train_trial_index", 0) != 0:
                continue
            if instance.get("split") not in EVALUATED:
                continue
            mapping = state["output_mapping"]
            text = state["result"]["completions"][0]["text"].strip()
            right = [_output(reference) for reference in instance["references"] if "correct" in reference["tags"]]
            outcomes.append((where, str(instance["id"]), mapping.get(text) in right))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise DataError(
                f"{where}: no letter that can be graded (instance, output_mapping, result.completions); "
                f"import the run's {STATS} in its place"
            ) from None
    return outcomes


def _output(reference: Mapping[str, Any]) -> Any:
    """A reference's text: {"output": {"text": ...}}, or {"output": ...} in runs of 2022."""
    output = reference["output"]
    return output["text"] if isinstance(output, dict) else output


def _hashes(instances: Any) -> dict[str, str]:
    """instance id -> content hash, of the multiple-choice questions among some instances."""
    hashes: dict[str, str] = {}
    for instance in instances if isinstance(instances, list) else []:
        try:
            if instance.get("perturbation"):
                continue
            given = instance["input"]
            text = given["text"] if isinstance(given, dict) else given
            options = [_output(reference) for reference in instance["references"]]
            right = [i for i, reference in enumerate(instance["references"]) if "correct" in reference["tags"]]
            if not all(isinstance(part, str) for part in (text, *options)) or len(text) > MAX_TEXT_CHARACTERS:
                continue
            if len(right) != 1 or len(options) > len(LETTERS):
                continue
            hashes[str(instance["id"])] = Question("-", text, tuple(options), LETTERS[right[0]]).hash
        except (KeyError, TypeError, AttributeError):
            continue  # a question of another shape: it has no content we can compare
    return hashes
