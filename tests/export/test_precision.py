"""Exports in every precision: one file, right on odd shapes, true to its bundle, whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

from modelsat_engine.errors import BundleError, DataError, OptionError
from modelsat_engine.export import precision as precision_module
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.graph import Graph
from modelsat_engine.export.low_precision import lower, rounded_to
from modelsat_engine.export.network import network_of
from modelsat_engine.export.operator_support import unsupported
from modelsat_engine.export.precision import PRECISIONS, Precision, export_onnx, load_export, router_model
from modelsat_engine.export.verify import verify_file
from modelsat_engine.runtime.executors.onnxruntime import OnnxRuntimeExecutor
from tests.export.random_bundle import KINDS, write_random_bundle

#: (batch, tokens, zoo): one of everything, and sizes that are multiples of nothing.
SHAPES = ((1, 1, 1), (5, 37, 13), (3, 64, 2), (17, 7, 29))
#: Largest and mean difference that a random network of 24 columns keeps: its weights are far larger than a trained
#: one's, and a static int8 scale misses what some rows of it do.
KEPT = {"fp32": (1e-5, 1e-6), "fp16": (5e-3, 1e-3), "bf16": (5e-2, 1e-2), "int8": (0.6, 0.08)}


@pytest.fixture(scope="module", params=KINDS)
def any_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("kind") / "bundle", **KINDS[request.param])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("shared") / "bundle", relevance_hidden=13)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As `shared`, with other weights."""
    return write_random_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=4, relevance_hidden=13)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_of_any_kind_and_precision_says_what_the_network_says(
    any_kind: Bundle, precision: Precision, tmp_path: Path
) -> None:
    path = tmp_path / "router.onnx"
    record = export_onnx(any_kind, path, precision)
    assert sorted(os.listdir(tmp_path)) == ["router.onnx"], "one file, its weights inside"
    assert record["bytes"] == path.stat().st_size
    found = verify_file(any_kind, path, SHAPES, seed=5)
    assert [(row["batch"], row["zoo"]) for row in found["shapes"]] == [(batch, zoo) for batch, _, zoo in SHAPES]
    assert found["max_abs_dp"] < KEPT[precision][0], found
    assert found["mean_abs_dp"] < KEPT[precision][1], found
    assert unsupported(onnx.load(path)) == []


def test_every_precision_takes_the_same_inputs_and_gives_float32(shared: Bundle) -> None:
    for precision in PRECISIONS:
        graph = router_model(shared, precision).graph
        axes = {
            value.name: (value.type.tensor_type.elem_type, [dim.dim_param or dim.dim_value for dim in shape])
            for value in (*graph.input, *graph.output)
            for shape in [value.type.tensor_type.shape.dim]
        }
        assert axes == {
            "input_ids": (TensorProto.INT64, ["batch", "tokens"]),
            "attention_mask": (TensorProto.INT64, ["batch", "tokens"]),
            "inquiry_start": (TensorProto.FLOAT, ["zoo", 1, 24 + 11]),
            "probability": (TensorProto.FLOAT, ["batch", "zoo"]),
            "instruction_embedding": (TensorProto.FLOAT, ["batch", 24]),
        }


@pytest.mark.parametrize(
    ("precision", "low"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16), ("fp32", TensorProto.FLOAT)]
)
def test_products_are_in_the_precision_and_sums_that_matter_in_float32(
    shared: Bundle, precision: Precision, low: int
) -> None:
    graph = Graph(router_model(shared, precision))
    types: dict[str, set[int]] = {}
    for node in graph.nodes:
        types.setdefault(node.op_type, set()).add(graph.types[node.output[0]])
    vectors = {
        node.output[0]
        for node in graph.nodes
        if node.op_type == "MatMul"
        and graph.constants.get(node.input[1]) is not None
        and graph.constants[node.input[1]].ndim == 1
    }
    products = [node for node in graph.nodes if node.op_type == "MatMul" and node.output[0] not in vectors]
    assert {graph.types[node.output[0]] for node in products} == {low}
    assert len(vectors) == 1, "the scoring head"
    for exact in ("LayerNormalization", "Softmax", "Exp", "Gelu", "ReduceSum", "Sigmoid", "Gemm"):
        assert types[exact] == {TensorProto.FLOAT}, exact
    assert "Attention" not in types


def test_bf16_is_emulated_to_what_onnx_itself_computes(shared: Bundle) -> None:
    """The reference evaluator has real bf16 values; our stand-in for ONNX Runtime rounds where they are."""
    model = router_model(shared, "bf16")
    generator = np.random.default_rng(8)
    feeds = {
        "input_ids": generator.integers(1, 90, (2, 5)),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "inquiry_start": generator.standard_normal((3, 1, 35)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(rounded_to(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (emulated,) = session.run(["probability"], feeds)
    (expected,) = ReferenceEvaluator(model).run(["probability"], feeds)
    (exact,) = ReferenceEvaluator(router_model(shared, "fp32")).run(["probability"], feeds)
    assert np.abs(emulated - expected).max() < 0.5 * np.abs(exact - expected).max()
    assert np.abs(emulated - exact).max() > 1e-5, "it rounds"


def test_int8_weights_are_the_bundle_s_own_and_activations_have_one_scale(shared: Bundle) -> None:
    model = router_model(shared, "int8")
    stored = load_file(shared.file("weights.safetensors"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantised = {name: array for name, array in constants.items() if array.dtype == np.int8 and array.ndim == 2}
    seen = set()
    for name, array in quantised.items():
        parameters = [f"{part}.weight" for part in name.removesuffix(".weight_int8").split("+")]
        seen |= set(parameters)
        assert np.array_equal(array.T, np.concatenate([stored[parameter] for parameter in parameters])), name
        scales = np.concatenate([stored[f"{parameter}_scale"] for parameter in parameters])
        np.testing.assert_allclose(constants[name.replace("_int8", "_scale")], scales, rtol=1e-6)
    assert len(seen) == 4 * 6, "query, key, value, output, up and down of four layers"
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["DequantizeLinear"] == 2 * counts["QuantizeLinear"] > 20


def test_the_int8_graph_means_the_same_to_onnx_and_to_onnxruntime(shared: Bundle) -> None:
    model = router_model(shared, "int8")
    generator = np.random.default_rng(9)
    feeds = {
        "input_ids": generator.integers(1, 90, (2, 7)),
        "attention_mask": np.array([[1] * 7, [1] * 4 + [0] * 3]),
        "inquiry_start": generator.standard_normal((3, 1, 35)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours, theirs = session.run(["probability"], feeds)[0], ReferenceEvaluator(model).run(["probability"], feeds)[0]
    exact = ReferenceEvaluator(router_model(shared, "fp32")).run(["probability"], feeds)[0]
    assert np.abs(ours - theirs).max() < 0.2 * np.abs(theirs - exact).max(), "a tie may round the other way, no more"


def test_onnxruntime_runs_int8_products(shared: Bundle, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    model = router_model(shared, "int8")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert counts["MatMulIntegerToFloat"] == sum(node.op_type == "QuantizeLinear" for node in model.graph.node), counts
    assert counts["DequantizeLinear"] == 0, "no layer is left to float32"


def test_calibration_instructions_set_the_scales(shared: Bundle) -> None:
    def scales(model: onnx.ModelProto) -> list[float]:
        return [
            float(numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer
            if tensor.name.endswith("_scale") and not tensor.dims
        ]

    few, usual = (scales(router_model(shared, "int8", texts)) for texts in (["prove that two is two"], None))
    assert len(few) == len(usual)
    assert np.mean(np.array(few) < np.array(usual)) > 0.8
    with pytest.raises(DataError, match="calibration instruction cannot be read"):
        router_model(shared, "int8", [""])
    with pytest.raises(DataError, match="no calibration instruction"):
        router_model(shared, "int8", [])
    with pytest.raises(OptionError, match="only int8 is calibrated"):
        router_model(shared, "fp16", ["prove"])
    with pytest.raises(OptionError, match="'fp8' is not known; use fp32, fp16, bf16, int8"):
        router_model(shared, "fp8")  # type: ignore[arg-type]


def test_the_file_says_whose_it_is_and_what_goes_in_and_out(shared: Bundle, tmp_path: Path) -> None:
    export_onnx(shared, tmp_path / "router.onnx", "fp16")
    session = onnxruntime.InferenceSession(tmp_path / "router.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["modelsat.bundle_hash"] == shared.hash
    assert facts["modelsat.bundle"] == shared.label
    assert (facts["modelsat.format_version"], facts["modelsat.precision"]) == ("1", "fp16")
    assert {f"modelsat.input.{value.name}" for value in session.get_inputs()} <= facts.keys()
    assert {f"modelsat.output.{value.name}" for value in session.get_outputs()} <= facts.keys()
    assert "[zoo, 1, 24 + 11]" in facts["modelsat.input.inquiry_start"]
    content = (tmp_path / "router.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content, "no path of the machine that exported it"
    assert str(Path(__file__).parents[2]).encode() not in content


def test_an_export_is_the_same_every_time(shared: Bundle) -> None:
    first, second = (router_model(shared, "int8").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_the_executor_runs_an_export_of_its_own_bundle_only(
    shared: Bundle, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelsat_engine.runtime.executors import GRAPH_VARIABLE, create_executor

    path = tmp_path / "router.onnx"
    export_onnx(shared, path, "fp16")
    assert OnnxRuntimeExecutor(shared, 1, graph=path).name == "onnxruntime"
    with pytest.raises(BundleError, match=r"is an export of tiny@.*, not of tiny@.*export it again"):
        OnnxRuntimeExecutor(other, 1, graph=path)
    with pytest.raises(BundleError, match=r"no router that 'modelsat export' wrote"):
        OnnxRuntimeExecutor(shared, 1, graph=shared.file("router.onnx"))
    monkeypatch.setenv(GRAPH_VARIABLE, str(tmp_path / "nowhere.onnx"))
    with pytest.raises(Exception, match=r"there is no graph .*nowhere\.onnx; write it: modelsat export --to onnx"):
        create_executor("onnxruntime", shared, 1)


def test_a_file_of_another_bundle_or_of_none_is_refused(shared: Bundle, other: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "router.onnx"
    export_onnx(other, path)
    with pytest.raises(BundleError, match=r"is an export of tiny@.*, not of"):
        load_export(shared, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not an ONNX file, or is cut short"):
        load_export(shared, path)
    with pytest.raises(BundleError, match="no router that 'modelsat export' wrote"):
        load_export(shared, shared.file("capability.onnx"))
    with pytest.raises(DataError, match=r"cannot read .*nowhere"):
        load_export(shared, tmp_path / "nowhere")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    other = {**bundle.config, "trunk": {**bundle.config["trunk"], "layers": 7}}
    with pytest.raises(BundleError, match=r"not those of the network in router\.json.*export the bundle again"):
        network_of(Bundle(bundle.path, other, bundle.aptitude_test, bundle.zoo, bundle.hash))


def test_a_weight_beyond_fp16_is_refused_by_name(shared: Bundle) -> None:
    model = router_model(shared, "fp32")
    graph = Graph(model)
    name = "trunk.layers.0.up.weight"
    graph.constants[name] = graph.constants[name] + np.float32(1e6)
    with pytest.raises(BundleError, match=rf"{name} holds numbers that float16 does not; export it as bf16"):
        lower(graph, TensorProto.FLOAT16)
    lower(Graph(model), TensorProto.BFLOAT16)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere; nobody may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_known_before_the_work(shared: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(precision_module, "router_model", too_late)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with without_privileges(), pytest.raises(DataError, match=r"cannot write .*router\.onnx: Permission denied"):
            export_onnx(shared, Path(folder) / "router.onnx")
        assert os.listdir(folder) == []


def test_a_missing_folder_is_one_error(shared: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*router\.onnx: No such file or directory"):
        export_onnx(shared, tmp_path / "missing" / "router.onnx")


def test_a_full_disk_leaves_the_older_file_and_nothing_else(shared: Bundle, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails in the middle, as it does there."""
    path = tmp_path / "router.onnx"
    path.write_bytes(b"older")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from modelsat_engine.export.bundle import Bundle\n"
        "from modelsat_engine.export.precision import export_onnx\n"
        "from modelsat_engine.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: export_onnx(Bundle.load(sys.argv[1]), Path(sys.argv[2]))\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared.path), str(path)], capture_output=True, text=True, check=True
    )
    assert f"cannot write {path}: File too large" in done.stdout
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["router.onnx"]


def _export(bundle: str, path: str, precision: Precision) -> None:
    export_onnx(Bundle.load(bundle), Path(path), precision)


def test_two_exporters_at_once_leave_one_whole_file(shared: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "router.onnx"
    context = multiprocessing.get_context("spawn")
    exporters = [context.Process(target=_export, args=(str(shared.path), str(path), p)) for p in ("fp32", "int8")]
    for exporter in exporters:
        exporter.start()
    for exporter in exporters:
        exporter.join()
    assert [exporter.exitcode for exporter in exporters] == [0, 0]
    model, facts = load_export(shared, path)
    assert facts["precision"] in ("fp32", "int8")
    onnx.checker.check_model(model, full_check=True)
    assert os.listdir(tmp_path) == ["router.onnx"]


def test_what_tensorrt_refuses_is_found() -> None:
    def model(opset: int, *nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
        out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = helper.make_graph(list(nodes), "g", [value], [out], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    scale, five = np.array(0.1, np.float32), np.array(5, np.int8)
    quantise = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    assert unsupported(model(20, *quantise, s=scale, z=np.array(0, np.int8))) == []
    assert "zero point is not 0" in unsupported(model(20, *quantise, s=scale, z=five))[0]
    assert "quantises to uint8" in unsupported(model(20, *quantise, s=scale, z=np.array(0, np.uint8)))[0]
    assert "not in the table" in unsupported(model(20, helper.make_node("Det", ["x"], ["y"])))[0]
    axes = [helper.make_node("Shape", ["x"], ["a"]), helper.make_node("ReduceSum", ["x", "a"], ["y"])]
    assert "axes are computed" in unsupported(model(20, *axes))[0]
    assert "opset 25" in unsupported(model(25, helper.make_node("Gelu", ["x"], ["y"])))[0]


def test_a_missing_extra_is_one_error_that_names_it(tmp_path: Path) -> None:
    for missing in ("torch", "onnx"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from modelsat_engine.cli import cli; cli.main(['export', '--to', 'onnx'])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "pip install 'modelsat-engine[export]'" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert os.listdir(tmp_path) == [], "nothing half done"


def test_json_of_the_command_can_be_read(shared: Bundle, tmp_path: Path) -> None:
    arguments = ["export", "--to", "onnx", "--bundle", str(shared.path), "-o", "r.onnx", "--verify", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "modelsat_engine", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["verify"]["holds"] is True
    assert record["verify"]["route_agreement"] == 1.0
    assert sorted(os.listdir(tmp_path)) == ["r.candidates.npz", "r.onnx", "r.tokenizer.json"]
