"""Candidates as a file for programs that run an exported graph without this package."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.commands.files.atomic import atomic_file
from modelsat_engine.errors import CandidateError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.instruction import InstructionTokenizer


def write_table(bundle: Bundle, profiles: Sequence[CapabilityProfile], path: Path) -> None:
    """Writes a NumPy archive that `numpy.load` opens without pickle; whole or not at all.

    It holds ``names`` ``[M]``, ``usd_per_million_tokens`` ``[M]`` (NaN where unknown), the graph's inputs
    ``inquiry_start`` and, for a router with memory rows, ``memory``, both with a row a candidate, and ``bundle_hash``.

    Raises:
        CandidateError: there is no candidate. ProfileError: one is of another aptitude test.
        DataError: the file cannot be written.
    """
    if not profiles:
        raise CandidateError("the zoo is empty; add a candidate with 'modelsat candidates add'")
    tokenizer = InstructionTokenizer.from_file(
        bundle.file("tokenizer.json"), int(bundle.config["tokenizer"]["max_instruction_tokens"])
    )
    encoded = CapabilityEncoder(bundle, tokenizer).encode(profiles)
    prices = [profile.usd_per_million_tokens for profile in profiles]
    arrays = {
        "names": np.array([profile.name for profile in profiles]),
        "usd_per_million_tokens": np.array([np.nan if price is None else price for price in prices]),
        "inquiry_start": encoded.inquiry_start,
        "bundle_hash": np.array(bundle.hash),
    }
    if encoded.memory is not None:
        arrays["memory"] = encoded.memory
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # its other parameters are not arrays
    with atomic_file(path) as file:
        file.write(content.getvalue())


def write_tokenizer(bundle: Bundle, path: Path) -> None:
    """Writes the bundle's tokenizer, set to cut where the router does; whole or not at all.

    An engine keeps head and tail of what is too long, and the last message of a conversation; this keeps the head.

    Raises:
        DataError: the file cannot be written.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
    tokenizer.enable_truncation(int(bundle.config["tokenizer"]["max_instruction_tokens"]))
    tokenizer.no_padding()
    with atomic_file(path) as file:
        file.write(tokenizer.to_str().encode("utf-8"))
