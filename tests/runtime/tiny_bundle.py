"""Writes a complete router bundle of a few kilobytes, so that the runtime is tested without a trained one.

Run as a script it writes one for a person to play with: ``python tests/runtime/tiny_bundle.py DIRECTORY``.

The graphs are toys with the contract's inputs and outputs. They keep what the runtime relies on: every row is
computed on its own, padding is masked, and the result depends on every token, its place, and the candidate.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest, CapabilityProfile, save_zoo
from modelsat_engine.export.bundle import write_manifest

HIDDEN = 24
LAYERS = 3
INJECT_AT = 1
LATE_LAYERS = LAYERS - INJECT_AT
MAX_INSTRUCTION_TOKENS = 64
MAX_NOTE_TOKENS = 8
SUBJECTS = ("algebra", "botany", "chess", "drama", "ethics")
WORDS = ("the", "a", "of", "and", "prove", "that", "square", "root", "two", "is", "what", "user", "system", "assistant")


def write_tiny_bundle(
    directory: Path,
    *,
    encoder: str = "taskwise",
    memory_rows: int = 0,
    views: int = 2,
    candidates: int = 3,
    seed: int = 7,
) -> Path:
    """A bundle with ``candidates`` candidates called model-0, model-1, ...; model-i costs (i + 1) / 4 USD."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    test = AptitudeTest(
        tuple(
            AptitudeTask(subject, tuple(f"{subject} {k}" for k in range(5)), tuple(f"{subject}/{i}" for i in range(4)))
            for subject in SUBJECTS
        )
    )
    test.save(directory / "aptitude.json")
    save_zoo(directory / "zoo.json", [tiny_profile(f"model-{i}", i, test) for i in range(candidates)])
    weights = _weights(rng, tokenizer.get_vocab_size(), memory_rows, views)
    save_file(weights, str(directory / "weights.safetensors"))
    onnx.save(_router_graph(weights, memory_rows, views), str(directory / "router.onnx"))
    capability = _text_graph(weights, views) if encoder == "text" else _capability_graph(weights, memory_rows, views)
    onnx.save(capability, str(directory / "capability.onnx"))
    config = {
        "format_version": 1,
        "name": "tiny",
        "layout": "shared",
        "trunk": {"kind": "encoder", "layers": LAYERS, "hidden": HIDDEN, "heads": 2, "max_positions": 64},
        "inject_at": INJECT_AT,
        "memory_rows": memory_rows,
        "views": views,
        "head": "yes_no",
        "capability_encoder": {"kind": encoder},
        "tokenizer": {"max_instruction_tokens": MAX_INSTRUCTION_TOKENS, "max_note_tokens": MAX_NOTE_TOKENS},
        "aptitude_test_id": test.id,
        "license": "Apache-2.0",
    }
    (directory / "router.json").write_text(json.dumps(config))
    write_manifest(directory)
    return directory


def tiny_profile(name: str, skill: int, test: AptitudeTest, **others: object) -> CapabilityProfile:
    """A candidate of the tiny test: different skills give different counts, price (skill + 1) / 4."""
    correct = {task.name: (skill * 7 + 3 * index) % 5 for index, task in enumerate(test.tasks)}
    total = {task.name: 4 for task in test.tasks}
    fields = {"usd_per_million_tokens": (skill + 1) / 4, "test_id": test.id, "notes": f"model {skill}", **others}
    return CapabilityProfile(name, correct, total, **fields)  # type: ignore[arg-type]


def tiny_tokenizer() -> Tokenizer:
    """WordPiece that knows every ASCII letter and digit, some punctuation and a few words."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *".,;:!?[]()'\"-", *WORDS]
    entries += [c for c in characters if c not in entries] + [f"##{c}" for c in characters]
    vocab = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return tokenizer


def _weights(rng: np.random.Generator, vocab: int, memory_rows: int, views: int) -> dict[str, np.ndarray]:
    shapes = {
        "word": (vocab, HIDDEN),
        "position": (MAX_INSTRUCTION_TOKENS + 1, HIDDEN),
        "head": (HIDDEN, 1),
        "tasks": (len(SUBJECTS), views * HIDDEN),
        "note": (vocab, HIDDEN),
    }
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if memory_rows:
        shape = (1, 1, LATE_LAYERS, 2, memory_rows, 1)
        weights["memory"] = rng.standard_normal(shape).astype(np.float32)
    return weights


def _router_graph(weights: dict[str, np.ndarray], memory_rows: int, views: int) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Gather", ["word", "input_ids"], ["words"]),
        node("CumSum", ["attention_mask", "one"], ["place"]),  # axis 1
        node("Gather", ["position", "place"], ["positions"]),
        node("Add", ["words", "positions"], ["rows"]),  # [B, S, D]
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "minus_one"], ["mask_column"]),
        node("Mul", ["rows", "mask_column"], ["real_rows"]),
        node("ReduceSum", ["real_rows", "one"], ["row_sum"], keepdims=0),
        node("ReduceSum", ["mask", "one"], ["row_count"], keepdims=1),
        node("Div", ["row_sum", "row_count"], ["instruction_embedding"]),  # [B, D]
        node("Reshape", ["inquiry_start", "flat"], ["inquiry"]),  # [M R, D]
        node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        node("MatMul", ["inquiry", "columns"], ["similarity"]),  # [B, M R, S]
        node("Sub", ["mask", "one_float"], ["absent"]),
        node("Mul", ["absent", "huge"], ["penalty"]),
        node("Unsqueeze", ["penalty", "one"], ["penalty_row"]),
        node("Add", ["similarity", "penalty_row"], ["masked"]),
        node("Softmax", ["masked"], ["attention"], axis=-1),
        node("MatMul", ["attention", "rows"], ["context"]),  # [B, M R, D]
        node("Add", ["context", "inquiry"], ["with_inquiry"]),
    ]
    last = "with_inquiry"
    inputs = [
        _input("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        _input("attention_mask", TensorProto.INT64, ["batch", "tokens"]),
        _input("inquiry_start", TensorProto.FLOAT, ["zoo", views, HIDDEN]),
    ]
    if memory_rows:
        inputs.append(_input("memory", TensorProto.FLOAT, ["zoo", views, LATE_LAYERS, 2, memory_rows, HIDDEN]))
        nodes += [
            node("ReduceMean", ["memory"], ["memory_mean"], axes=[2, 3, 4], keepdims=0),
            node("Reshape", ["memory_mean", "flat"], ["memory_rows"]),
            node("Add", [last, "memory_rows"], ["with_memory"]),
        ]
        last = "with_memory"
    nodes += [
        node("Tanh", [last], ["state"]),
        node("MatMul", ["state", "head"], ["logit"]),  # [B, M R, 1]
        node("Sigmoid", ["logit"], ["yes"]),
        node("Reshape", ["yes", "by_view"], ["yes_by_view"]),  # [B, M, R]
        node("ReduceMean", ["yes_by_view"], ["probability"], axes=[2], keepdims=0),
    ]
    constants = {
        "one": np.array([1]),
        "minus_one": np.array([-1]),
        "one_float": np.array(1, np.float32),
        "huge": np.array(1e9, np.float32),
        "flat": np.array([-1, HIDDEN]),
        "by_view": np.array([0, -1, views]),
        **{name: weights[name] for name in ("word", "position", "head")},
    }
    outputs = [
        _input("probability", TensorProto.FLOAT, ["batch", "zoo"]),
        _input("instruction_embedding", TensorProto.FLOAT, ["batch", HIDDEN]),
    ]
    return _model("router", nodes, inputs, outputs, constants)


def _capability_graph(weights: dict[str, np.ndarray], memory_rows: int, views: int) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Add", ["total", "one_float"], ["smoothed"]),
        node("Div", ["correct", "smoothed"], ["share"]),  # [M, T]
        node("MatMul", ["share", "tasks"], ["starts"]),
        node("Reshape", ["starts", "by_view"], ["start"]),  # [M, R, D]
        node("Gather", ["note", "note_ids"], ["note_rows"]),
        node("Cast", ["note_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "minus_one"], ["mask_column"]),
        node("Mul", ["note_rows", "mask_column"], ["real_rows"]),
        node("ReduceSum", ["real_rows", "one"], ["note_sum"], keepdims=1),  # [M, 1, D]
        node("Add", ["start", "note_sum"], ["sum"]),
        node("Tanh", ["sum"], ["inquiry_start"]),
    ]
    outputs = [_input("inquiry_start", TensorProto.FLOAT, ["zoo", views, HIDDEN])]
    constants = {
        "one": np.array([1]),
        "minus_one": np.array([-1]),
        "one_float": np.array(1, np.float32),
        "by_view": np.array([-1, views, HIDDEN]),
        "tasks": weights["tasks"],
        "note": weights["note"],
    }
    if memory_rows:
        nodes += [
            node("Unsqueeze", ["inquiry_start", "three_axes"], ["spread"]),  # [M, R, 1, 1, 1, D]
            node("Mul", ["spread", "memory_scale"], ["memory"]),
        ]
        constants |= {"three_axes": np.array([2, 3, 4]), "memory_scale": weights["memory"]}
        outputs.append(_input("memory", TensorProto.FLOAT, ["zoo", views, LATE_LAYERS, 2, memory_rows, HIDDEN]))
    inputs = [
        _input("correct", TensorProto.FLOAT, ["zoo", len(SUBJECTS)]),
        _input("total", TensorProto.FLOAT, ["zoo", len(SUBJECTS)]),
        _input("note_ids", TensorProto.INT64, ["zoo", "note_tokens"]),
        _input("note_mask", TensorProto.INT64, ["zoo", "note_tokens"]),
    ]
    return _model("capability", nodes, inputs, outputs, constants)


def _text_graph(weights: dict[str, np.ndarray], views: int) -> onnx.ModelProto:
    """Capability as text, K = 0: a sum of word rows, each weighed by its place so that the order matters."""
    node = helper.make_node
    nodes = [
        node("Gather", ["note", "capability_ids"], ["rows"]),  # [M, R, S, D]
        node("CumSum", ["capability_mask", "last_axis"], ["place"]),
        node("Mul", ["place", "capability_mask"], ["real_place"]),
        node("Cast", ["real_place"], ["weight"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weight", "minus_one"], ["weight_column"]),
        node("Mul", ["rows", "weight_column"], ["weighed"]),
        node("ReduceMean", ["weighed"], ["mean"], axes=[2], keepdims=0),
        node("ReduceMean", ["weight_column"], ["mean_weight"], axes=[2], keepdims=0),
        node("Div", ["mean", "mean_weight"], ["inquiry_start"]),  # [M, R, D]; padding cancels out
    ]
    inputs = [
        _input("capability_ids", TensorProto.INT64, ["zoo", views, "tokens"]),
        _input("capability_mask", TensorProto.INT64, ["zoo", views, "tokens"]),
    ]
    outputs = [_input("inquiry_start", TensorProto.FLOAT, ["zoo", views, HIDDEN])]
    constants = {"last_axis": np.array(2), "minus_one": np.array([-1]), "note": weights["note"]}
    return _model("capability", nodes, inputs, outputs, constants)


def _input(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    print(write_tiny_bundle(Path(sys.argv[1])))
