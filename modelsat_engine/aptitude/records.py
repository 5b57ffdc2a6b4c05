"""Rows of a table, whatever file they come in: jsonl, json, csv, tsv or parquet, any text format gzipped or not."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from modelsat_engine.errors import DataError, MissingExtraError

MAX_FILE_BYTES = 1 << 30  # read at once, after decompression: a small gz must not fill the memory
MAX_LINE_BYTES = 1 << 28
MAX_CSV_FIELD_BYTES = 1 << 26
PARQUET_ROWS_AT_ONCE = 1024
GZIP_MAGIC = b"\x1f\x8b"

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


class Record(NamedTuple):
    """One row.

    Attributes:
        where: where a person finds it, such as "questions.csv, row 7 (line 9)".
        values: column name -> value; text only in csv and tsv.
    """

    where: str
    values: dict[str, Any]


def read_records(path: str | Path) -> Iterator[Record]:
    """All rows in order.

    Args:
        path: a .jsonl, .ndjson, .json (a list of objects), .csv, .tsv or .parquet file; text formats may end
            in .gz as well.

    Raises:
        DataError: the file is missing, of another kind, cut short, or not UTF-8; the message names file and row.
        MissingExtraError: parquet without pyarrow.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "parquet":
        yield from _parquet(path)
        return
    if kind == "jsonl":
        yield from _json_lines(path)
    elif kind == "json":
        yield from _json_list(path, read_bytes(path))
    else:
        yield from _separated(path, read_bytes(path), "\t" if kind == "tsv" else ",")


def format_of(path: Path) -> str:
    """The format that the extension names, below .gz if there is one.

    Raises:
        DataError: an extension that is none of ours.
    """
    name = path.name.lower().removesuffix(".gz")
    kind = FORMATS.get(Path(name).suffix)
    if kind is None:
        raise DataError(f"{path}: the extension tells the format; use {', '.join(FORMATS)} (text formats also .gz)")
    return kind


def read_bytes(path: Path) -> bytes:
    """The file's content, decompressed when it is gzipped, whatever it is called.

    Raises:
        DataError: missing, a directory, unreadable, a broken gzip, or larger than 1 GiB.
    """
    with _opened(path) as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{path} holds more than {MAX_FILE_BYTES >> 30} GiB; split it, or make it jsonl")
    return content


def read_lines(path: Path) -> Iterator[bytes]:
    """The file's lines with their ends, one at a time, decompressed when it is gzipped.

    Raises:
        DataError: as :func:`read_bytes`, or a line longer than 256 MiB.
    """
    with _opened(path) as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MiB; is it jsonl at all?")
            yield line


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: not JSON, or not UTF-8; the message starts with ``where``.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not valid UTF-8 (byte 0x{error.object[error.start]:02x})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON, or cut short: {error}") from None
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, 10,000 brackets
        raise DataError(f"{where}: not valid JSON: {error}") from None


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        value = parse_json(line, where)
        if not isinstance(value, dict):
            raise DataError(f"{where}: need a JSON object, not {type(value).__name__}")
        yield Record(where, value)


def _json_list(path: Path, content: bytes) -> Iterator[Record]:
    value = parse_json(content, str(path))
    if not isinstance(value, list):
        raise DataError(f"{path}: need a list of JSON objects, not {type(value).__name__}")
    for number, entry in enumerate(value, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: need a JSON object, not {type(entry).__name__}")
        yield Record(where, entry)


def _separated(path: Path, content: bytes, delimiter: str) -> Iterator[Record]:
    # Bad bytes travel as lone surrogates, so that the row they stand in can be named.
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape").replace("\0", "\ufffd")
    csv.field_size_limit(MAX_CSV_FIELD_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
        if values is None:
            return
        if not values:  # a blank line
            continue
        where = f"{path}, row {number} (line {reader.line_num})" if header else f"{path}, the header"
        if any("\udc80" <= character <= "\udcff" for value in values for character in value):
            raise DataError(f"{where}: not valid UTF-8; save the file as UTF-8")
        if header is None:
            header = [value.strip() for value in values]
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}: the column {twice!r} stands twice in the header")
        else:
            if len(values) != len(header):
                raise DataError(f"{where}: {len(values)} fields, but {len(header)} in the header")
            yield Record(where, dict(zip(header, values, strict=True)))
        number += 1


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path}", "evaluate") from error
    if not path.is_file():
        raise DataError(f"cannot read {path}: it is not a file" if path.exists() else f"{path} does not exist")
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
            for batch in file.iter_batches(PARQUET_ROWS_AT_ONCE):
                for values in _rows_of(path, batch, row):
                    row += 1
                    yield Record(f"{path}, row {row}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file (after row {row}): {error}") from error


def _rows_of(path: Path, batch: Any, before: int) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows > 1:  # which row is it?
            return [
                row for index in range(batch.num_rows) for row in _rows_of(path, batch.slice(index, 1), before + index)
            ]
        raise DataError(f"{path}, row {before + 1}: text that is not valid UTF-8; repair the file") from None
    return rows
