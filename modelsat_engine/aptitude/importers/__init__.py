"""Results that people have already, read into one shape: the evaluation harness, HELM, plain tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.importers import helm, lm_eval, table
from modelsat_engine.aptitude.importers.results import Results, existing
from modelsat_engine.aptitude.records import FORMATS, read_bytes, read_lines
from modelsat_engine.errors import DataError

RESULT_FORMATS = ("lm-eval", "helm", "csv")


def read_results(
    paths: Sequence[str | Path],
    format_name: str | None = None,
    *,
    metric: str | None = None,
    filter_name: str | None = None,
    model: str | None = None,
    content: bool = True,
    progress: Callable[[float], None] | None = None,
) -> tuple[Results, str]:
    """(what some files and folders say about one model, the format they are in).

    Args:
        paths: files or folders, all of one format.
        format_name: one of RESULT_FORMATS; None to look.
        metric, filter_name: for lm-eval and helm, which metric and answer filter count.
        model: for csv, whose rows to take.
        content: whether to compute content hashes of the questions.
        progress: told the share of the files that are read, now and then.

    Raises:
        DataError: nothing to read, mixed formats, or what the format's reader refuses.
    """
    files = existing(paths)
    if not files:
        raise DataError("no file of results was named")
    chosen = format_name or _common_format(files)
    if chosen == "lm-eval":
        read = lm_eval.read(files, metric=metric, filter_name=filter_name, content=content, progress=progress)
        return read, chosen
    if chosen == "helm":
        return helm.read(files, metric=metric, content=content, progress=progress), chosen
    if chosen == "csv":
        return table.read(files, model=model), chosen
    raise DataError(f"there is no result format {chosen!r}; choose from {', '.join(RESULT_FORMATS)}")


def detect_format(path: Path) -> str:
    """The format of a file or folder, by what is in it.

    Raises:
        DataError: it is none of RESULT_FORMATS; the message says what each looks like.
    """
    head = None if path.is_dir() else _head(path)
    if lm_eval.looks_like(path, head):
        return "lm-eval"
    if helm.looks_like(path, head):
        return "helm"
    if path.is_file() and Path(path.name.lower().removesuffix(".gz")).suffix in FORMATS and not isinstance(head, dict):
        return "csv"
    if isinstance(head, dict) and not path.name.removesuffix(".gz").endswith(".json"):
        return "csv"  # a table in jsonl
    raise DataError(
        f"{path} is in no format known here: results_*.json or samples_*.jsonl of lm-eval, per_instance_stats.json "
        "of HELM, or a table with the columns item and correct, or task, correct and total; name one with --format"
    )


def _common_format(files: Sequence[Path]) -> str:
    formats = {detect_format(file): file for file in files}
    if len(formats) > 1:
        shown = ", ".join(f"{file} is {name}" for name, file in formats.items())
        raise DataError(f"the files are in {len(formats)} formats ({shown}); import one format at a time")
    return next(iter(formats))


def _head(path: Path) -> Any:
    """The first JSON value of a file: its first line, or all of it; None when it holds none."""
    if path.suffix.lower() == ".parquet":
        return None
    line = next((line for line in read_lines(path) if line.strip(b"\xef\xbb\xbf \r\n\t")), b"")
    first = _json_or_none(line)
    return _json_or_none(read_bytes(path)) if first is None and line.lstrip()[:1] in (b"{", b"[") else first


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
