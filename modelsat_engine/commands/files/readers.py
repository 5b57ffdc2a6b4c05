"""Reading instructions from txt, jsonl, csv and parquet, row by row in constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelsat_engine.commands.files.atomic import what_failed
from modelsat_engine.commands.files.rows import DEFAULT_FIELDS, Column, InstructionFile, Row
from modelsat_engine.errors import DataError

MAX_CSV_FIELD_BYTES = 1 << 28
PARQUET_ROWS_AT_ONCE = 1024
PEEKED_RECORDS = 100
EMPTY = "the instruction is empty"

INPUT_FORMATS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def open_instructions(
    path: Path, field: str | None = None, id_field: str | None = None, keep: Sequence[str] = ()
) -> InstructionFile:
    """The reader that fits the file's extension.

    Args:
        path: a .txt (one instruction a line), .jsonl, .csv, .tsv or .parquet file.
        field: the column with the instruction; None: the first of instruction, prompt, text, messages.
        id_field: a column to copy as `id`; None: the column `id`, if there is one.
        keep: more columns to copy.

    Raises:
        DataError: unknown extension, unreadable file, unknown column.
    """
    kind = INPUT_FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: the extension tells the format; use {', '.join(INPUT_FORMATS)}")
    if not path.is_file():
        raise DataError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    try:
        if kind == "txt":
            if field is not None or id_field is not None or keep:
                raise DataError(f"{path}: a text file has no columns; leave out --field, --id-field and --keep")
            return TextFile(path)
        if kind == "jsonl":
            return JsonLinesFile(path, field, id_field, keep)
        if kind == "parquet":
            return ParquetFile(path, field, id_field, keep)
        return CsvFile(path, field, id_field, keep, delimiter="\t" if kind == "tsv" else ",")
    except OSError as error:
        raise DataError(f"cannot read {path}: {what_failed(error)}") from error


class _LineFile(InstructionFile):
    """What the three line-based formats share: bytes of lines, with the share of the file read so far."""

    def lines(self) -> Iterator[bytes]:
        """The lines with their ends; a byte order mark is dropped."""
        try:
            with self.path.open("rb") as file:
                size = max(self.path.stat().st_size, 1)
                position = 0
                self.fraction = 0.0
                for line in file:
                    if position == 0:
                        line_bytes = len(line)
                        line = line.removeprefix(b"\xef\xbb\xbf")
                        position = line_bytes
                    else:
                        position += len(line)
                    self.fraction = min(position / size, 1.0)
                    yield line
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {what_failed(error)}") from error


class TextFile(_LineFile):
    """One instruction a line."""

    def rows(self) -> Iterator[Row]:
        for number, line in enumerate(self.lines(), start=1):
            where = f"line {number}"
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield Row(number, where, None, error=_not_utf8(error))
                continue
            yield Row(number, where, text) if text.strip() else Row(number, where, None, error=EMPTY)


class JsonLinesFile(_LineFile):
    """One JSON object a line; the instruction is text or a list of chat messages."""

    def __init__(self, path: Path, field: str | None, id_field: str | None, keep: Sequence[str]) -> None:
        super().__init__(path)
        first: dict[str, Any] | None = None
        for number, line in enumerate(self.lines()):
            if number >= PEEKED_RECORDS:
                break
            record, _ = _parse_object(line)
            if record is not None:
                first = first or record
                if any(name in record for name in ([field] if field else DEFAULT_FIELDS)):
                    first = record
                    break
        if first is not None:
            self.choose_columns([Column(name) for name in first], field, id_field, keep, closed=False)
        else:  # no record to look at: every row, if any, is bad
            self.field = field or DEFAULT_FIELDS[0]
            self.id_column = Column(id_field) if id_field else None
            self.kept_columns = tuple(Column(name) for name in keep)

    def rows(self) -> Iterator[Row]:
        assert self.field is not None
        for number, line in enumerate(self.lines(), start=1):
            where = f"line {number}"
            record, error = _parse_object(line)
            if record is None:
                yield Row(number, where, None, kept=(None,) * len(self.kept_columns), error=error)
                continue
            value = record.get(self.field)
            instruction, error = _as_instruction(value, self.field, parse_json=False)
            if self.field not in record:
                error = f"no field {self.field!r}"
            yield Row(
                number,
                where,
                instruction,
                id=record.get(self.id_column.name) if self.id_column else None,
                kept=tuple(record.get(column.name) for column in self.kept_columns),
                error=error,
            )


class CsvFile(_LineFile):
    """Comma-separated (or tab-separated) values with a header line, quoted as in RFC 4180."""

    def __init__(
        self, path: Path, field: str | None, id_field: str | None, keep: Sequence[str], delimiter: str
    ) -> None:
        super().__init__(path)
        self._delimiter = delimiter
        self._header: list[str] = []
        for values, line, error in self._records():
            if error is not None:
                raise DataError(f"{path}, line {line}, the header: {error}")
            self._header = values
            break
        if self._header:
            self.choose_columns([Column(name) for name in self._header], field, id_field, keep, closed=True)

    def _records(self) -> Iterator[tuple[list[str], int, str | None]]:
        """(values, line number of the record's end, error) of every record, the header first."""

        def decoded() -> Iterator[str]:
            for line in self.lines():
                # bad bytes travel as lone surrogates, so that the record they stand in can be named
                yield line.decode("utf-8", errors="surrogateescape").replace("\0", "\ufffd")

        csv.field_size_limit(MAX_CSV_FIELD_BYTES)
        reader = csv.reader(decoded(), delimiter=self._delimiter, strict=True)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield [], reader.line_num, f"not valid CSV: {error}"
                continue
            if not values:  # a blank line
                continue
            bad = any("\udc80" <= character <= "\udcff" for value in values for character in value)
            yield values, reader.line_num, "bytes that are not valid UTF-8" if bad else None

    def rows(self) -> Iterator[Row]:
        records = self._records()
        next(records, None)
        if not self._header:
            return
        assert self.field is not None
        at = self._header.index(self.field)
        at_id = self._header.index(self.id_column.name) if self.id_column else None
        at_kept = [self._header.index(column.name) for column in self.kept_columns]
        for number, (values, line, error) in enumerate(records, start=1):
            where = f"row {number} (line {line})"
            if error is None and len(values) != len(self._header):
                error = f"{len(values)} fields, but {len(self._header)} in the header"
            if error is not None:
                yield Row(number, where, None, kept=(None,) * len(at_kept), error=error)
                continue
            instruction, error = _as_instruction(values[at], self.field, parse_json=True)
            yield Row(
                number,
                where,
                instruction,
                id=None if at_id is None else values[at_id],
                kept=tuple(values[i] for i in at_kept),
                error=error,
            )


class ParquetFile(InstructionFile):
    """A parquet file; the instruction is a text column or a list of {role, content} structs."""

    def __init__(self, path: Path, field: str | None, id_field: str | None, keep: Sequence[str]) -> None:
        super().__init__(path)
        with self._open() as file:
            schema = file.schema_arrow
        columns = [Column(entry.name, _plain_type(entry.type)) for entry in schema]
        self.choose_columns(columns, field, id_field, keep, closed=True)

    def _open(self) -> Any:
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self.path, memory_map=False)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {what_failed(error)}") from error
        except Exception as error:  # pyarrow.ArrowInvalid: not parquet, cut short
            raise DataError(f"{self.path} is not a readable parquet file: {error}") from error

    def rows(self) -> Iterator[Row]:
        assert self.field is not None
        copied = ([self.id_column] if self.id_column else []) + list(self.kept_columns)
        wanted = list(dict.fromkeys([self.field, *(column.name for column in copied)]))
        number = 0
        with self._open() as file:
            total = max(file.metadata.num_rows, 1)
            batches = file.iter_batches(PARQUET_ROWS_AT_ONCE, columns=wanted)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:  # a damaged page shows only when it is read
                    raise DataError(f"{self.path}: cannot read past row {number}: {error}") from error
                if batch is None:
                    return
                instructions = batch.column(self.field)
                values_of = [_values(batch.column(column.name)) for column in copied]
                for i in range(batch.num_rows):
                    number += 1
                    instruction, error_text = self._instruction(instructions[i])
                    values = tuple(column[i] for column in values_of)
                    yield Row(
                        number,
                        f"row {number}",
                        instruction,
                        id=values[0] if self.id_column else None,
                        kept=values[1:] if self.id_column else values,
                        error=error_text,
                    )
                self.fraction = number / total

    def _instruction(self, scalar: Any) -> tuple[Any, str | None]:
        assert self.field is not None
        try:
            value = scalar.as_py()
        except UnicodeDecodeError as error:
            return None, _not_utf8(error)
        return _as_instruction(value, self.field, parse_json=True)


def _plain_type(arrow_type: Any) -> Any:
    """A dictionary column is copied as the values it stands for."""
    import pyarrow

    return arrow_type.value_type if pyarrow.types.is_dictionary(arrow_type) else arrow_type


def _values(column: Any) -> list[Any]:
    """Arrow scalars where they keep what Python values cannot (nanoseconds), Python values for nested ones."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.to_pylist() if pyarrow.types.is_nested(column.type) else list(column)


def _parse_object(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        text = line.decode("utf-8")
        if not text.strip():
            return None, EMPTY
        record = json.loads(text)
    except UnicodeDecodeError as error:
        return None, _not_utf8(error)
    except json.JSONDecodeError as error:
        return None, f"not valid JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, 10,000 brackets
        return None, f"not valid JSON: {error}"
    if not isinstance(record, dict):
        return None, "not a JSON object"
    return record, None


def _as_instruction(value: Any, field: str, *, parse_json: bool) -> tuple[Any, str | None]:
    """The instruction in a cell, or why there is none. Text in a column `messages` may be a JSON list."""
    if value is None:
        return None, f"no {field!r}"
    if parse_json and field == "messages" and isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            return None, f"messages that are not valid JSON: {error}"
    if isinstance(value, str):
        return (value, None) if value.strip() else (None, EMPTY)
    if isinstance(value, list):
        return value, None
    return None, f"{field!r} is neither text nor a list of chat messages"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not valid UTF-8 (byte 0x{error.object[error.start]:02x} at byte {error.start + 1})"
