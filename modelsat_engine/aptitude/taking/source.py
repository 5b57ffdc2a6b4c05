"""Where the texts of a test's questions come from: a file, or the data set that its ids name, fetched once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from modelsat_engine.aptitude.questions import Question, load_questions
from modelsat_engine.aptitude.taking.selection import id_prefix
from modelsat_engine.aptitude.test import AptitudeTest
from modelsat_engine.errors import DataError

VARIABLE = "MODELSAT_QUESTIONS"


@dataclass(frozen=True)
class PublicSet:
    """A public data set on the Hugging Face hub whose row numbers are the test's item ids."""

    repository: str
    file: str
    licence: str
    page: str


# the prefix of a test's ids -> where their texts are
PUBLIC_SETS = {
    "mmlu_pro/": PublicSet(
        "TIGER-Lab/MMLU-Pro",
        "data/test-00000-of-00001.parquet",
        "MIT",
        "https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro",
    )
}


def find_questions(
    test: AptitudeTest,
    source: str | None,
    announce: Callable[[str], None] = lambda message: None,
    *,
    answer_as: str = "auto",
) -> list[Question]:
    """The questions in ``source``, or those of the public data set that the test draws from.

    Args:
        source: a question file, as :func:`~modelsat_engine.aptitude.questions.load_questions` reads it; None takes
            the data set's copy on this machine or fetches it (a few megabytes).
        announce: told before anything is fetched.
        answer_as: how the file writes right answers: auto, letter, index or text.

    Raises:
        DataError: not readable, not known, or not to be had; the message says how to get the questions.
    """
    if source is not None:
        return load_questions(source, answer_as=answer_as)
    prefix = id_prefix(test)
    public = PUBLIC_SETS.get(prefix)
    if public is None:
        raise DataError(
            f"the test names its questions by id ({min(test.item_ids)!r}, ...) and their texts are not part of it; "
            f"give a file with them: --questions FILE, or the environment variable {VARIABLE}"
        )
    return load_questions(_fetched(public, announce), id_prefix=prefix)


def _fetched(public: PublicSet, announce: Callable[[str], None]) -> Path:
    """The local path of a public data set's file."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(public.repository, public.file, repo_type="dataset")
    if isinstance(cached, str) and os.path.exists(cached):
        return Path(cached)
    if _known_host(constants.ENDPOINT):
        announce(f"fetching the questions of {public.repository} ({public.licence} licence), once")
        try:
            return Path(hf_hub_download(public.repository, public.file, repo_type="dataset"))
        except Exception as error:  # the library raises what its HTTP client, the hub and the disk raise
            reason = type(error).__name__
    else:
        reason = "no network"
    raise DataError(
        f"the texts of the test's questions are not on this machine, and {public.repository} cannot be fetched "
        f"({reason}); where there is a network, download {public.file} from {public.page} and pass it with "
        f"--questions FILE, or set {VARIABLE}=FILE"
    )


def _known_host(address: str) -> bool:
    """Whether the address has a host that this machine knows; the hub's client would try for half a minute."""
    parts = urlsplit(address)
    if getproxies().get(parts.scheme):
        return True  # the proxy knows
    try:
        return bool(socket.getaddrinfo(parts.hostname, parts.port or parts.scheme))
    except OSError:
        return False
