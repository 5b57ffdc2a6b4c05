"""What the capability encoder's graph is fed: counts and note tokens, or the capability representation as text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile
from modelsat_engine.errors import BundleError
from modelsat_engine.runtime.instruction import InstructionTokenizer


class CapabilityInputs(Protocol):
    """Turns profiles into the inputs of one kind of ``capability.onnx``."""

    def __call__(self, profiles: Sequence[CapabilityProfile]) -> dict[str, np.ndarray]:
        """Input name -> array whose first axis is the candidates, M >= 1 of them."""


def capability_inputs(
    config: Mapping[str, Any], test: AptitudeTest, tokenizer: InstructionTokenizer
) -> CapabilityInputs:
    """The inputs that the bundle's capability encoder takes.

    Args:
        config: content of ``router.json``.

    Raises:
        BundleError: the encoder is of a kind that this version does not know.
        KeyError: router.json lacks a limit.
    """
    encoder = config["capability_encoder"]
    if encoder["kind"] == "taskwise":
        return TaskwiseInputs(test, tokenizer, int(config["tokenizer"]["max_note_tokens"]))
    if encoder["kind"] == "text":
        max_tokens = int(encoder.get("max_tokens", config["trunk"]["max_positions"]))
        return TextInputs(test, tokenizer, int(config["views"]), max_tokens)
    raise BundleError(
        f"router.json names the capability encoder {encoder['kind']!r}, which this version does not know; "
        "upgrade the package: pip install --upgrade modelsat-engine"
    )


class TaskwiseInputs:
    """``correct`` and ``total`` float32 ``[M, tasks]``, ``note_ids`` and ``note_mask`` int64 ``[M, note_tokens]``.

    Notes carry no [CLS] and [SEP]; an empty note is masked out whole.
    """

    def __init__(self, test: AptitudeTest, tokenizer: InstructionTokenizer, max_note_tokens: int) -> None:
        self._test, self._tokenizer, self._max_note_tokens = test, tokenizer, max_note_tokens

    def __call__(self, profiles: Sequence[CapabilityProfile]) -> dict[str, np.ndarray]:
        """See :class:`CapabilityInputs`."""
        counts = [profile.counts(self._test) for profile in profiles]
        ids, mask = _padded(
            [
                self._tokenizer.text_token_ids(profile.notes, self._max_note_tokens, special_tokens=False)
                for profile in profiles
            ]
        )
        return {
            "correct": np.stack([correct for correct, _ in counts]),
            "total": np.stack([total for _, total in counts]),
            "note_ids": ids,
            "note_mask": mask,
        }


class TextInputs:
    """``capability_ids`` and ``capability_mask`` int64 ``[M, R, tokens]``: the paper's text, one task order a view.

    Every candidate is read in the same R orders, which depend on the aptitude test alone.
    """

    def __init__(self, test: AptitudeTest, tokenizer: InstructionTokenizer, views: int, max_tokens: int) -> None:
        self._test, self._tokenizer, self._max_tokens = test, tokenizer, max_tokens
        self._orders = [_task_order(test, view) for view in range(views)]

    def __call__(self, profiles: Sequence[CapabilityProfile]) -> dict[str, np.ndarray]:
        """See :class:`CapabilityInputs`."""
        from modelsat_engine.aptitude.representation import capability_text

        ids, mask = _padded(
            [
                self._tokenizer.text_token_ids(
                    capability_text(profile, self._test, order), self._max_tokens, special_tokens=True
                )
                for profile in profiles
                for order in self._orders
            ]
        )
        shape = (len(profiles), len(self._orders), ids.shape[1])
        return {"capability_ids": ids.reshape(shape), "capability_mask": mask.reshape(shape)}


def _task_order(test: AptitudeTest, view: int) -> list[int]:
    """A shuffle of the tasks that every machine and library version agrees on."""
    keys = [hashlib.sha256(f"{test.id}/{view}/{name}".encode()).digest() for name in test.task_names]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and their mask, int64 ``[len(rows), longest]`` with at least one column."""
    width = max(1, max(len(row) for row in rows))
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
