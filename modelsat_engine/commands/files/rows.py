"""What a reader yields: one row of a file of instructions, good or bad."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsat_engine.errors import DataError

DEFAULT_FIELDS = ("instruction", "prompt", "text", "messages")
DEFAULT_ID_FIELD = "id"

Instruction = str | list[Any]


@dataclass(frozen=True)
class Column:
    """A column copied from the input: its name and, when the input is parquet, its Arrow type."""

    name: str
    arrow_type: Any = None  # None: text, as csv and jsonl have no types


@dataclass(frozen=True)
class Row:
    """One row of the input.

    Attributes:
        number: 1 for the first row of the file.
        where: where a person finds it ("line 7", "row 7").
        instruction: the text or the chat messages; None for a bad row.
        id: the value of the id column; None when there is none.
        kept: the values of the columns to copy, in their order.
        error: why the row cannot be scored; None for a good row.
    """

    number: int
    where: str
    instruction: Instruction | None
    id: Any = None
    kept: tuple[Any, ...] = ()
    error: str | None = None


class InstructionFile(abc.ABC):
    """A file of instructions that is read from the front, once or several times, in constant memory.

    Attributes:
        path: the file.
        field: the column of the instruction; None when the format has no columns or the file no rows.
        id_column, kept_columns: the columns copied to the output.
        names: all columns, of a .jsonl file those of its first record; empty when it has none.
        fraction: how much of the file the latest `rows()` has read, 0 to 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.field: str | None = None
        self.id_column: Column | None = None
        self.kept_columns: tuple[Column, ...] = ()
        self.names: tuple[str, ...] = ()
        self.fraction = 0.0

    @abc.abstractmethod
    def rows(self) -> Iterator[Row]:
        """All rows in order; a row that cannot be read is yielded with its error, not raised."""

    def choose_columns(
        self,
        columns: Sequence[Column],
        field: str | None,
        id_field: str | None,
        keep: Sequence[str],
        *,
        closed: bool,
    ) -> None:
        """Settle which columns hold the instruction, the id and what is copied.

        Args:
            columns: the columns of the file (of its first record, where records differ).
            field, id_field: as asked for; None: the usual names, where the file has them.
            keep: columns to copy.
            closed: the file has these columns and no others, so that an unknown name is an error now.

        Raises:
            DataError: a name is unknown or stands twice in the header; the message lists the columns.
        """
        names = [column.name for column in columns]
        self.names = tuple(names)
        by_name = {column.name: column for column in columns}

        def find(name: str) -> Column:
            if names.count(name) > 1:
                raise DataError(f"{self.path}: the column {name!r} stands {names.count(name)} times in the header")
            if name not in by_name:
                if closed:
                    raise DataError(f"{self.path} has no column {name!r}; its columns: {_listed(names)}")
                return Column(name)
            return by_name[name]

        if field is None:
            field = next((name for name in DEFAULT_FIELDS if name in by_name), None)
            if field is None:
                raise DataError(
                    f"{self.path}: no column is called {', '.join(DEFAULT_FIELDS[:-1])} or {DEFAULT_FIELDS[-1]}; "
                    f"name the one to score with --field (columns: {_listed(names)})"
                )
        self.field = find(field).name
        if id_field is not None:
            self.id_column = find(id_field)
        elif DEFAULT_ID_FIELD in by_name and self.field != DEFAULT_ID_FIELD:
            self.id_column = find(DEFAULT_ID_FIELD)
        self.kept_columns = tuple(find(name) for name in keep)


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
