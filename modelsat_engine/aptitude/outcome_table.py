"""Past outcomes of any question set: which model answered which item right, from npz, csv, jsonl or parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsat_engine.aptitude.importers.results import as_outcome
from modelsat_engine.aptitude.records import read_records
from modelsat_engine.errors import DataError

UNKNOWN, WRONG, RIGHT = -1, 0, 1

COLUMNS = {
    "model": ("model", "model_key", "model_name", "candidate"),
    "item": ("item", "item_id", "question_id", "id"),
    "correct": ("correct", "is_correct", "right", "outcome", "score"),
}


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """M models x Q items.

    Attributes:
        models, items: M and Q names, each unique.
        Y: int8 ``[M, Q]``: 1 right, 0 wrong, -1 not known.
    """

    models: tuple[str, ...]
    items: tuple[str, ...]
    Y: np.ndarray

    def for_items(self, items: Sequence[str]) -> np.ndarray:
        """int8 ``[M, len(items)]``: the outcomes of these items, -1 for one that the table lacks."""
        column_of = {item: column for column, item in enumerate(self.items)}
        columns = np.array([column_of.get(item, -1) for item in items], np.int64)
        found: np.ndarray = np.where(columns >= 0, self.Y[:, columns], np.int8(UNKNOWN))
        return found


def load_outcomes(paths: Iterable[str | Path]) -> OutcomeTable:
    """The outcomes in some files, joined by the names of models and items.

    Args:
        paths: npz files with the arrays ``Y`` int8 ``[M, Q]`` of 1, 0 and -1, ``models`` and ``questions`` (names);
            or tables (csv, tsv, jsonl, parquet) with a row per model and item and the columns model, item, correct.

    Raises:
        DataError: not readable, no outcome, a value that is none, or two outcomes for one model and item that differ;
            the message names the file, and the row where there is one.
    """
    tables = [_from_npz(path) if path.suffix.lower() == ".npz" else _from_table(path) for path in map(Path, paths)]
    if not any((table.Y != UNKNOWN).any() for _, table in tables):
        raise DataError("the files hold no outcome; each row or cell says whether a model answered an item right")
    models = tuple(dict.fromkeys(model for _, table in tables for model in table.models))
    items = tuple(dict.fromkeys(item for _, table in tables for item in table.items))
    row_of = {model: row for row, model in enumerate(models)}
    column_of = {item: column for column, item in enumerate(items)}
    Y = np.full((len(models), len(items)), UNKNOWN, np.int8)
    for path, table in tables:
        place = np.ix_([row_of[model] for model in table.models], [column_of[item] for item in table.items])
        before = Y[place]
        known = table.Y != UNKNOWN
        differ = np.argwhere(known & (before != UNKNOWN) & (before != table.Y))
        if len(differ):
            model, item = table.models[differ[0][0]], table.items[differ[0][1]]
            raise DataError(f"{path}: {model!r} answered {item!r} both right and wrong; keep one outcome")
        Y[place] = np.where(known, table.Y, before)
    return OutcomeTable(models, items, Y)


def _from_npz(path: Path) -> tuple[Path, OutcomeTable]:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            Y, models, items = archive["Y"], archive["models"].tolist(), archive["questions"].tolist()
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no panel of outcomes with the arrays Y, models and questions: {error}") from error
    if Y.shape != (len(models), len(items)):
        raise DataError(f"{path}: Y has shape {Y.shape}, but there are {len(models)} models, {len(items)} questions")
    if Y.dtype.kind not in "biu" or not np.isin(np.unique(Y), (UNKNOWN, WRONG, RIGHT)).all():
        raise DataError(f"{path}: Y must hold 1 (right), 0 (wrong) and -1 (not known) as whole numbers, not {Y.dtype}")
    for what, names in (("model", models), ("question", items)):
        if len(set(names)) != len(names):
            raise DataError(f"{path}: a {what} is named twice")
    return path, OutcomeTable(tuple(map(str, models)), tuple(map(str, items)), Y.astype(np.int8))


def _from_table(path: Path) -> tuple[Path, OutcomeTable]:
    known: dict[tuple[str, str], int] = {}
    for where, values in read_records(path):
        names = {str(name).strip().lower(): name for name in values}
        row: dict[str, Any] = {}
        for meaning, spellings in COLUMNS.items():
            row[meaning] = next((values[names[name]] for name in spellings if name in names), None)
            if row[meaning] is None or row[meaning] == "":
                raise DataError(f"{where}: no {meaning}; need the columns model, item and correct")
        key, outcome = (str(row["model"]), str(row["item"])), int(as_outcome(row["correct"], f"{where}, correct"))
        if known.setdefault(key, outcome) != outcome:
            raise DataError(f"{where}: {key[0]!r} answered {key[1]!r} both right and wrong; keep one outcome")
    models = {model: row for row, model in enumerate(dict.fromkeys(model for model, _ in known))}
    items = {item: column for column, item in enumerate(dict.fromkeys(item for _, item in known))}
    Y = np.full((len(models), len(items)), UNKNOWN, np.int8)
    for (model, item), outcome in known.items():
        Y[models[model], items[item]] = outcome
    return path, OutcomeTable(tuple(models), tuple(items), Y)
