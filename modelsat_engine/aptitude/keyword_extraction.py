"""Keywords for tasks that nobody described: the words that set a task's questions apart from all others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from modelsat_engine.aptitude.keywords import FURTHER_TASKS, MMLU_SUBJECTS
from modelsat_engine.aptitude.records import format_of, parse_json, read_bytes, read_records
from modelsat_engine.errors import DataError, MissingExtraError

KEYWORDS_PER_TASK = 5
MAX_QUESTION_CHARACTERS = 2000  # a long passage is about its story, not about the task
_WORD = r"(?u)\b[^\W\d_]{3,}\b"
_LATEX = re.compile(r"\\[A-Za-z]+|\[asy\].*?\[/asy\]", re.DOTALL)


def describe_tasks(
    texts: Mapping[str, Sequence[str]], given: Mapping[str, Sequence[str]] | None = None, count: int = KEYWORDS_PER_TASK
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(keywords of every task, where they are from: "given", "known" or "extracted").

    Args:
        texts: task -> the texts of its questions.
        given: task -> keywords, which go before all others; the tasks of MMLU and BBH come with keywords.

    Raises:
        MissingExtraError: keywords must be extracted and scikit-learn is not installed.
        DataError: a task whose questions hold no word.
    """
    known = {**MMLU_SUBJECTS, **FURTHER_TASKS}
    keywords: dict[str, tuple[str, ...]] = {}
    source: dict[str, str] = {}
    for name, origin in ((given or {}, "given"), (known, "known")):
        for task in texts:
            if task in name and task not in keywords:
                keywords[task], source[task] = tuple(name[task]), origin
    unknown = [task for task in texts if task not in keywords]
    if unknown:
        for task, words in extract_keywords(texts, unknown, count).items():
            keywords[task], source[task] = words, "extracted"
    return keywords, source


def extract_keywords(
    texts: Mapping[str, Sequence[str]], tasks: Iterable[str], count: int = KEYWORDS_PER_TASK
) -> dict[str, tuple[str, ...]]:
    """The ``count`` terms of largest TF-IDF of each task.

    Terms are words of three letters or more and pairs of them; English stop words and LaTeX commands are left out.
    The frequency of a term in a task is the number of its questions that hold it, so that a name which one long
    passage repeats is no keyword, and it counts by its logarithm (scikit-learn's ``sublinear_tf``); the inverse
    document frequency is over tasks. A term that shares a word with one chosen already is passed over.

    Args:
        texts: task -> the texts of its questions, of all tasks, since a keyword sets a task apart from the others.
        tasks: those to find keywords for.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: a task whose questions hold no word.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    except ImportError as error:
        raise MissingExtraError("extracting keywords (or give them with --keywords)", "evaluate") from error
    names = sorted(texts)
    documents = [_LATEX.sub(" ", text[:MAX_QUESTION_CHARACTERS]) for name in names for text in texts[name]]
    vectorizer = CountVectorizer(stop_words="english", ngram_range=(1, 2), token_pattern=_WORD, binary=True)
    try:
        holds = vectorizer.fit_transform(documents)  # [questions, terms]
    except ValueError:
        raise DataError("the questions hold no word to make keywords of; give them with --keywords") from None
    ends = np.cumsum([0, *(len(texts[name]) for name in names)]).tolist()
    counts = np.vstack([np.asarray(holds[i:j].sum(0)) for i, j in pairwise(ends)])  # [tasks, terms]
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    terms = vectorizer.get_feature_names_out()
    found: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        row = weights[names.index(task)]
        ranked = sorted(zip((-row.data).tolist(), (terms[i] for i in row.indices), strict=True))
        chosen: list[str] = []
        used: set[str] = set()
        for _, term in ranked:
            words = {word.rstrip("s") for word in term.split()}
            if not words & used:
                chosen.append(str(term))
                used |= words
            if len(chosen) == count:
                break
        if not chosen:
            raise DataError(f"the questions of {task!r} hold no word to make keywords of; give some with --keywords")
        found[task] = tuple(chosen)
    return found


def load_keywords(path: str | Path) -> dict[str, tuple[str, ...]]:
    """task -> keywords, from a JSON object {task: [keywords]} or a table with the columns task and keywords.

    In a table, keywords are a list or text with semicolons between them.

    Raises:
        DataError: not readable, or a task without keywords; the message names the file and the task.
    """
    path = Path(path)
    entries: list[tuple[str, object, object]] = []
    if format_of(path) == "json":
        value = parse_json(read_bytes(path), str(path))
        if not isinstance(value, dict):
            raise DataError(f'{path}: need an object such as {{"algebra": ["groups", "rings"]}}')
        entries = [(str(path), task, words) for task, words in value.items()]
    else:
        for where, row in read_records(path):
            if "task" not in row or "keywords" not in row:
                raise DataError(f"{where}: need the columns task and keywords")
            entries.append((where, row["task"], row["keywords"]))
    keywords: dict[str, tuple[str, ...]] = {}
    for where, task, words in entries:
        if isinstance(words, str):
            words = [word.strip() for word in words.split(";") if word.strip()]
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w.strip() for w in words):
            raise DataError(f"{where}: the keywords of {task!r} must be a list of texts, at least one")
        if not isinstance(task, str) or not task.strip():
            raise DataError(f"{where}: a task needs a name, not {task!r}")
        keywords[task] = tuple(dict.fromkeys(word.strip() for word in words))
    return keywords
