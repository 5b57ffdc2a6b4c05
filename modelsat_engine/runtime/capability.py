"""The capability encoder: a candidate's aptitude counts and notes become its part of the candidate table."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.onnx_session import open_session

_CANDIDATES_PER_RUN = 256
_CACHED_CANDIDATES = 256
_log = logging.getLogger(__name__)

# What the encoder reads of a profile: correct [T], total [T], notes. A new price is not a new capability.
_Features = tuple[np.ndarray, np.ndarray, str]


class CapabilityEncoder:
    """Runs the bundle's ``capability.onnx`` on the CPU, once per candidate. Thread-safe.

    The last few results are kept, so that a candidate which leaves and comes back costs nothing.

    Args:
        bundle: the router.
        threads: threads inside one operator.

    Raises:
        BundleError: router.json lacks a size, or names an encoder that this version does not know.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        config = bundle.config
        try:
            kind = config["capability_encoder"]["kind"]
            self._views = int(config["views"])
            hidden = int(config["trunk"]["hidden"])
            late_layers = int(config["trunk"]["layers"]) - int(config["inject_at"])
            memory_rows = int(config["memory_rows"])
            self._max_note_tokens = int(config["tokenizer"]["max_note_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"bundle {bundle.path}: router.json lacks {error}; export the bundle again") from error
        if kind != "taskwise":
            raise BundleError(
                f"bundle {bundle.path}: capability encoder {kind!r} is not known to this version; "
                "upgrade the package: pip install --upgrade modelsat-engine"
            )
        self._start_shape = (self._views, hidden)
        self._memory_shape = (self._views, late_layers, 2, memory_rows, hidden) if memory_rows else None
        self._bundle = bundle
        self._test = bundle.aptitude_test
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Any = None
        self._tokenizer: Any = None
        self._cache: OrderedDict[tuple[bytes, bytes, str], EncodedCandidates] = OrderedDict()

    def encode(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        """Encode candidates, any number of them.

        Returns:
            ``inquiry_start`` float32 ``[M, R, D]`` and, for K > 0, ``memory``
            float32 ``[M, R, L - inject_at, 2, K, D]``, in the order of ``profiles``.

        Raises:
            ProfileError: a profile belongs to another aptitude test.
            ExecutorError: the encoder failed, or gave numbers that are not finite.
        """
        features = [(*profile.counts(self._test), profile.notes.strip()) for profile in profiles]
        keys = [(correct.tobytes(), total.tobytes(), notes) for correct, total, notes in features]
        with self._lock:  # one at a time: joining is rare, and the cache stays simple
            known = {key: self._cache[key] for key in keys if key in self._cache}
            new = [index for index, key in enumerate(keys) if key not in known]
            self._warn_of_gaps([profiles[index] for index in new])
            result = EncodedCandidates(
                np.empty((len(keys), *self._start_shape), np.float32),
                None if self._memory_shape is None else np.empty((len(keys), *self._memory_shape), np.float32),
            )
            for index, key in enumerate(keys):
                if key in known:
                    _put(result, np.array([index]), known[key])
            for start in range(0, len(new), _CANDIDATES_PER_RUN):
                chunk = np.array(new[start : start + _CANDIDATES_PER_RUN])
                _put(result, chunk, self._run([features[index] for index in chunk]))
            for index in new[-_CACHED_CANDIDATES:]:
                self._cache[keys[index]] = result.rows(np.array([index]))
            while len(self._cache) > _CACHED_CANDIDATES:
                self._cache.popitem(last=False)
        return result

    def _run(self, features: Sequence[_Features]) -> EncodedCandidates:
        if self._session is None:
            self._session = open_session(self._bundle.file("capability.onnx"), self._threads)
        note_ids, note_mask = self._notes([notes for _, _, notes in features])
        feeds = {
            "correct": np.stack([correct for correct, _, _ in features]),  # [m, T]
            "total": np.stack([total for _, total, _ in features]),  # [m, T]
            "note_ids": note_ids,
            "note_mask": note_mask,
        }
        outputs = ["inquiry_start"] if self._memory_shape is None else ["inquiry_start", "memory"]
        try:
            arrays = self._session.run(outputs, feeds)
        except Exception as error:  # the library raises a class per status code, without a common base of its own
            raise ExecutorError(f"the capability encoder failed on {len(features)} candidates: {error}") from error
        for array, shape in zip(arrays, (self._start_shape, self._memory_shape), strict=False):
            if array.shape[1:] != shape or len(array) != len(features) or not np.isfinite(array).all():
                raise ExecutorError(
                    f"the capability encoder gave {array.dtype} {array.shape} with finite values "
                    f"{bool(np.isfinite(array).all())}, need [{len(features)}, {shape}]; export the bundle again"
                )
        return EncodedCandidates(arrays[0], arrays[1] if self._memory_shape is not None else None)

    def _notes(self, notes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of the expert notes, both int64 ``[m, note_tokens]``; an empty note is masked out."""
        rows = [self._note_tokens(note) if note else [] for note in notes]
        width = max(1, *(len(row) for row in rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ids, mask

    def _note_tokens(self, note: str) -> list[int]:
        if self._tokenizer is None:
            from modelsat_engine.runtime.instruction import InstructionTokenizer

            self._tokenizer = InstructionTokenizer.from_file(self._bundle.file("tokenizer.json"), self._max_note_tokens)
        tokens: list[int] = self._tokenizer.tokenise(note).token_ids.tolist()
        return tokens

    def _warn_of_gaps(self, profiles: Sequence[CapabilityProfile]) -> None:
        for profile in profiles:
            missing = profile.missing_tasks(self._test)
            if missing:
                _log.warning(
                    "candidate %s has no answers on %d of %d aptitude tasks: its probabilities are less certain",
                    profile.name, len(missing), len(self._test.tasks),
                )  # fmt: skip


def _put(result: EncodedCandidates, rows: np.ndarray, part: EncodedCandidates) -> None:
    result.inquiry_start[rows] = part.inquiry_start
    if result.memory is not None and part.memory is not None:
        result.memory[rows] = part.memory
