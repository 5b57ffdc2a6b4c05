"""`modelsat export --to onnx`: one self-contained graph of a router, in the precision that is asked for.

All precisions come from one trace of the network in evaluation form. What differs is in the graph, as casts and as
quantisation nodes, so that ONNX Runtime and a strongly typed TensorRT network run the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from modelsat_engine.errors import BundleError, DataError, InstructionError, MissingExtraError, OptionError
from modelsat_engine.export.bundle import FORMAT_VERSION, Bundle
from modelsat_engine.export.onnx import OPSET, memory_shape, trace_router

try:
    import onnx
    from onnx import TensorProto
except ImportError:
    raise MissingExtraError("exporting a router", "export") from None

from modelsat_engine.commands.files.atomic import atomic_file
from modelsat_engine.export.calibration import observe
from modelsat_engine.export.calibration_texts import calibration_candidates, calibration_instructions
from modelsat_engine.export.graph import Graph
from modelsat_engine.export.low_precision import lower
from modelsat_engine.export.network import network_of
from modelsat_engine.export.qdq import linear_inputs, quantise
from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.runtime.candidate_table import EncodedCandidates
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.instruction import InstructionTokenizer

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_LARGEST_FILE_BYTES = 2**31 - 1  # what one protobuf message may hold
_PREFIX = "modelsat."
_AGAIN = "export it again: modelsat export --to onnx"


def export_onnx(
    bundle: Bundle, output: Path, precision: Precision = "fp32", *, calibration: Sequence[str] | None = None
) -> dict[str, Any]:
    """Writes a router as one ONNX file that holds its weights; the file appears whole or not at all.

    Inputs ``input_ids`` and ``attention_mask`` int64 ``[batch, tokens]``, ``inquiry_start`` float32
    ``[zoo, R, D + E]`` and, for a router with memory rows, ``memory``; outputs ``probability`` ``[batch, zoo]`` and
    ``instruction_embedding`` ``[batch, D]``, all float32 whatever the precision inside. The file's metadata says whose
    router it is (``modelsat.bundle_hash``), in which precision, and what each input and output means.

    Args:
        bundle: the router.
        output: the file; an older one is replaced.
        precision: "fp32"; "fp16" or "bf16" for products in 16 bits; "int8" for quantised linear layers.
        calibration: instructions that int8 scales are set on; None is a list of the package's own.

    Returns:
        ``onnx``, ``precision``, ``bytes``, ``sha256``, ``opset``, ``bundle``, ``bundle_hash``.

    Raises:
        OptionError: an unknown precision, or calibration instructions for another one than int8.
        BundleError: the weights do not fit router.json or the precision, or are too large for one ONNX file.
        DataError: the file cannot be written.
    """
    with atomic_file(output) as file:  # first, so that a folder that takes no file is known before the work
        content = router_model(bundle, precision, calibration).SerializeToString(deterministic=True)
        file.write(content)
    return {
        "onnx": str(output),
        "precision": precision,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "opset": OPSET,
        "bundle": bundle.label,
        "bundle_hash": bundle.hash,
    }


def router_model(bundle: Bundle, precision: Precision, calibration: Sequence[str] | None = None) -> onnx.ModelProto:
    """The graph that `export_onnx` writes; arguments and errors as there."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r} is not known; use {', '.join(PRECISIONS)}")
    if calibration is not None and precision != "int8":
        raise OptionError(f"only int8 is calibrated; leave the calibration instructions out for {precision}")
    traced, config = _traced(bundle)
    graph = Graph(traced)
    if precision == "int8":
        _calibrate_and_quantise(graph, bundle, calibration)
    elif precision != "fp32":
        lower(graph, TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16)
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    _describe(model, config, {"bundle": bundle.label, "bundle_hash": bundle.hash, "precision": precision})
    return model


@lru_cache(maxsize=1)  # whoever exports in one precision often wants another
def _traced(bundle: Bundle) -> tuple[onnx.ModelProto, NetworkConfig]:
    """The network as a float32 graph whose weights have the names of its parameters."""
    network = network_of(bundle)
    size = 4 * sum(parameter.numel() for parameter in network.trunk.parameters())
    if size > _LARGEST_FILE_BYTES:
        raise BundleError(f"{bundle.label} has {size / 1e9:.1f} GB of float32 weights; an ONNX file holds 2 GB")
    graph = Graph(trace_router(network, fold=True))
    graph.name_constants({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    return graph.model(), network.config


def _calibrate_and_quantise(graph: Graph, bundle: Bundle, calibration: Sequence[str] | None) -> None:
    """Sets int8 scales on the instructions and puts the graph's linear layers between Q and DQ, in place."""
    limit = int(bundle.config["tokenizer"]["max_instruction_tokens"])
    tokenizer = InstructionTokenizer.from_file(bundle.file("tokenizer.json"), limit)
    texts = calibration_instructions(bundle.aptitude_test) if calibration is None else calibration
    try:
        tokens = [tokenizer.tokenise(text).token_ids for text in texts]
    except InstructionError as error:
        raise DataError(f"a calibration instruction cannot be read: {error}") from error
    if not tokens:
        raise DataError("there is no calibration instruction; give some, or none of your own at all")
    profiles = calibration_candidates(bundle.aptitude_test, bundle.zoo)
    candidates = CapabilityEncoder(bundle, tokenizer).encode(profiles)
    values = linear_inputs(graph)
    quantise(graph, observe(graph.model(), values, _feeds(tokens, candidates)))
    # int8 rows cannot be looked up in TensorRT; in 16 bits they are half the size and as good
    lower(graph, TensorProto.FLOAT16, products=False)


def _feeds(tokens: Sequence[np.ndarray], candidates: EncodedCandidates) -> Iterator[dict[str, np.ndarray]]:
    table = {"inquiry_start": candidates.inquiry_start}
    if candidates.memory is not None:
        table["memory"] = candidates.memory
    for ids in tokens:
        row = ids.astype(np.int64)[None]
        yield {"input_ids": row, "attention_mask": np.ones_like(row), **table}


def _describe(model: onnx.ModelProto, config: NetworkConfig, facts: Mapping[str, str]) -> None:
    """Writes into the file's metadata whose router it is and what its inputs and outputs mean."""
    wide = f"{config.trunk.hidden}" + (f" + {config.evidence_size}" if config.evidence_size else "")
    meaning = {
        "input.input_ids": "int64 [batch, tokens]: token ids of tokenizer.json, special tokens included, padded with "
        f"any id; at most {config.trunk.max_positions} tokens",
        "input.attention_mask": "int64 [batch, tokens]: 1 at real tokens, 0 at padding",
        "input.inquiry_start": f"float32 [zoo, {config.views}, {wide}]: the candidates, one row a view, as "
        "'modelsat candidates table' or 'modelsat export --to onnx' writes them",
        "output.probability": "float32 [batch, zoo]: calibrated probability that the candidate answers correctly",
        "output.instruction_embedding": f"float32 [batch, {config.trunk.hidden}]: mean of the instruction's rows",
    }
    recalled = memory_shape(config)
    if recalled is not None:
        shape = ", ".join(map(str, (config.views, *recalled)))
        meaning["input.memory"] = f"float32 [zoo, {shape}]: the candidates' memory rows, from the same file"
    known = {**facts, "format_version": str(FORMAT_VERSION), "layout": config.layout, **meaning}
    onnx.helper.set_model_props(model, {_PREFIX + key: known[key] for key in sorted(known)})
    model.producer_name = "modelsat-engine"


def read_export(path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """An ONNX file and what it says of itself: ``bundle_hash``, ``format_version``, ``precision`` and so on.

    Raises:
        DataError: the file cannot be read, or is no ONNX file. One that is not ours says nothing of itself.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own class, which lies in another place in every version
        raise DataError(f"{path} is not an ONNX file, or is cut short; {_AGAIN}") from error
    facts = {
        entry.key.removeprefix(_PREFIX): entry.value for entry in model.metadata_props if entry.key.startswith(_PREFIX)
    }
    return model, facts


def load_export(bundle: Bundle, path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """As `read_export`, for a file that must be an export of this very bundle.

    Raises:
        BundleError: it is an export of another bundle, of another format version, or not an export at all.
    """
    model, facts = read_export(path)
    if not {"bundle_hash", "format_version", "precision"} <= facts.keys():
        raise BundleError(f"{path} is an ONNX file, but no router that 'modelsat export' wrote; {_AGAIN}")
    if facts["format_version"] != str(FORMAT_VERSION):
        raise BundleError(f"{path} has format version {facts['format_version']}, need {FORMAT_VERSION}; {_AGAIN}")
    if facts["bundle_hash"] != bundle.hash:
        raise BundleError(f"{path} is an export of {facts.get('bundle')}, not of {bundle.label}; {_AGAIN}")
    if facts["precision"] not in PRECISIONS:
        raise BundleError(f"{path} is in the precision {facts['precision']!r}, which this version does not know")
    return model, facts
