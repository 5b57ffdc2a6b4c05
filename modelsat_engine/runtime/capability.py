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
from modelsat_engine.runtime.capability_inputs import capability_inputs
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.runtime.onnx_session import open_session

_CACHED_CANDIDATES = 256
_log = logging.getLogger(__name__)

# What the encoder reads of a profile: correct, total, notes. A new price is not a new capability.
_Key = tuple[bytes, bytes, str]


class CapabilityEncoder:
    """Runs the bundle's ``capability.onnx`` on the CPU, once per candidate. Thread-safe.

    The last few results are kept, so that a candidate which leaves and comes back costs nothing.

    Args:
        bundle: the router.
        tokenizer: the router's tokenizer, for expert notes.
        threads: threads inside one operator.

    Raises:
        BundleError: router.json lacks a size, or names an encoder that this version does not know.
    """

    def __init__(self, bundle: Bundle, tokenizer: InstructionTokenizer, threads: int = 1) -> None:
        config = bundle.config
        try:
            self._inputs = capability_inputs(config, bundle.aptitude_test, tokenizer)
            views, hidden = int(config["views"]), int(config["trunk"]["hidden"])
            evidence = int(config.get("evidence_size", 0))
            late_layers = int(config["trunk"]["layers"]) - int(config["inject_at"])
            memory_rows = int(config["memory_rows"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"bundle {bundle.path}: router.json lacks {error}; export the bundle again") from error
        self._shapes: dict[str, tuple[int, ...]] = {"inquiry_start": (views, hidden + evidence)}
        if memory_rows:
            self._shapes["memory"] = (views, late_layers, 2, memory_rows, hidden)
        self._bundle = bundle
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Any = None
        self._cache: OrderedDict[_Key, EncodedCandidates] = OrderedDict()

    def encode(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        """Encode candidates, any number of them.

        Returns:
            ``inquiry_start`` float32 ``[M, R, D + E]`` and, for K > 0, ``memory``
            float32 ``[M, R, L - inject_at, 2, K, D]``, in the order of ``profiles``.

        Raises:
            ProfileError: a profile belongs to another aptitude test.
            ExecutorError: the encoder failed, or gave numbers that are not finite.
        """
        keys = [self._key(profile) for profile in profiles]
        result = EncodedCandidates(
            **{name: np.empty((len(keys), *shape), np.float32) for name, shape in self._shapes.items()}
        )
        with self._lock:  # one at a time: joining is rare, and the cache stays simple
            new = []
            for row, key in enumerate(keys):
                cached = self._cache.get(key)
                if cached is None:
                    new.append(row)
                else:
                    result.put(np.array([row]), cached)
            for row in new:
                # By itself: beside others its last bits would differ, and an int8 executor may round them apart.
                result.put(np.array([row]), self._run([profiles[row]]))
            for row in new[-_CACHED_CANDIDATES:]:
                self._cache[keys[row]] = result.rows(np.array([row]))
            while len(self._cache) > _CACHED_CANDIDATES:
                self._cache.popitem(last=False)
        for row in new:
            self._warn_of_gaps(profiles[row])
        return result

    def _key(self, profile: CapabilityProfile) -> _Key:
        correct, total = profile.counts(self._bundle.aptitude_test)
        return correct.tobytes(), total.tobytes(), profile.notes

    def _run(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        if self._session is None:
            self._session = open_session(self._bundle.file("capability.onnx"), self._threads)
        try:
            arrays = self._session.run(list(self._shapes), self._inputs(profiles))
        except Exception as error:  # the library raises a class per status code, without a common base of its own
            raise ExecutorError(f"the capability encoder failed on {len(profiles)} candidates: {error}") from error
        named = dict(zip(self._shapes, arrays, strict=True))
        for name, shape in self._shapes.items():
            if named[name].shape != (len(profiles), *shape) or not np.isfinite(named[name]).all():
                raise ExecutorError(
                    f"capability.onnx gave {name} {named[name].shape}, need finite {(len(profiles), *shape)}; "
                    "export the bundle again"
                )
        return EncodedCandidates(**named)

    def _warn_of_gaps(self, profile: CapabilityProfile) -> None:
        missing = profile.missing_tasks(self._bundle.aptitude_test)
        if missing:
            _log.warning(
                "candidate %s has no answers on %d of %d aptitude tasks: its probabilities are less certain",
                profile.name,
                len(missing),
                len(self._bundle.aptitude_test.tasks),
            )
