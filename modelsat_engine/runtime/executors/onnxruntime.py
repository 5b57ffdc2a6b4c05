"""The ONNX Runtime executor: runs a router's graph on the CPU, everywhere, or through a provider on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable
from modelsat_engine.runtime.executors import ExecutorLimits, PackedBatch
from modelsat_engine.runtime.onnx_providers import CPU, TENSORRT, Provider
from modelsat_engine.runtime.onnx_session import open_session
from modelsat_engine.user_files import cache_directory

MAX_CANDIDATES_PER_RUN = 2048
MAX_PAIRS_PER_RUN = 16
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
    table snapshot and read in place, on a GPU from its own memory; a snapshot that nobody holds any more frees its
    bindings.

    Args:
        bundle: the router.
        threads: threads inside one operator, the caller's own included.
        provider: what runs the graph; there is no falling back to the CPU.
        graph: a file that `modelsat export --to onnx` wrote of this bundle, in whatever precision; None: the bundle's
            own router.onnx, float32.

    Raises:
        ExecutorError: ONNX Runtime or the provider cannot be used, refuses the graph, or leaves it to the CPU.
        BundleError: the graph is of another bundle, or has other inputs than this package feeds.
    """

    def __init__(self, bundle: Bundle, threads: int, provider: Provider = CPU, graph: Path | None = None) -> None:
        self.name = "onnxruntime" if provider is CPU else f"onnxruntime-{provider.name}"
        path = bundle.file("router.onnx") if graph is None else graph
        if not path.is_file():
            raise ExecutorError(f"there is no graph {path}; write it: modelsat export --to onnx -o {path}")
        self._provider = provider
        self._session = open_session(path, threads, provider, _options_of(provider, bundle))
        if graph is not None:
            _require_export_of(bundle, self._session.get_modelmeta().custom_metadata_map, path)
        inputs = {value.name for value in self._session.get_inputs()}
        wanted = {"input_ids", "attention_mask", "inquiry_start"}
        if bundle.config["memory_rows"]:
            wanted.add("memory")
        if inputs != wanted or "probability" not in {value.name for value in self._session.get_outputs()}:
            raise BundleError(
                f"{path} takes the inputs {sorted(inputs)}, need {sorted(wanted)} and the output probability; "
                "export the bundle again"
            )
        # Uncut, every pair is a sequence of its own
        uncut = bundle.config.get("layout") == "capability_first"
        self._columns_per_run = MAX_PAIRS_PER_RUN if uncut else MAX_CANDIDATES_PER_RUN
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
        rows_per_instruction = min(len(table), self._columns_per_run) * table.inquiry_start.shape[1]
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
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("probability", "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the library raises a class per status code, without a common base of its own
            raise ExecutorError(f"ONNX Runtime failed on a batch: {error}") from error
        probability: np.ndarray = binding.get_outputs()[0].numpy()
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
                chunks = self._bound[table] = list(_bind(table, self._columns_per_run, self._provider.device))
            return chunks


def _bind(table: CandidateTable, columns_per_run: int, device: str) -> Iterator[_Chunk]:
    from onnxruntime import OrtValue

    for start in range(0, len(table), columns_per_run):
        columns = slice(start, min(start + columns_per_run, len(table)))
        part = table.slice(columns.start, columns.stop)
        values = {"inquiry_start": OrtValue.ortvalue_from_numpy(part.inquiry_start, device, 0)}
        if part.memory is not None:
            values["memory"] = OrtValue.ortvalue_from_numpy(part.memory, device, 0)
        yield columns, values


def _options_of(provider: Provider, bundle: Bundle) -> dict[str, str]:
    """Options of the provider; TensorRT gets one profile over all shapes, so that no shape builds an engine anew."""
    if provider is not TENSORRT:
        return {}
    config = bundle.config
    wide = int(config["trunk"]["hidden"]) + int(config.get("evidence_size", 0))
    tokens, views = int(config["tokenizer"]["max_instruction_tokens"]), int(config["views"])

    def shapes(batch: int, tokens: int, zoo: int) -> str:
        rows = {"input_ids": (batch, tokens), "attention_mask": (batch, tokens), "inquiry_start": (zoo, views, wide)}
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in rows.items())

    options = {
        "trt_profile_min_shapes": shapes(1, 1, 1),
        "trt_profile_opt_shapes": shapes(1, min(64, tokens), 10),
        "trt_profile_max_shapes": shapes(64, tokens, MAX_CANDIDATES_PER_RUN),
    }
    if config["memory_rows"]:
        options = {}  # the shape of the memory rows is the graph's; ONNX Runtime derives the profile as batches come
    cache = cache_directory("onnxruntime-tensorrt")
    if cache is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
    return options


def _require_export_of(bundle: Bundle, metadata: Mapping[str, str], path: Path) -> None:
    again = f"export it again: modelsat export --to onnx -o {path}"
    found = metadata.get("modelsat.bundle_hash")
    if found is None:
        raise BundleError(f"{path} is no router that 'modelsat export' wrote; {again}")
    if found != bundle.hash:
        raise BundleError(f"{path} is an export of {metadata.get('modelsat.bundle')}, not of {bundle.label}; {again}")


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
