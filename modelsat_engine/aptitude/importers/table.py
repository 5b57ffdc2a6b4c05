"""Results in a plain table: one row per (item, correct), or per (task, correct, total) or (task, accuracy, total).

The table may be csv, tsv, jsonl, a json list or parquet. A column `model` picks the rows of one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.importers.results import (
    ItemResult,
    Results,
    TaskResult,
    as_count,
    as_outcome,
    as_share,
    existing,
)
from modelsat_engine.aptitude.records import read_records
from modelsat_engine.errors import DataError

COLUMNS = {
    "item": ("item", "item_id", "question_id", "question", "id"),
    "task": ("task", "subject", "task_name"),
    "correct": ("correct", "is_correct", "right", "outcome", "score"),
    "total": ("total", "n", "count", "questions"),
    "accuracy": ("accuracy", "acc"),
    "model": ("model", "model_key", "model_name"),
}


def read(paths: Iterable[str | Path], *, model: str | None = None) -> Results:
    """Everything in some tables.

    Args:
        model: whose rows to take, where the table has a column `model`; it may be left out if there is one model.

    Raises:
        DataError: no such file, missing columns, rows of several models, or a value that is no outcome, count or
            share; the message names file and row.
    """
    results = Results()
    for path in existing(paths):
        results.extend(_table(path, model))
    return results


def _table(path: Path, model: str | None) -> Results:
    results = Results()
    others: set[str] = set()
    for where, values in read_records(path):
        row = _meanings(values)
        name = row.get("model")
        if name is not None:
            if model is not None and name != model:
                others.add(str(name))
                continue
            if results.model is not None and name != results.model:
                raise DataError(f"{where}: rows of {results.model!r} and {name!r}; choose one with --model")
            results.model = str(name)
        if "item" in row and "correct" in row:
            correct = as_outcome(row["correct"], f"{where}, correct")
            task = row.get("task")
            results.items.append(
                ItemResult(where, correct, (str(row["item"]),), task=None if task is None else str(task))
            )
        elif "task" in row and "total" in row and ("correct" in row or "accuracy" in row):
            results.tasks.append(_task(where, row))
        else:
            raise DataError(
                f"{where}: need the columns item and correct, or task, total and one of correct and accuracy; "
                f"the row has {', '.join(map(str, values)) or 'nothing'}"
            )
    if not results.items and not results.tasks:
        held = f"; it has {', '.join(sorted(others)[:5])}" if others else ""
        raise DataError(f"{path} has no row" + (f" of the model {model!r}{held}" if model else ""))
    return results


def _task(where: str, row: Mapping[str, Any]) -> TaskResult:
    task = str(row["task"])
    total = as_count(row["total"], where, "total")
    if "correct" not in row:
        return TaskResult(where, task, as_share(row["accuracy"], where, "accuracy"), total)
    correct = as_count(row["correct"], where, "correct")
    if correct > total:
        raise DataError(f"{where}: {correct} right of {total}; need 0 <= correct <= total")
    if total and "accuracy" in row and abs(as_share(row["accuracy"], where, "accuracy") - correct / total) > 0.01:
        raise DataError(f"{where}: {correct} right of {total} is no accuracy of {row['accuracy']}; which is it?")
    return TaskResult(where, task, correct / total if total else 0.0, total)


def _meanings(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {str(name).strip().lower(): name for name in values}
    row = {}
    for meaning, spellings in COLUMNS.items():
        value = next((values[names[spelling]] for spelling in spellings if spelling in names), None)
        if value is not None and value != "":
            row[meaning] = value
    return row
