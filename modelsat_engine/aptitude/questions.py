"""Questions with their answers, read from a file or a Hugging Face dataset: what an aptitude test is made of.

A test file names its items and never holds their text. Whoever builds a test, or lets an LLM take one, brings the
questions in a *question file* of one row per question:

    column    also called                              holds
    id        question_id, item_id, item, uid          unique; without the column, 16 digits of the content hash
    question  instruction, prompt, input, problem      the question
    options   choices, or one column each: A, B, C...  a list of texts; may stand in the question ("A. ...\\nB. ...")
    answer    gold, target, answerkey, label,          the right answer: a letter, an index from 0, the option's
              answer_index                             text, or, without options, the text itself
    task      subject, category                        what the question measures; may be missing

Upper and lower case do not matter in column names, and of several names the first one listed counts.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.files import sha256_hex
from modelsat_engine.aptitude.records import FORMATS, Record, parse_json, read_records
from modelsat_engine.errors import DataError

MAX_TEXT_CHARACTERS = 1 << 20
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

COLUMNS = {
    "id": ("id", "question_id", "item_id", "item", "uid"),
    "question": ("question", "instruction", "prompt", "input", "problem"),
    "options": ("options", "choices"),
    "answer": ("answer", "gold", "target", "answerkey", "label", "answer_index"),
    "task": ("task", "subject", "category"),
}
ANSWER_KINDS = ("auto", "letter", "index", "text")

_SURROGATE = re.compile("[\ud800-\udfff]")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.):]?")
_OPTION_LINE = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]+", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """One question and its right answer.

    Attributes:
        id: unique in its file.
        text: the question without its options.
        options: the answers to choose from, in order; empty when the answer is free text.
        answer: the letter of the right option ("A" is the first), or the text when there are no options.
        task: what it measures; None when the file does not say.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: str
    task: str | None = None

    @property
    def answer_index(self) -> int | None:
        """The place of the right option, 0 for the first; None without options."""
        return LETTERS.index(self.answer) if self.options else None

    @property
    def answer_text(self) -> str:
        """The right answer itself: the right option's text, or the free text."""
        return self.options[LETTERS.index(self.answer)] if self.options else self.answer

    @property
    def instruction(self) -> str:
        """The question as one text, each option on its own line after a letter and a full stop."""
        return "\n".join([self.text, *(f"{LETTERS[i]}. {option}" for i, option in enumerate(self.options))])

    @cached_property
    def hash(self) -> str:
        """sha256 of question, options in order and right answer, 64 hexadecimal digits; id and task do not count.

        Texts are compared in Unicode NFKC, without surrounding and with single white space, so that copies of one
        data set that went through csv, json and parquet agree.
        """
        return sha256_hex([plain(self.text), [plain(option) for option in self.options], plain(self.answer_text)])

    def __hash__(self) -> int:
        return hash(self.hash)


def plain(text: str) -> str:
    """The text as it is compared and hashed: Unicode NFKC, single white space."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def load_questions(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    answer_as: str = "auto",
    id_prefix: str = "",
    split: str = "test",
) -> list[Question]:
    """Every question of a file or of a Hugging Face dataset.

    Args:
        source: a .jsonl, .json, .csv, .tsv or .parquet file (text formats also gzipped), or, when no such file
            exists and the package `datasets` is installed, ``owner/name`` or ``owner/name:config``.
        columns: the file's own column names for ``id``, ``question``, ``options``, ``answer`` and ``task``, where
            they are not found by themselves.
        answer_as: how answers are written. ``auto`` takes whole numbers as an index from 0, a letter as a letter,
            other text as an option's text, and refuses text such as "2" that is an index and another option.
        id_prefix: put before every id, such as ``mmlu_pro/``.
        split: the part of a Hugging Face dataset.

    Returns:
        In the order of the file, at least one.

    Raises:
        DataError: not readable, no question, a missing column, or a bad row: text of the wrong type, empty, over
            1,048,576 characters or not UTF-8, an answer that is none of the options, an id that occurs twice.
            The message names the file and the row.
        MissingExtraError: parquet without pyarrow.
    """
    wanted = dict(columns or {})
    unknown = sorted(wanted.keys() - COLUMNS.keys())
    if unknown:
        raise DataError(f"there is no column {unknown[0]!r} to rename; choose from {', '.join(COLUMNS)}")
    if answer_as not in ANSWER_KINDS:
        raise DataError(f"answers cannot be written as {answer_as!r}; choose from {', '.join(ANSWER_KINDS)}")
    questions: list[Question] = []
    first_seen: dict[str, str] = {}
    for record in _records(source, split):
        question = parse_question(record, wanted, answer_as, id_prefix)
        if question.id in first_seen:
            raise DataError(
                f"{record.where}: the id {question.id!r} was used before ({first_seen[question.id]}); ids must be "
                "unique"
            )
        first_seen[question.id] = record.where.removeprefix(f"{source}, ")
        questions.append(question)
    if not questions:
        raise DataError(f"{source} holds no question")
    return questions


def parse_question(
    record: Record, columns: Mapping[str, str] | None = None, answer_as: str = "auto", id_prefix: str = ""
) -> Question:
    """The question in one row; the arguments and errors are those of :func:`load_questions`."""
    row = _Row(record, columns or {})
    where = record.where
    text = _text(row.need("question"), where, "the question")
    options, labels = _options(row.get("options"), where)
    if not options:
        options = tuple(_text(value, where, f"option {letter}") for letter, value in row.lettered())
    value = row.need("answer")
    if options:
        answer = _choice(value, options, labels, answer_as, where)
    else:
        answer = _free_text(value, where)
        text, options, answer = _split_options(text, answer)
    task = row.get("task")
    if task is not None:
        task = _text(task, where, "the task") if not isinstance(task, float) else None  # NaN: pandas' None
    given = row.get("id")
    name = _identifier(given, where) if given is not None else ""
    question = Question(name, text, options, answer, task)
    return Question(id_prefix + (name or question.hash[:16]), text, options, answer, task)


class _Row:
    """One row, asked by what a column means."""

    def __init__(self, record: Record, columns: Mapping[str, str]) -> None:
        self._record = record
        self._columns = columns
        self._name_of = {name.strip().lower(): name for name in reversed(record.values)}

    def get(self, meaning: str) -> Any:
        """The value, or None where the row has none."""
        if meaning in self._columns:
            name = self._columns[meaning]
            if name not in self._record.values:
                raise DataError(f"{self._record.where}: no column {name!r}; the row has {self._names()}")
            return self._filled(name)
        names = [self._name_of[name] for name in COLUMNS[meaning] if name in self._name_of]
        return next((value for name in names if (value := self._filled(name)) is not None), None)

    def _filled(self, name: str) -> Any:
        value = self._record.values[name]
        return None if value == "" else value  # csv has no other way to leave a cell out

    def need(self, meaning: str) -> Any:
        value = self.get(meaning)
        if value is not None:
            return value
        names = [self._columns[meaning]] if meaning in self._columns else list(COLUMNS[meaning])
        there = [name for name in names if name.lower() in self._name_of]
        if there:
            raise DataError(f"{self._record.where}: the {meaning} in column {there[0]!r} is empty")
        raise DataError(
            f"{self._record.where}: no {meaning}; need a column {' or '.join(names)}, the row has {self._names()}"
        )

    def lettered(self) -> Iterator[tuple[str, Any]]:
        """Options in columns of their own: A, B, C, as far as they go."""
        for letter in LETTERS:
            value = self._record.values.get(letter)
            if value is None or value == "":
                return
            yield letter, value

    def _names(self) -> str:
        names = [str(name) for name in self._record.values]
        return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str):
        shown = "NaN" if isinstance(value, float) and math.isnan(value) else type(value).__name__
        raise DataError(f"{where}: {what} must be text, not {shown}")
    if not value.strip():
        raise DataError(f"{where}: {what} is empty")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise DataError(
            f"{where}: {what} has {len(value):,} characters, more than {MAX_TEXT_CHARACTERS:,}; is it the right column?"
        )
    if _SURROGATE.search(value):
        raise DataError(f"{where}: {what} holds half a surrogate pair, which is not text; repair the file")
    return value.strip()


def _identifier(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        shown = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
        raise DataError(f"{where}: the id must be text or a whole number, not {shown}")
    return _text(str(value), where, "the id")


def _options(value: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(options, their labels where the file gives some); both empty when there are no options."""
    labels: tuple[str, ...] = ()
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            raise DataError(f'{where}: options must be a list; in csv write ["first", "second"]')
        value = parse_json(value, f"{where}, options")
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # ARC: {"text": [...], "label": [...]}
        labels = tuple(str(label) for label in value.get("label") or ())
        value = value["text"]
        if labels and len(labels) != len(value):
            raise DataError(f"{where}: {len(value)} options, but {len(labels)} labels")
    if value is None:
        return (), ()
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where}: options must be a list of texts, not {type(value).__name__}")
    if len(value) > len(LETTERS):
        raise DataError(f"{where}: {len(value)} options; at most {len(LETTERS)} can have a letter")
    return tuple(
        _text(_number_as_text(option), where, f"option {LETTERS[i]}") for i, option in enumerate(value)
    ), labels


def _choice(value: Any, options: tuple[str, ...], labels: tuple[str, ...], answer_as: str, where: str) -> str:
    """The letter of the right option."""
    ways: dict[str, int | None] = {"index": None, "letter": None, "text": None}
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a gap is read as floats
    written = not (isinstance(value, int) and not isinstance(value, bool))
    if not written:
        ways["index"] = value if 0 <= value < len(options) else None
        value = str(value)
    text = _text(value, where, "the answer")
    if text in labels:
        return LETTERS[labels.index(text)]
    if written and text.isascii() and text.isdigit() and len(text) < 3 and int(text) < len(options):
        ways["index"] = int(text)
    lettered = _LETTER.fullmatch(text)
    if lettered and lettered[1].upper() in LETTERS[: len(options)]:
        ways["letter"] = LETTERS.index(lettered[1].upper())
    compared = [plain(option) for option in options]
    if compared.count(plain(text)) == 1:
        ways["text"] = compared.index(plain(text))
    if answer_as != "auto":
        found = ways[answer_as]
    elif written and ways["index"] is not None and ways["text"] not in (None, ways["index"]):
        raise DataError(
            f"{where}: the answer {text!r} may be an index or an option's text; say which "
            "(answer_as, or --answer-as on the command line)"
        )
    elif not written:
        found = ways["index"]
    else:
        found = next((ways[way] for way in ("letter", "text", "index") if ways[way] is not None), None)
    if found is None:
        kind = "" if answer_as == "auto" else f" as {answer_as}"
        raise DataError(f"{where}: the answer {text[:40]!r} is none of the {len(options)} options{kind}")
    return LETTERS[found]


def _free_text(value: Any, where: str) -> str:
    return _text(str(value) if isinstance(value, bool) else _number_as_text(value), where, "the answer")


def _number_as_text(value: Any) -> Any:
    """A finite number as a person writes it, 3 for 3.0; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return value
    return str(int(value) if float(value).is_integer() else value)


def _split_options(text: str, answer: str) -> tuple[str, tuple[str, ...], str]:
    """Take lettered lines at the end of a question as its options, when the answer is one of those letters."""
    lettered = _LETTER.fullmatch(answer)
    matches = list(_OPTION_LINE.finditer(text))
    starts = [i for i, match in enumerate(matches) if (match[1] or match[2]) == "A"]
    if lettered is None or not starts:
        return text, (), answer
    run: list[re.Match[str]] = []
    for match in matches[starts[-1] :]:
        if (match[1] or match[2]) == LETTERS[len(run) : len(run) + 1]:
            run.append(match)
    letter = lettered[1].upper()
    ends = [match.start() for match in run[1:]] + [len(text)]
    options = tuple(text[match.end() : end].strip() for match, end in zip(run, ends, strict=True))
    stem = text[: run[0].start()].strip()
    if letter not in LETTERS[: len(run)] or not stem or not all(options):
        return text, (), answer
    return stem, options, letter


def _records(source: str | Path, split: str) -> Iterable[Record]:
    name = str(source)
    path = Path(source)
    if path.exists() or isinstance(source, Path) or Path(name.lower().removesuffix(".gz")).suffix in FORMATS:
        if not path.exists():
            raise DataError(f"{path} does not exist")
        return read_records(path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name):
        raise DataError(f"{name} is neither a file nor a Hugging Face dataset such as owner/name or owner/name:config")
    return _hugging_face(name, split)


def _hugging_face(name: str, split: str) -> Iterator[Record]:
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise DataError(
            f"{name} is no file here; to read it as a Hugging Face dataset: pip install datasets, "
            "or save it as parquet and give that file"
        ) from None
    repository, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, config or None, split=split)
    except Exception as error:  # the library raises what its many back ends raise
        raise DataError(f"cannot load the dataset {name}, split {split!r}: {' '.join(str(error).split())}") from error
    for number, values in enumerate(rows, start=1):
        yield Record(f"{name}, row {number}", dict(values))
