"""Results of the EleutherAI lm-evaluation-harness: `results_*.json` and, better, `samples_*.jsonl` (--log_samples).

A samples file has one JSON object per (question, filter): ``doc_id``, ``doc`` (the data set's row), ``target``,
``resps``, ``filtered_resps``, ``filter``, ``metrics``, ``doc_hash`` and the metrics themselves, such as ``acc`` or
``exact_match``. A results file has ``results`` = {task: {"acc,none": ..., "acc_stderr,none": ...}}, with "n-samples"
= {task: {"original": ..., "effective": ...}}; harness 0.3 wrote "acc" without a filter and no sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.importers.names import is_group, split_task_name
from modelsat_engine.aptitude.importers.results import (
    CHAIN_OF_THOUGHT,
    LOG_LIKELIHOOD,
    ItemResult,
    Results,
    TaskResult,
    as_count,
    as_outcome,
    as_share,
    existing,
)
from modelsat_engine.aptitude.questions import parse_question
from modelsat_engine.aptitude.records import Record, parse_json, read_bytes, read_records
from modelsat_engine.errors import DataError

METRICS = ("acc", "exact_match", "acc_norm")
_SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+?))?\.jsonl(?:\.gz)?")


def looks_like(path: Path, head: Any) -> bool:
    """Whether a file, of which ``head`` is the first JSON value, or a folder, comes from the harness."""
    if path.is_dir():
        return any(True for _ in _folder(path))
    return isinstance(head, dict) and (
        isinstance(head.get("results"), dict) or ("doc_id" in head and isinstance(head.get("doc"), dict))
    )


def read(
    paths: Iterable[str | Path],
    *,
    metric: str | None = None,
    filter_name: str | None = None,
    content: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Results:
    """Everything in some files and folders; of several runs of a task in one folder the latest.

    Args:
        metric: which metric says whether an answer is right; default the first there is of acc, exact_match,
            acc_norm.
        filter_name: which of the harness's answer filters counts; default the first in the file.
        content: whether to compute content hashes of the questions.
        progress: told the share of the files that are read.

    Raises:
        DataError: no such file, not of the harness, or a value that is no outcome; the message names file and row.
    """
    results = Results()
    files: list[Path] = []
    for path in existing(paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(_folder(path))
        folders = {file.parent for file in inside}
        if len(folders) > 1:
            names = ", ".join(sorted(folder.name for folder in folders)[:4])
            raise DataError(f"{path} holds results of {len(folders)} models ({names}); name the folder of one")
        if not inside:
            raise DataError(f"{path} holds no results_*.json and no samples_*.jsonl")
        latest = _latest(inside)
        if len(latest) < len(inside):
            results.remarks.append(f"{len(inside) - len(latest)} files of earlier runs in {path} were left aside")
        files += latest
    for done, path in enumerate(files, start=1):
        name = path.name.removesuffix(".gz")
        read_one = _results_file if name.endswith(".json") else _samples_file
        results.extend(read_one(path, metric, filter_name, content))
        if progress is not None:
            progress(done / len(files))
    return results


def _folder(path: Path) -> Iterable[Path]:
    """The harness's files in a model's folder, or in the folder above, which holds one for each model."""
    for pattern in ("results_*.json", "samples_*.jsonl", "samples_*.jsonl.gz"):
        yield from path.glob(pattern)
        yield from path.glob(f"*/{pattern}")


def _latest(files: list[Path]) -> list[Path]:
    """One file per task (and one results file), the last by the date in its name; files come sorted."""
    last: dict[str, Path] = {}
    for file in files:
        named = _SAMPLES.fullmatch(file.name)
        last[named["task"] if named else ""] = file
    return sorted(last.values())


def _samples_file(path: Path, metric: str | None, filter_name: str | None, content: bool) -> Results:
    named = _SAMPLES.fullmatch(path.name)
    results = Results()
    skipped: dict[str, int] = {}
    chosen, used = filter_name, None
    for where, sample in read_records(path):
        doc = sample.get("doc")
        if "doc_id" not in sample or not isinstance(doc, dict):
            raise DataError(
                f"{where}: not a sample of the evaluation harness, which has doc_id and doc; "
                "choose another --format, or run the harness with --log_samples"
            )
        this = sample.get("filter")
        if this is not None:
            chosen = chosen or str(this)
            if this != chosen:
                skipped[str(this)] = skipped.get(str(this), 0) + 1
                continue
        used = _metric_of(sample, metric, where)
        task_name = str(sample.get("task_name") or (named["task"] if named else ""))
        benchmark, task = split_task_name(task_name)
        if benchmark is None and isinstance(doc.get("src"), str) and "question_id" in doc and "options" in doc:
            benchmark = "mmlu_pro"  # a renamed file: its rows still tell
        if benchmark == "mmlu" and isinstance(doc.get("subject"), str):
            task = doc["subject"]
        elif benchmark == "mmlu_pro" and isinstance(doc.get("category"), str):
            task = doc["category"]
        correct = as_outcome(sample[used], f"{where}, {used}")
        results.items.append(
            ItemResult(where, correct, _ids(benchmark, doc), _hash(where, doc) if content else None, task, benchmark)
        )
    if not results.items:
        raise DataError(
            f"{path} holds no sample" + (f" of the filter {chosen!r}; it has {', '.join(skipped)}" if skipped else "")
        )
    if skipped:
        others = ", ".join(f"{name} ({count:,})" for name, count in skipped.items())
        results.remarks.append(f"{path.name}: answers of the filter {chosen!r} count, those of {others} do not")
    results.protocol = _protocol(used or "", results.items[0].benchmark)
    return results


def _metric_of(sample: Mapping[str, Any], metric: str | None, where: str) -> str:
    found = next((name for name in ((metric,) if metric else METRICS) if name in sample), None)
    if found is None:
        listed = sample.get("metrics")
        there = ", ".join(map(str, listed)) if isinstance(listed, list) else "none that is listed"
        raise DataError(f"{where}: no metric {metric or ', '.join(METRICS)}; it has {there}; choose one with --metric")
    return found


def _ids(benchmark: str | None, doc: Mapping[str, Any]) -> tuple[str, ...]:
    """A ``doc_id`` is a place in a file and no id: another version of the data set has other places."""
    names = [str(doc[key]) for key in ("question_id", "id") if isinstance(doc.get(key), (str, int))]
    return tuple(f"{benchmark}/{name}" for name in names if benchmark) + tuple(names)


def _hash(where: str, doc: Mapping[str, Any]) -> str | None:
    try:
        return parse_question(Record(where, dict(doc))).hash
    except DataError:
        return None  # a data set of another shape: its questions have no content we can compare


def _protocol(metric: str, benchmark: str | None) -> str | None:
    if metric.startswith("acc"):
        return LOG_LIKELIHOOD
    return CHAIN_OF_THOUGHT if metric == "exact_match" and benchmark == "mmlu_pro" else None


def _results_file(path: Path, metric: str | None, filter_name: str | None, content: bool) -> Results:
    value = parse_json(read_bytes(path), str(path))
    if not isinstance(value, dict) or not isinstance(value.get("results"), dict):
        raise DataError(f"{path} is no results file of the evaluation harness: it has no object 'results'")
    results = Results(model=_model(value))
    groups = value.get("group_subtasks")
    for name, scores in value["results"].items():
        benchmark, task = split_task_name(name.lstrip("- "))
        if is_group(benchmark, task) or (isinstance(groups, dict) and groups.get(name)):
            continue  # the sum of tasks that are listed themselves, or nothing that a test could use
        where = f"{path}, {name}"
        if not isinstance(scores, dict):
            raise DataError(f"{where}: need an object of metrics, not {type(scores).__name__}")
        key = _score_key(scores, metric, filter_name)
        if key is None:
            there = ", ".join(key for key in scores if "stderr" not in key and key != "alias")
            results.remarks.append(f"{name} has no metric {metric or ' or '.join(METRICS)} (it has {there or 'none'})")
            continue
        accuracy = as_share(scores[key], where, key)
        total = _size(value, name, scores, key, accuracy, where)
        if total is None:
            results.remarks.append(f"{name} does not say over how many questions, so it says nothing")
            continue
        results.tasks.append(TaskResult(where, task or name, accuracy, total, benchmark))
        results.protocol = results.protocol or _protocol(key.partition(",")[0], benchmark)
    if not results.tasks and not results.remarks:
        raise DataError(f"{path} holds no task with an accuracy, only sums over tasks; import the samples files")
    return results


def _score_key(scores: Mapping[str, Any], metric: str | None, filter_name: str | None) -> str | None:
    for name in (metric,) if metric else METRICS:
        for key in scores:
            if key == name or (key.startswith(f"{name},") and (not filter_name or key == f"{name},{filter_name}")):
                return key
    return None


def _size(
    value: Mapping[str, Any], name: str, scores: Mapping[str, Any], key: str, accuracy: float, where: str
) -> int | None:
    """How many questions an accuracy is over: as the file says, or from its standard error.

    The harness's standard error of a mean of 0 and 1 is sqrt(a (1 - a) / (n - 1)), which gives n back.
    """
    sizes = value.get("n-samples")
    entry = sizes.get(name) if isinstance(sizes, dict) else None
    if isinstance(entry, dict):
        return as_count(entry.get("effective", entry.get("original")), where, "n-samples") or None
    for field in ("sample_len", "samples"):
        if field in scores:
            return as_count(scores[field], where, field) or None
    metric, _, filter_name = key.partition(",")
    error = scores.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else ""))
    if isinstance(error, float) and math.isfinite(error) and error > 0 and 0 < accuracy < 1:
        return round(accuracy * (1 - accuracy) / error**2) + 1
    return None


def _model(value: Mapping[str, Any]) -> str | None:
    if isinstance(value.get("model_name"), str) and value["model_name"]:
        return str(value["model_name"])
    config = value.get("config")
    arguments = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(arguments, dict):
        name = arguments.get("pretrained") or arguments.get("model")
        return str(name) if name else None
    found = re.search(r"(?:pretrained|model)=([^,]+)", arguments) if isinstance(arguments, str) else None
    return found[1] if found else None
