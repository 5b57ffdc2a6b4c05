"""The ONNX Runtime executor: runs the bundle's router.onnx on the CPU, everywhere, in fp32 arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from modelsat_engine.runtime.onnx_session import open_session

MAX_CANDIDATES_PER_RUN = 2048
# Rows of one run, padding and inquiry rows included. It bounds the activations (about 10 KB a row for the mini trunk);
# the time of a row stops falling long before.
_MAX_ROWS_PER_RUN = 1024
# Padding that a run may hold: this share of its real tokens, or about what starting another run would cost.
_PADDING_SHARE = 1 / 8
_PADDING_TOKENS = 16

# Columns of a run, and its candidate inputs as values that ONNX Runtime reads in place.
_Chunk = tuple[slice, dict[str, Any]]


class OnnxRuntimeExecutor:
    """Scores packed batches; see :class:`modelsat_engine.runtime.executors.Executor`.

    A batch is sorted by length and split into runs with little padding. The candidate arrays are bound once per
    table snapshot and read in place; a snapshot that nobody holds any more frees its bindings.

    Args:
        bundle: the router.
        threads: threads inside one operator, the caller's own included.

    Raises:
        ExecutorError: ONNX Runtime is missing or refuses the graph.
        BundleError: router.onnx has other inputs than this package feeds.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        path = bundle.file("router.onnx")
        self._session = open_session(path, threads)
        inputs = {value.name for value in self._session.get_inputs()}
        wanted = {"input_ids", "attention_mask", "inquiry_start"}
        if bundle.config["memory_rows"]:
            wanted.add("memory")
        if inputs != wanted or "probability" not in {value.name for value in self._session.get_outputs()}:
            raise BundleError(
                f"{path} takes the inputs {sorted(inputs)}, need {sorted(wanted)} and the output probability; "
                "export the bundle again"
            )
        self._limits = ExecutorLimits(
            max_batch_requests=64,  # longer batches are no faster here, and a single request waits behind one
            max_batch_tokens=8192,
            max_instruction_tokens=int(bundle.config["tokenizer"]["max_instruction_tokens"]),
        )
        self._lock = threading.Lock()
        self._bound: WeakKeyDictionary[CandidateTable, list[_Chunk]] = WeakKeyDictionary()

    def limits(self) -> ExecutorLimits:
        """The bounds that callers keep."""
        return self._limits

    def score(self, batch: PackedBatch, table: CandidateTable) -> np.ndarray:
        """Calibrated P(Yes), averaged over views, float32 ``[B, M]``.

        Raises:
            ExecutorError: ONNX Runtime failed.
        """
        scores = np.empty((len(batch), len(table)), np.float32)  # [B, M]
        chunks = self._chunks_of(table)
        if not chunks:
            return scores
        rows_per_instruction = min(len(table), MAX_CANDIDATES_PER_RUN) * table.inquiry_start.shape[1]
        for members in _runs(batch.lengths, rows_per_instruction):
            instructions = self._padded(batch, members)
            for columns, candidates in chunks:
                scores[members, columns] = self._run({**instructions, **candidates})
        return scores

    def close(self) -> None:
        """Free the session and every bound snapshot."""
        with self._lock:
            self._bound.clear()
        self._session = None

    def _run(self, feeds: dict[str, Any]) -> np.ndarray:
        try:
            probability: np.ndarray = self._session.run_with_ort_values(["probability"], feeds)[0].numpy()
        except Exception as error:  # the library raises a class per status code, without a common base of its own
            raise ExecutorError(f"ONNX Runtime failed on a batch: {error}") from error
        return probability

    def _padded(self, batch: PackedBatch, members: np.ndarray) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask``, int64 ``[b, s]``, of some of the batch's instructions."""
        from onnxruntime import OrtValue

        lengths = batch.lengths[members]  # [b]
        mask = np.arange(lengths.max()) < lengths[:, None]  # [b, s]
        ids = np.zeros(mask.shape, np.int64)
        starts = batch.cu_seqlens[members]
        ids[mask] = np.concatenate(
            [batch.token_ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        )
        return {
            "input_ids": OrtValue.ortvalue_from_numpy(ids),
            "attention_mask": OrtValue.ortvalue_from_numpy(mask.astype(np.int64)),
        }

    def _chunks_of(self, table: CandidateTable) -> list[_Chunk]:
        with self._lock:
            chunks = self._bound.get(table)
            if chunks is None:
                chunks = self._bound[table] = list(_bind(table))
            return chunks


def _bind(table: CandidateTable) -> Iterator[_Chunk]:
    from onnxruntime import OrtValue

    for start in range(0, len(table), MAX_CANDIDATES_PER_RUN):
        columns = slice(start, min(start + MAX_CANDIDATES_PER_RUN, len(table)))
        part = table.slice(columns.start, columns.stop)
        values = {"inquiry_start": OrtValue.ortvalue_from_numpy(part.inquiry_start)}
        if part.memory is not None:
            values["memory"] = OrtValue.ortvalue_from_numpy(part.memory)
        yield columns, values


def _runs(lengths: np.ndarray, candidate_rows: int) -> Iterator[np.ndarray]:
    """Splits a batch into runs of similar length.

    Args:
        lengths: int32 ``[B]``.
        candidate_rows: inquiry rows of one instruction in one run.

    Yields:
        Indices into the batch, int64 ``[b]``, ascending in length; each index once.
    """
    order = np.argsort(lengths, kind="stable")
    start, tokens = 0, 0
    for end, length in enumerate(lengths[order].tolist()):
        count = end - start + 1
        padding = count * length - (tokens + length)
        rows = count * (length + candidate_rows)
        if count > 1 and (rows > _MAX_ROWS_PER_RUN or padding > max(_PADDING_TOKENS, _PADDING_SHARE * tokens)):
            yield order[start:end]
            start, tokens = end, 0
        tokens += length
    yield order[start:]
