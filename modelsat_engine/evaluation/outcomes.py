"""Real outcomes: which model answered which benchmark question right, read from a directory of result files."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.evaluation.model_names import family_of, normalised_name

MAIN_PANEL = "outcomes_mmlu_pro.npz"
OPEN_PANEL = "outcomes_bbh_math_ifeval_musr.npz"
GSM8K_PANEL = "outcomes_gsm8k.npz"
MAIN_BENCHMARK = "mmlu_pro"

UNKNOWN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True, eq=False)
class Questions:
    """The columns of the panel, Q questions.

    Attributes:
        id: str ``[Q]``, ``benchmark/...``, unique.
        benchmark: str ``[Q]``, one of mmlu_pro, bbh, math_l5, ifeval, musr, gsm8k.
        task: str ``[Q]``, the task inside the benchmark, such as ``ori_mmlu-anatomy``.
        instruction: the prompt texts, Q of them.
    """

    id: np.ndarray
    benchmark: np.ndarray
    task: np.ndarray
    instruction: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.instruction)


@dataclass(frozen=True, eq=False)
class OutcomeData:
    """M model rows x Q questions. A row is a model under one answering protocol.

    Attributes:
        questions: the Q columns.
        Y: int8 ``[M, Q]``: 1 right, 0 wrong, -1 not available.
        model_keys: M unique keys, ``protocol/organisation/model``.
        model_names: M clean names; the same model under two protocols has one name twice.
        families: M group names; rows of one family (same model, near-duplicates) share a side of every split.
        protocols: how the answers were obtained, in the source's words.
        usd_per_million_tokens: float32 ``[M]``, NaN where the price is unknown.
    """

    questions: Questions
    Y: np.ndarray
    model_keys: tuple[str, ...]
    model_names: tuple[str, ...]
    families: tuple[str, ...]
    protocols: tuple[str, ...]
    usd_per_million_tokens: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.model_keys), len(self.questions))
        if self.Y.shape != shape:
            raise DataError(
                f"outcomes have shape {self.Y.shape}, but there are {shape[0]} models and {shape[1]} questions"
            )
        if self.Y.dtype != np.int8 or not np.isin(np.unique(self.Y), (UNKNOWN, WRONG, RIGHT)).all():
            raise DataError("outcomes must be int8 and hold only 1 (right), 0 (wrong) and -1 (not available)")
        for what, values in (("model key", self.model_keys), ("question id", self.questions.id.tolist())):
            if len(set(values)) != len(values):
                raise DataError(f"a {what} occurs twice; each may occur once")

    @classmethod
    def load(cls, directory: str | Path) -> OutcomeData:
        """Read ``questions.parquet``, ``models.csv`` and the three ``outcomes_*.npz`` of a directory.

        The model rows are those with MMLU-Pro outcomes. Rows of the BBH/MATH/IFEval/MuSR panel join by key;
        GSM8K, which other people measured, joins where the normalised clean names are equal, and where a model
        was measured twice the protocol closest to the row's own is taken. Everything else stays -1.

        Raises:
            DataError: a file is missing or malformed; the message names it.
            MissingExtraError: pyarrow is not installed.
        """
        folder = Path(directory)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a directory; give the one that holds questions.parquet and models.csv")
        questions = _read_questions(folder / "questions.parquet")
        described = _read_models(folder / "models.csv")
        main = _read_panel(folder / MAIN_PANEL)
        others = _read_panel(folder / OPEN_PANEL)
        gsm8k = _read_panel(folder / GSM8K_PANEL)

        column_of = {name: column for column, name in enumerate(questions.id.tolist())}
        Y = np.full((len(main.models), len(questions)), UNKNOWN, np.int8)  # [M, Q]
        _place(Y, range(len(main.models)), main, range(len(main.models)), column_of)
        row_of = {key: row for row, key in enumerate(main.models)}
        joined = [key for key in others.models if key in row_of]
        _place(Y, [row_of[k] for k in joined], others, [others.models.index(k) for k in joined], column_of)

        records = [_record(described, "mmlu_pro", key, main.path) for key in main.models]
        names = [record["model"] for record in records]
        protocols = [record["protocol"] for record in records]
        gsm8k_records = [_record(described, "gsm8k", key, gsm8k.path) for key in gsm8k.models]
        matches = {row: _gsm8k_match(names[row], protocols[row], gsm8k_records) for row in range(len(names))}
        pairs = [(row, match) for row, match in matches.items() if match is not None]
        _place(Y, [row for row, _ in pairs], gsm8k, [match for _, match in pairs], column_of)
        prices = [_price(record["usd_per_million_tokens"], folder / "models.csv") for record in records]
        return cls(
            questions,
            Y,
            tuple(main.models),
            tuple(names),
            tuple(family_of(name) for name in names),
            tuple(protocols),
            np.array(prices, np.float32),
        )

    @cached_property
    def known(self) -> np.ndarray:
        """bool ``[M, Q]``: where an outcome is available."""
        known: np.ndarray = self.Y != UNKNOWN
        return known

    @cached_property
    def strength(self) -> np.ndarray:
        """float64 ``[M]``: accuracy on the known MMLU-Pro questions; NaN for a row without any."""
        columns = self.questions.benchmark == MAIN_BENCHMARK
        known = self.known[:, columns].sum(1)
        right = (self.Y[:, columns] == RIGHT).sum(1)
        strength: np.ndarray = np.where(known > 0, right / np.maximum(known, 1), np.nan)
        return strength

    def rows(self, model_keys: Iterable[str]) -> np.ndarray:
        """int64 row numbers of model keys.

        Raises:
            DataError: a key is not in the data.
        """
        index = {key: row for row, key in enumerate(self.model_keys)}
        return _lookup(index, model_keys, "model")

    def columns(self, question_ids: Iterable[str]) -> np.ndarray:
        """int64 column numbers of question ids.

        Raises:
            DataError: an id is not in the data.
        """
        return _lookup(self._column_of, question_ids, "question")

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.questions.id.tolist())}


@dataclass(frozen=True, eq=False)
class _Panel:
    path: Path
    Y: np.ndarray
    models: list[str]
    questions: list[str]


def _read_questions(path: Path) -> Questions:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("reading benchmark questions", "evaluate") from error
    columns = ["id", "benchmark", "task", "instruction"]
    try:
        table = parquet.read_table(_existing(path), columns=columns).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file of questions: {error}") from error
    for column in columns:
        if column not in table:
            raise DataError(f"{path} lacks the column {column!r}; need {', '.join(columns)}")
        if any(not isinstance(value, str) for value in table[column]):
            raise DataError(f"{path}: column {column!r} has entries that are not text")
    return Questions(
        np.array(table["id"], str),
        np.array(table["benchmark"], str),
        np.array(table["task"], str),
        tuple(table["instruction"]),
    )


def _read_models(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(_existing(path), encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        needed = {"panel", "model_key", "model", "protocol", "usd_per_million_tokens"}
        missing = sorted(needed - set(reader.fieldnames or ()))
        if missing:
            raise DataError(f"{path} lacks the column {missing[0]!r}")
        return {(record["panel"], record["model_key"]): record for record in reader}


def _read_panel(path: Path) -> _Panel:
    try:
        with np.load(_existing(path), allow_pickle=False) as archive:
            Y, models, questions = archive["Y"], archive["models"].tolist(), archive["questions"].tolist()
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a panel of outcomes with the arrays Y, models, questions: {error}") from error
    if Y.shape != (len(models), len(questions)):
        raise DataError(
            f"{path}: Y has shape {Y.shape}, but there are {len(models)} models, {len(questions)} questions"
        )
    return _Panel(path, Y, models, questions)


def _place(
    Y: np.ndarray, rows: Sequence[int], panel: _Panel, panel_rows: Sequence[int], column_of: dict[str, int]
) -> None:
    """Copy a panel's rows into their place in the joined panel, in place."""
    unknown = [question for question in panel.questions if question not in column_of]
    if unknown:
        raise DataError(f"{panel.path}: question {unknown[0]!r} is not in questions.parquet ({len(unknown)} such)")
    if rows:
        columns = [column_of[question] for question in panel.questions]
        Y[np.ix_(list(rows), columns)] = panel.Y[list(panel_rows)]


def _record(described: dict[tuple[str, str], dict[str, str]], panel: str, key: str, path: Path) -> dict[str, str]:
    try:
        return described[panel, key]
    except KeyError:
        raise DataError(f"{path}: model {key!r} is not described in models.csv (panel {panel})") from None


def _gsm8k_match(name: str, protocol: str, records: list[dict[str, str]]) -> int | None:
    """The GSM8K row of a model, or None; GSM8K is always generated, so only the harness can match closer."""
    equal = [row for row, record in enumerate(records) if normalised_name(record["model"]) == normalised_name(name)]
    if not equal:
        return None
    wanted = "CoT" if "CoT" in protocol else "lm-eval"
    return min(
        equal, key=lambda row: (wanted not in records[row]["protocol"], "CoT" not in records[row]["protocol"], row)
    )


def _price(text: str, path: Path) -> float:
    try:
        price = float(text) if text.strip() else np.nan
    except ValueError:
        raise DataError(f"{path}: {text!r} is not a price in US dollars") from None
    if price < 0 or np.isinf(price):
        raise DataError(f"{path}: {text!r} is not a price in US dollars")
    return price


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path.parent} has no file {path.name}; the directory must hold all outcome files")
    return path


def _lookup(index: dict[str, int], keys: Iterable[str], what: str) -> np.ndarray:
    try:
        return np.array([index[key] for key in keys], np.int64)
    except KeyError as error:
        raise DataError(f"{what} {error.args[0]!r} is not in the outcome data") from None
