"""A router's weights and candidates on a CUDA device, in the form in which the kernels read them. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsat_engine.errors import BundleError, ExecutorError
from modelsat_engine.kernels.linear.launch import linear
from modelsat_engine.kernels.scoring_head.launch import Head
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.runtime.candidate_table import CandidateTable


@dataclass(frozen=True)
class Linear:
    """Weight ``[N, K]`` in the dtype to compute in, bias fp32 ``[N]``."""

    weight: Tensor
    bias: Tensor

    def outputs_from(self, first: int) -> Linear:
        """The same layer without its first outputs."""
        return Linear(self.weight[first:], self.bias[first:])


@dataclass(frozen=True)
class Norm:
    """LayerNorm: fp32 ``[D]`` twice."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Layer:
    """One post-norm transformer layer; query, key and value are one projection."""

    query_key_value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True)
class Table:
    """An embedding, int8 ``[V, D]`` or in float, and fp32 ``[V]``, what to multiply each row by."""

    rows: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Relevance:
    """The relevance head: fp32 ``[D]`` to standardise with, and two layers."""

    center: Tensor
    scale: Tensor
    hidden: Linear
    tasks: Linear


@dataclass(frozen=True)
class Weights:
    """All of a router but its capability encoder.

    Attributes:
        start: the projection of layer `inject_at` in fp32, for what is computed once per candidate.
    """

    config: NetworkConfig
    dtype: torch.dtype
    device: torch.device
    word: Table
    position: Table
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    start: Linear
    relevance: Relevance | None
    head: Head

    @property
    def key_value_start(self) -> int:
        """Where keys begin in the outputs of `query_key_value`."""
        return self.config.trunk.hidden


def read_weights(
    tensors: Mapping[str, Tensor], config: NetworkConfig, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Weights by the names of the network's state, int8 with a ``weight_scale`` beside them or float.

    Args:
        tensors: of a bundle's ``weights.safetensors``, or ``ModelSatNetwork.state_dict()``.
        config: the network's sizes; the shared layout.
        device, dtype: where to, and what to compute in.

    Raises:
        BundleError: a tensor is missing, of another shape, or not finite, also after conversion to `dtype`.
    """
    reader = _Reader(tensors, device, dtype)
    trunk = config.trunk
    width, wide = trunk.hidden, trunk.intermediate
    layers = []
    for index in range(trunk.layers):
        name = f"trunk.layers.{index}"
        layers.append(
            Layer(
                reader.joined([f"{name}.{part}" for part in ("query", "key", "value")], width, width),
                reader.linear(f"{name}.attention_output", width, width),
                reader.norm(f"{name}.attention_norm", width),
                reader.linear(f"{name}.up", wide, width),
                reader.linear(f"{name}.down", width, wide),
                reader.norm(f"{name}.output_norm", width),
            )
        )
    relevance = None
    if config.evidence_size:
        hidden = config.relevance_hidden
        relevance = Relevance(
            reader.vector("relevance.center", width),
            reader.vector("relevance.scale", width),
            reader.linear("relevance.hidden", hidden, width),
            reader.linear("relevance.tasks", config.evidence_size, hidden),
        )
    exact = _Reader(tensors, device, torch.float32)
    injected = f"trunk.layers.{config.inject_at}"
    return Weights(
        config=config,
        dtype=dtype,
        device=device,
        word=reader.table("trunk.embeddings.word", trunk.vocab, width),
        position=reader.table("trunk.embeddings.position", trunk.max_positions, width),
        embedding_norm=reader.norm("trunk.embeddings.norm", width),
        layers=tuple(layers),
        start=exact.joined([f"{injected}.{part}" for part in ("query", "key", "value")], width, width),
        relevance=relevance,
        head=_read_head(reader, config, layers[-1].output_norm),
    )


def _read_head(reader: _Reader, config: NetworkConfig, norm: Norm) -> Head:
    width = config.trunk.hidden
    if config.head == "yes_no":
        weight, bias = reader.floats("head.rows.weight", (2, width)), reader.vector("head.rows.bias", 2)
    else:  # one row: nothing speaks for No
        weight = torch.stack([reader.vector("head.weight", width), torch.zeros(width, device=reader.device)])
        bias = torch.cat([reader.floats("head.bias", ()).reshape(1), torch.zeros(1, device=reader.device)])
    temperature = float(reader.floats("temperature", ()))
    if temperature <= 0:
        raise BundleError(f"the temperature is {temperature}, but must be more than 0; export the bundle again")
    shift = float(reader.floats("calibration_bias", ()))
    return Head(weight, bias, temperature, shift, "layer", norm.weight, norm.bias, config.trunk.layer_norm_eps)


class _Reader:
    """Takes tensors by name, checks them, and brings them to the device."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._tensors = tensors
        self.device = device
        self._dtype = dtype

    def floats(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """fp32, finite."""
        tensor = self._take(name, shape).float()
        return self._finite(name, tensor).to(self.device).contiguous()

    def vector(self, name: str, size: int) -> Tensor:
        return self.floats(name, (size,))

    def norm(self, name: str, width: int) -> Norm:
        return Norm(self.vector(f"{name}.weight", width), self.vector(f"{name}.bias", width))

    def linear(self, name: str, outputs: int, inputs: int) -> Linear:
        return self.joined([name], outputs, inputs)

    def joined(self, names: list[str], outputs: int, inputs: int) -> Linear:
        """Layers over the same rows as one layer, outputs one after the other."""
        weight = torch.cat([self._matrix(name, outputs, inputs) for name in names])
        bias = torch.cat([self.vector(f"{name}.bias", outputs) for name in names])
        converted = self._finite(", ".join(names), weight.to(self._dtype))
        return Linear(converted.to(self.device).contiguous(), bias)

    def table(self, name: str, rows: int, width: int) -> Table:
        """As it is: a row is multiplied by its scale when it is looked up."""
        tensor = self._take(f"{name}.weight", (rows, width))
        if tensor.dtype == torch.int8:
            return Table(tensor.to(self.device).contiguous(), self.vector(f"{name}.weight_scale", rows))
        converted = self._finite(name, tensor.to(self._dtype)).to(self.device).contiguous()
        return Table(converted, torch.ones(rows, device=self.device))

    def _matrix(self, name: str, outputs: int, inputs: int) -> Tensor:
        weight = self._take(f"{name}.weight", (outputs, inputs))
        if weight.dtype != torch.int8:
            return weight.float()
        return weight.float() * self._take(f"{name}.weight_scale", (outputs,)).float()[:, None]

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise BundleError(f"the weights lack the tensor {name}; export the bundle again")
        if tuple(tensor.shape) != shape:
            raise BundleError(
                f"the tensor {name} has the shape {list(tensor.shape)}, router.json asks for {list(shape)}; "
                "export the bundle again"
            )
        return tensor

    def _finite(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.isfinite().all():
            raise BundleError(
                f"{name} holds numbers that are not finite in {str(tensor.dtype).removeprefix('torch.')}; export the "
                "bundle again, or compute in bfloat16"
            )
        return tensor


@dataclass
class DeviceCandidates:
    """What the kernels read of a zoo, with room for more rows than it has; rows beyond it are zeros.

    Attributes:
        start: fp32 ``[C, D + E]``, where each row starts and its evidence, C = candidates x views.
        rows: the first D of it in the dtype to compute in.
        projected: query, key and value of layer `inject_at`, ``[C, 3 D]``: the same for every instruction.
        memory: cached keys and values ``[C, L - inject_at, 2, K, D]``, or None for K = 0.
    """

    start: Tensor
    rows: Tensor
    projected: Tensor
    memory: Tensor | None

    @classmethod
    def empty(cls, weights: Weights, rows: int) -> DeviceCandidates:
        """Zeros for `rows` rows."""
        config, on = weights.config, weights.device
        width = config.trunk.hidden
        memory = None
        if config.memory_rows:
            shape = (rows, config.late_layers, 2, config.memory_rows, width)
            memory = torch.zeros(shape, dtype=weights.dtype, device=on)
        return cls(
            torch.zeros(rows, width + config.evidence_size, device=on),
            torch.zeros(rows, width, dtype=weights.dtype, device=on),
            torch.zeros(rows, 3 * width, dtype=weights.dtype, device=on),
            memory,
        )

    def load(self, weights: Weights, table: CandidateTable) -> None:
        """Take a snapshot, and compute what depends on its candidates alone.

        Each candidate is computed by itself: a probability does not depend on the zoo it was loaded with.

        Raises:
            ExecutorError: the snapshot belongs to a router of other sizes, is larger than this, or is not finite.
        """
        config = weights.config
        used = self._fitting_rows(weights, table)
        start = torch.from_numpy(table.inquiry_start.copy()).flatten(0, 1)
        self._fill(self.start, start)
        self._fill(self.rows, start[:, : config.trunk.hidden].to(weights.dtype))
        if self.memory is not None and table.memory is not None:
            self._fill(self.memory, torch.from_numpy(table.memory.copy()).flatten(0, 1).to(weights.dtype))
        linear(self.start[:, : config.trunk.hidden], weights.start.weight, weights.start.bias, self.projected)
        if not all(self._finite(tensor[:used]) for tensor in (self.start, self.projected)):
            raise ExecutorError("the candidate table is not finite on the device; add the candidates again")

    @property
    def regions(self) -> list[Tensor]:
        """All of it, piece by piece; those of two zoos with the same room have the same sizes."""
        return [self.start, self.rows, self.projected, *([] if self.memory is None else [self.memory])]

    @staticmethod
    def _fill(target: Tensor, source: Tensor) -> None:
        target[: len(source)].copy_(source)
        target[len(source) :].zero_()

    @staticmethod
    def _finite(tensor: Tensor) -> bool:
        return bool(tensor.isfinite().all())

    def _fitting_rows(self, weights: Weights, table: CandidateTable) -> int:
        config = weights.config
        wanted = (config.views, config.trunk.hidden + config.evidence_size)
        if table.inquiry_start.shape[1:] != wanted:
            raise ExecutorError(
                f"the candidate table has starts of {list(table.inquiry_start.shape[1:])}, the router {list(wanted)}; "
                "encode the candidates with this router"
            )
        memory = (config.views, config.late_layers, 2, config.memory_rows, config.trunk.hidden)
        given = None if table.memory is None else table.memory.shape[1:]
        if given != (memory if config.memory_rows else None):
            raise ExecutorError("the candidate table has memory of other sizes than the router; encode it again")
        used = len(table) * config.views
        if used > len(self.start):
            raise ExecutorError(f"a zoo of {used} rows does not fit a table of {len(self.start)}")
        return used
