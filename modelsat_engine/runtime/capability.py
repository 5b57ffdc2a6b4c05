"""The capability encoder: a candidate's aptitude counts and notes become its part of the candidate table."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelsat_engine.aptitude import CapabilityProfile
from modelsat_engine.errors import BundleError, ExecutorError, ProfileError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.capability_cache import CapabilityCache
from modelsat_engine.runtime.capability_inputs import capability_inputs
from modelsat_engine.runtime.instruction import InstructionTokenizer
from modelsat_engine.runtime.onnx_session import open_session
from modelsat_engine.runtime.refinement import Axes

_CACHED_CANDIDATES = 256
_log = logging.getLogger(__name__)

_NAMED_IN_WARNING = 3


class CapabilityEncoder:
    """Runs the bundle's ``capability.onnx`` on the CPU, once per candidate. Thread-safe.

    The last few results are kept in memory and many on disk, so that a candidate which comes back, or comes to
    another process, costs nothing; the graph is opened for the first one that has to be encoded.

    Args:
        bundle: the router.
        tokenizer: the router's tokenizer, for expert notes.
        threads: threads inside one operator.
        cache: where results are kept on disk; None: this user's cache directory.

    Raises:
        BundleError: router.json lacks a size, or names an encoder that this version does not know.
    """

    def __init__(
        self,
        bundle: Bundle,
        tokenizer: InstructionTokenizer,
        threads: int = 1,
        cache: CapabilityCache | None = None,
    ) -> None:
        config = bundle.config
        try:
            self._inputs = capability_inputs(config, bundle.aptitude_test, tokenizer)
            views, hidden = int(config["views"]), int(config["trunk"]["hidden"])
            evidence = int(config.get("evidence_size", 0))
            late_layers = int(config["trunk"]["layers"]) - int(config["inject_at"])
            memory_rows = int(config["memory_rows"])
            uncut = config["layout"] == "capability_first"
            self._axes = Axes.of(config)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"bundle {bundle.path}: router.json lacks {error}; export the bundle again") from error
        self._shapes: dict[str, tuple[int, ...]] = {"inquiry_start": (views, hidden + evidence)}
        if memory_rows:
            cached = () if uncut else (late_layers, 2)  # uncut, memory rows see the instruction: nothing to cache
            self._shapes["memory"] = (views, *cached, memory_rows, hidden)
        self._bundle = bundle
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Any = None
        self._recent: OrderedDict[bytes, EncodedCandidates] = OrderedDict()
        self._disk = CapabilityCache(bundle.hash) if cache is None else cache
        self._counts = {"encoded": 0, "from_memory": 0, "from_disk": 0}

    def encode(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        """Encode candidates, any number of them.

        Returns:
            ``inquiry_start`` float32 ``[M, R, D + E]`` and, for K > 0, ``memory``
            float32 ``[M, R, L - inject_at, 2, K, D]`` (``[M, R, K, D]`` in the layout "capability_first"), in the
            order of ``profiles``.

        Raises:
            ProfileError: a profile belongs to another aptitude test.
            ExecutorError: the encoder failed, or gave numbers that are not finite.
        """
        keys = [self._key(profile) for profile in profiles]
        result = EncodedCandidates(
            **{name: np.empty((len(keys), *shape), np.float32) for name, shape in self._shapes.items()}
        )
        new = []
        with self._lock:  # one at a time: joining is rare, and the caches stay simple
            for row, key in enumerate(keys):
                part = self._recent.get(key)
                source = "from_memory"
                if part is None:
                    part, source = self._from_disk(key), "from_disk"
                    new.append(row)
                if part is None:
                    # By itself: beside others its last bits would differ, and an int8 executor may round them apart.
                    part, source = self._run([profiles[row]]), "encoded"
                    self._to_disk(key, part)
                self._counts[source] += 1
                result.put(np.array([row]), part)
                self._refine(result.inquiry_start[row], profiles[row])
                self._recent[key] = part
                self._recent.move_to_end(key)
                if len(self._recent) > _CACHED_CANDIDATES:
                    self._recent.popitem(last=False)
        self._warn_of_gaps([profiles[row] for row in new])
        return result

    def encode_together(self, profiles: Sequence[CapabilityProfile]) -> EncodedCandidates:
        """Encode a group that always comes together, in one run; kept on disk as one. It does not count as encoded.

        Arguments, result and errors as for :meth:`encode`; at least one profile.
        """
        key = b"together " + b"".join(hashlib.sha256(self._key(profile)).digest() for profile in profiles)
        with self._lock:
            encoded = self._from_disk(key, len(profiles))
            if encoded is None:
                encoded = self._run(profiles)
                self._to_disk(key, encoded)
        if any(profile.refinement is not None for profile in profiles):
            encoded = EncodedCandidates(encoded.inquiry_start.copy(), encoded.memory)
            for row, profile in zip(encoded.inquiry_start, profiles, strict=True):
                self._refine(row, profile, warns=False)
        return encoded

    def _refine(self, row: np.ndarray, profile: CapabilityProfile, warns: bool = True) -> None:
        """Write a candidate's effects where its evidence ends, ``[R, D + E]``; what caches keep is without them."""
        if profile.refinement is None:
            return
        if self._axes is None or profile.refinement.axes != self._axes.id:
            if warns:
                _log.warning(
                    "candidate %s was refined for another router; it counts as not refined until you refine it again",
                    profile.name,
                )
            return
        if len(profile.refinement.values) != len(self._axes.prior_variance):
            raise ProfileError(
                f"{profile.name}: its refinement has {len(profile.refinement.values)} values, the router has "
                f"{len(self._axes.prior_variance)} axes; refine it again"
            )
        row[:, -len(self._axes.prior_variance) :] = profile.refinement.effects

    def stats(self) -> dict[str, int]:
        """How many candidates were ``encoded``, found ``from_memory`` and found ``from_disk``."""
        return dict(self._counts)

    def _key(self, profile: CapabilityProfile) -> bytes:
        """What the graph reads of a profile: correct, total, notes. A new price is not a new capability."""
        correct, total = profile.counts(self._bundle.aptitude_test)
        return correct.tobytes() + total.tobytes() + profile.notes.encode("utf-8", errors="surrogatepass")

    def _from_disk(self, key: bytes, candidates: int = 1) -> EncodedCandidates | None:
        shapes = {name: (candidates, *shape) for name, shape in self._shapes.items()}
        payload = self._disk.get(key, 4 * sum(math.prod(shape) for shape in shapes.values()))
        if payload is None:
            return None
        values = np.frombuffer(payload, np.float32)
        parts, start = {}, 0
        for name, shape in shapes.items():
            parts[name] = values[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return EncodedCandidates(**parts)

    def _to_disk(self, key: bytes, part: EncodedCandidates) -> None:
        arrays = [getattr(part, name) for name in self._shapes]
        self._disk.put(key, b"".join(np.ascontiguousarray(array, np.float32).tobytes() for array in arrays))

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

    def _warn_of_gaps(self, profiles: Sequence[CapabilityProfile]) -> None:
        test = self._bundle.aptitude_test
        gaps = [(profile.name, len(profile.missing_tasks(test))) for profile in profiles]
        gaps = [(name, missing) for name, missing in gaps if missing]
        for name, missing in gaps[:_NAMED_IN_WARNING]:
            _log.warning(
                "candidate %s has no answers on %d of %d aptitude tasks: its probabilities are less certain",
                name,
                missing,
                len(test.tasks),
            )
        if len(gaps) > _NAMED_IN_WARNING:
            _log.warning("%d more candidates have no answers on some aptitude tasks", len(gaps) - _NAMED_IN_WARNING)
