"""Writing scores: the columns of an output file, and the three formats they are written in."""

from __future__ import annotations

import abc
import base64
import csv
import datetime
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from modelsat_engine.commands.files.rows import Column, InstructionFile, Row
from modelsat_engine.errors import DataError

PROBABILITY_PREFIX = "probability|"
MERGED_ROWS_PER_GROUP = 65_536
MERGED_CELLS_PER_GROUP = 8_000_000


@dataclass(frozen=True)
class OutputColumns:
    """What stands in an output file, in this order: row, id, kept columns, candidate, probability, one
    probability per candidate, error.

    Attributes:
        id: the copied id column, written as `id`; None when the input has none.
        kept: other copied columns, under their own names.
        candidates: the candidates' names, in the order of the probabilities.
    """

    id: Column | None
    kept: tuple[Column, ...]
    candidates: tuple[str, ...]

    @classmethod
    def of(cls, source: InstructionFile, candidates: Sequence[str]) -> OutputColumns:
        """Raises DataError when a kept column would carry the name of a result column."""
        columns = cls(source.id_column, source.kept_columns, tuple(candidates))
        names = columns.names()
        for column in source.kept_columns:
            if names.count(column.name) > 1:
                raise DataError(
                    f"--keep {column.name}: the output has a column of that name already; leave it out or rename it"
                )
        return columns

    def names(self) -> list[str]:
        """The flat column names, as csv and parquet have them."""
        return [
            "row",
            *(["id"] if self.id else []),
            *(column.name for column in self.kept),
            "candidate",
            "probability",
            *(PROBABILITY_PREFIX + name for name in self.candidates),
            "error",
        ]


@dataclass(frozen=True)
class ScoredRows:
    """Rows and what was found out about them.

    Attributes:
        rows: the input rows, bad ones included.
        errors: per row why it was not scored, or None.
        probabilities: float32 [rows, candidates]; the lines of bad rows mean nothing.
        choices: int64 [rows], the column the policy chose.
    """

    rows: Sequence[Row]
    errors: Sequence[str | None]
    probabilities: npt.NDArray[np.float32]
    choices: npt.NDArray[np.int64]

    @classmethod
    def concatenate(cls, pieces: Sequence[ScoredRows]) -> ScoredRows:
        """All rows of the pieces, one or more of them, in order."""
        return cls(
            [row for piece in pieces for row in piece.rows],
            [error for piece in pieces for error in piece.errors],
            np.concatenate([piece.probabilities for piece in pieces]),
            np.concatenate([piece.choices for piece in pieces]),
        )


class ResultFormat(abc.ABC):
    """One way to write scores: a part at a time, and the parts joined into one file."""

    extension: str

    @abc.abstractmethod
    def write(self, file: BinaryIO, scored: ScoredRows, columns: OutputColumns) -> None:
        """A complete file of these rows."""

    @abc.abstractmethod
    def join(self, file: BinaryIO, parts: Sequence[Path], columns: OutputColumns) -> None:
        """One file of all parts, in constant memory."""


class JsonLines(ResultFormat):
    """One JSON object a row; probabilities by name; kept values as they were."""

    extension = ".jsonl"

    def write(self, file: BinaryIO, scored: ScoredRows, columns: OutputColumns) -> None:
        table = _rounded(scored.probabilities)
        for i, row in enumerate(scored.rows):
            record: dict[str, Any] = {"row": row.number}
            if columns.id:
                record["id"] = plain(row.id)
            for column, value in zip(columns.kept, row.kept, strict=True):
                record[column.name] = plain(value)
            if scored.errors[i] is None:
                choice = int(scored.choices[i])
                record["candidate"] = columns.candidates[choice]
                record["probability"] = table[i][choice]
                record["probabilities"] = dict(zip(columns.candidates, table[i], strict=True))
            else:
                record.update(candidate=None, probability=None, probabilities=None)
            record["error"] = scored.errors[i]
            # lone surrogates, which JSON can carry and UTF-8 cannot, stay escaped
            line = json.dumps(record, ensure_ascii=False)
            try:
                file.write(line.encode() + b"\n")
            except UnicodeEncodeError:
                file.write(json.dumps(record).encode() + b"\n")

    def join(self, file: BinaryIO, parts: Sequence[Path], columns: OutputColumns) -> None:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)


class Csv(ResultFormat):
    """Comma-separated values with a header; what is not text is written as JSON."""

    extension = ".csv"

    def write(self, file: BinaryIO, scored: ScoredRows, columns: OutputColumns) -> None:
        file.write(self._lines([columns.names()]))
        table = _rounded(scored.probabilities)
        no_scores: list[Any] = [None] * (2 + len(columns.candidates))
        lines = []
        for i, row in enumerate(scored.rows):
            line: list[Any] = [row.number]
            if columns.id:
                line.append(as_text(row.id))
            line.extend(as_text(value) for value in row.kept)
            if scored.errors[i] is None:
                choice = int(scored.choices[i])
                line += [columns.candidates[choice], table[i][choice], *table[i]]
            else:
                line += no_scores
            line.append(scored.errors[i])
            lines.append(line)
        file.write(self._lines(lines))

    def join(self, file: BinaryIO, parts: Sequence[Path], columns: OutputColumns) -> None:
        header = self._lines([columns.names()])
        file.write(header)
        for part in parts:
            with part.open("rb") as source:
                source.seek(len(header))
                shutil.copyfileobj(source, file, 1 << 20)

    @staticmethod
    def _lines(lines: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue().encode("utf-8", errors="replace")


class Parquet(ResultFormat):
    """Columns with types; copied columns keep theirs when the input is parquet and are text otherwise."""

    extension = ".parquet"

    def write(self, file: BinaryIO, scored: ScoredRows, columns: OutputColumns) -> None:
        import pyarrow
        import pyarrow.parquet

        bad = np.array([error is not None for error in scored.errors], dtype=bool)
        arrays = [pyarrow.array([row.number for row in scored.rows], pyarrow.int64())]
        if columns.id:
            arrays.append(_arrow_array([row.id for row in scored.rows], columns.id))
        for k, column in enumerate(columns.kept):
            arrays.append(_arrow_array([row.kept[k] for row in scored.rows], column))
        chosen = [None if skip else columns.candidates[c] for skip, c in zip(bad, scored.choices, strict=True)]
        arrays.append(pyarrow.array(chosen, pyarrow.string()))
        picked = scored.probabilities[np.arange(len(scored.rows)), scored.choices]
        arrays.append(pyarrow.array(picked, pyarrow.float32(), mask=bad))
        for k in range(len(columns.candidates)):
            values = np.ascontiguousarray(scored.probabilities[:, k])
            arrays.append(pyarrow.array(values, pyarrow.float32(), mask=bad))
        arrays.append(pyarrow.array(scored.errors, pyarrow.string()))
        pyarrow.parquet.write_table(pyarrow.table(arrays, names=columns.names()), file)

    def join(self, file: BinaryIO, parts: Sequence[Path], columns: OutputColumns) -> None:
        import pyarrow
        import pyarrow.parquet

        # row groups large enough to read fast, small enough that ten thousand candidates fit in memory
        rows_per_group = min(MERGED_ROWS_PER_GROUP, max(1, MERGED_CELLS_PER_GROUP // len(columns.names())))
        writer: Any = None
        pending: list[Any] = []
        try:
            for part in parts:
                table = pyarrow.parquet.read_table(part)
                writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
                pending.append(table)
                if sum(held.num_rows for held in pending) >= rows_per_group:
                    writer.write_table(pyarrow.concat_tables(pending), row_group_size=rows_per_group)
                    pending = []
            if pending:
                writer.write_table(pyarrow.concat_tables(pending), row_group_size=rows_per_group)
        finally:
            if writer is not None:
                writer.close()


FORMATS: dict[str, ResultFormat] = {result.extension: result for result in (Parquet(), JsonLines(), Csv())}


def result_format(path: Path) -> ResultFormat:
    """The format that the output's extension names; DataError for another one."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise DataError(f"{path}: the extension tells the format; use {', '.join(FORMATS)}")
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it: Arrow scalars as Python values, times in ISO 8601, bytes in base64."""
    if hasattr(value, "as_py"):
        value = _python_value(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def _python_value(scalar: Any) -> Any:
    """An Arrow scalar as a Python value; nanoseconds, which Python cannot hold, as text."""
    if getattr(scalar.type, "unit", None) == "ns":
        return scalar.cast("string").as_py()
    try:
        return scalar.as_py()
    except UnicodeDecodeError:  # a text column of another program's bytes
        return scalar.as_buffer().to_pybytes().decode("utf-8", errors="replace")


def as_text(value: Any) -> str | None:
    """A value for a column of text: text as it is, anything else as JSON."""
    value = plain(value)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _arrow_array(values: list[Any], column: Column) -> Any:
    import pyarrow

    if column.arrow_type is not None:
        return pyarrow.array(values, column.arrow_type)
    texts = [as_text(value) for value in values]
    return pyarrow.array(
        [None if text is None else text.encode("utf-8", errors="replace").decode() for text in texts],
        pyarrow.string(),
    )


def _rounded(probabilities: npt.NDArray[np.float32]) -> list[list[float]]:
    """Seven decimals: all that float32 knows, without the tail of its binary form."""
    rounded: list[list[float]] = np.round(probabilities.astype(np.float64), 7).tolist()
    return rounded
