"""Who competes: one class per runtime, all over the weights of one bundle, each with as many threads as it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modelsat_engine.errors import ModelSatError
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.runtime.candidate_table import CandidateTable, EncodedCandidates
from modelsat_engine.runtime.executors import PackedBatch, available_executors

Call = Callable[[], np.ndarray]
ONNXRUNTIME_FP32 = "onnxruntime_fp32"
NATIVE = "native"


class Contender(Protocol):
    """One way to turn instructions and candidates into probabilities."""

    name: str
    exact: bool  # float32 arithmetic throughout

    def prepare(self, instructions: list[np.ndarray], candidates: EncodedCandidates) -> Call:
        """A call that scores int32 ``[S_b]`` instructions, B of them -> float32 ``[B, M]``; inputs are ready made."""


class Native:
    """The native executor, called without the scheduler."""

    name = NATIVE
    exact = False

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._threads = bundle, threads
        self._usual = self._open(bundle)
        self._profile = bundle.zoo[0]
        self._last: tuple[Any, EncodedCandidates, Any] | None = None  # executor, zoo, the zoo's table in the core

    def _open(self, bundle: Bundle) -> Any:
        from modelsat_engine.runtime.executors.native import NativeExecutor

        return NativeExecutor(bundle, self._threads)

    @cached_property
    def _long(self) -> Any:
        """For instructions longer than the router reads, which is a limit of quality: up to the trunk's positions."""
        limits = {
            **self._bundle.config["tokenizer"],
            "max_instruction_tokens": self._bundle.config["trunk"]["max_positions"],
        }
        return self._open(replace(self._bundle, config={**self._bundle.config, "tokenizer": limits}))

    def prepare(self, instructions: list[np.ndarray], candidates: EncodedCandidates) -> Call:
        longest = max(map(len, instructions))
        executor = self._usual if longest <= self._usual.limits().max_instruction_tokens else self._long
        if self._last is None or self._last[0] is not executor or self._last[1] is not candidates:
            profiles = [replace(self._profile, name=f"candidate {m}") for m in range(len(candidates.inquiry_start))]
            self._last = executor, candidates, executor.core_table(CandidateTable(profiles, candidates), 0)
        table = self._last[2]
        batch = PackedBatch.pack(instructions)
        core = executor.core
        return lambda: core.score(batch.token_ids, batch.cu_seqlens, table)


class OnnxRuntime:
    """ONNX Runtime on one of the graphs, with its default memory settings and without spinning threads."""

    def __init__(self, name: str, exact: bool, graph: Path, threads: int) -> None:
        import onnxruntime

        self.name, self.exact = name, exact
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def prepare(self, instructions: list[np.ndarray], candidates: EncodedCandidates) -> Call:
        feeds = padded_feeds(instructions, candidates)
        return lambda: self._session.run(["probability"], feeds)[0]


class OpenVino:
    """OpenVINO's CPU plugin in float32, tuned for latency."""

    name = "openvino_fp32"
    exact = True

    def __init__(self, graph: Path, threads: int) -> None:
        core = import_module("openvino").Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = core.compile_model(core.read_model(str(graph)), "CPU", settings)
        self._request = model.create_infer_request()
        self._output = model.output("probability")

    def prepare(self, instructions: list[np.ndarray], candidates: EncodedCandidates) -> Call:
        feeds = padded_feeds(instructions, candidates)
        return lambda: self._request.infer(feeds)[self._output]


class Torch:
    """The network of modelsat_engine.model in eager mode, weights dequantised once."""

    name = "torch_eager"
    exact = True

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch

        from modelsat_engine.export.network import network_of

        torch.set_num_threads(threads)
        self._network = network_of(bundle)

    def prepare(self, instructions: list[np.ndarray], candidates: EncodedCandidates) -> Call:
        import torch

        tensors = [torch.from_numpy(array) for array in padded_feeds(instructions, candidates).values()]

        def call() -> np.ndarray:
            with torch.inference_mode():
                probability: np.ndarray = self._network(*tensors)[0].numpy()
            return probability

        return call


def padded_feeds(instructions: list[np.ndarray], candidates: EncodedCandidates) -> dict[str, np.ndarray]:
    """The inputs of router.onnx."""
    lengths = np.array([len(ids) for ids in instructions])
    mask = np.arange(lengths.max()) < lengths[:, None]  # [B, S]
    token_ids = np.zeros(mask.shape, np.int64)
    token_ids[mask] = np.concatenate(instructions)
    feeds = {
        "input_ids": token_ids,
        "attention_mask": mask.astype(np.int64),
        "inquiry_start": np.array(candidates.inquiry_start),
    }
    if candidates.memory is not None:
        feeds["memory"] = np.array(candidates.memory)
    return feeds


def open_contenders(bundle: Bundle, threads: int, scratch: Path) -> tuple[list[Contender], dict[str, str]]:
    """Every contender that can be had here, and why the others cannot.

    Args:
        scratch: an empty directory for graphs.
    """
    missing: dict[str, str] = {}
    contenders: list[Contender] = []

    def add(name: str, make: Callable[[], Contender]) -> None:
        try:
            contenders.append(make())
        except (ImportError, ModelSatError) as error:
            missing[name] = f"{type(error).__name__}: {error}"

    reason = available_executors()[NATIVE]
    if reason is None:
        add(NATIVE, lambda: Native(bundle, threads))
    else:
        missing[NATIVE] = reason
    add(ONNXRUNTIME_FP32, lambda: OnnxRuntime(ONNXRUNTIME_FP32, True, bundle.file("router.onnx"), threads))
    try:
        from latency.graphs import write_float32_graph, write_int8_graph

        write_float32_graph(bundle.file("router.onnx"), scratch / "float32.onnx")
        write_int8_graph(scratch / "float32.onnx", scratch / "int8.onnx")
    except ImportError as error:
        missing |= dict.fromkeys(("onnxruntime_int8", "openvino_fp32"), f"writing their graphs needs onnx: {error}")
    else:
        add("onnxruntime_int8", lambda: OnnxRuntime("onnxruntime_int8", False, scratch / "int8.onnx", threads))
        add("openvino_fp32", lambda: OpenVino(scratch / "float32.onnx", threads))
    add("torch_eager", lambda: Torch(bundle, threads))
    return contenders, missing


def versions() -> dict[str, str | None]:
    """Versions of what competes."""
    names = ("modelsat-engine", "numpy", "onnx", "onnxruntime", "openvino", "torch")
    return {name: version(name) if find_spec(name.replace("-", "_")) else None for name in names}
