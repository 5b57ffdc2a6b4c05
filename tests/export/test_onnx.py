"""Exported graphs: ONNX Runtime agrees with torch, axes stay symbolic, weights are stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from modelsat_engine.errors import BundleError
from modelsat_engine.export.onnx import export_capability, export_router, tensor_places
from modelsat_engine.export.quantization import QuantizedLinear, quantize_network, quantize_rows
from modelsat_engine.export.verify import compare_with_onnxruntime
from modelsat_engine.model.network import ModelSatNetwork
from tests.model.random_networks import make_network

SHAPES = ((1, 1, 1), (5, 37, 13), (2, 60, 101))


def write_graphs(network: ModelSatNetwork, directory: Path) -> None:
    quantize_network(network)
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, directory / "weights.safetensors"
    )
    export_router(network, directory)
    export_capability(network, directory)


@pytest.mark.parametrize(("memory_rows", "views", "head"), [(0, 1, "yes_no"), (8, 1, "regression"), (1, 1, "yes_no")])
def test_onnxruntime_agrees_with_torch_on_unlike_shapes(
    tmp_path: Path, memory_rows: int, views: int, head: str
) -> None:
    network = make_network(memory_rows=memory_rows, views=views, head=head)
    write_graphs(network, tmp_path)
    assert compare_with_onnxruntime(network, tmp_path, SHAPES) < 1e-5


def test_relevance_head_exports(tmp_path: Path) -> None:
    network = make_network(relevance_hidden=13)
    write_graphs(network, tmp_path)
    assert compare_with_onnxruntime(network, tmp_path, SHAPES) < 1e-5


@pytest.mark.parametrize("inject_at", [0, 3])
def test_any_injection_layer_exports(tmp_path: Path, inject_at: int) -> None:
    network = make_network(inject_at=inject_at)
    write_graphs(network, tmp_path)
    assert compare_with_onnxruntime(network, tmp_path, SHAPES) < 1e-5


def test_large_tensors_lie_in_the_safetensors_file_only(tmp_path: Path) -> None:
    network = make_network()
    write_graphs(network, tmp_path)
    places = tensor_places(tmp_path / "weights.safetensors")
    content = (tmp_path / "weights.safetensors").read_bytes()
    referred = 0
    for name in ("router.onnx", "capability.onnx"):
        for initializer in onnx.load(tmp_path / name, load_external_data=False).graph.initializer:
            if initializer.data_location != onnx.TensorProto.EXTERNAL:
                assert onnx.numpy_helper.to_array(initializer).size <= 1024
                continue
            entries = {entry.key: entry.value for entry in initializer.external_data}
            offset, length = int(entries["offset"]), int(entries["length"])
            tensor = network.state_dict()[initializer.name.removeprefix("network.")].numpy()
            assert content[offset : offset + length] == tensor.tobytes()
            referred += 1
    assert referred > 40
    assert "trunk.layers.0.query.weight" in places


def test_graph_carries_no_paths_of_the_machine_that_exported_it(tmp_path: Path) -> None:
    write_graphs(make_network(), tmp_path)
    content = (tmp_path / "router.onnx").read_bytes() + (tmp_path / "capability.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_export_is_reproducible(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_graphs(make_network(), tmp_path / name)
    for file in ("router.onnx", "capability.onnx", "weights.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_tensor_of_another_size_is_refused(tmp_path: Path) -> None:
    network = make_network()
    quantize_network(network)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    tensors["trunk.layers.0.query.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(BundleError, match=r"trunk\.layers\.0\.query\.bias has another size"):
        export_router(network, tmp_path)


def test_quantised_rows_are_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(37, 19, generator=generator) * torch.logspace(-6, 3, 37)[:, None]
    weight[5] = 0
    quantized, scale = quantize_rows(weight)
    assert quantized.dtype == torch.int8
    assert quantized.abs().max() == 127
    error = (quantized.float() * scale[:, None] - weight).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert error[5].max() == 0


def test_nan_weights_are_refused() -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        quantize_rows(weight)


def test_quantised_linear_computes_with_its_own_weights() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(9, 6)
    quantized = QuantizedLinear(linear)
    rows = torch.randn(4, 9)
    expected = rows @ (quantized.weight.float() * quantized.weight_scale[:, None]).T + linear.bias
    assert torch.allclose(quantized(rows), expected, atol=1e-6)
    assert np.abs((quantized(rows) - linear(rows)).detach().numpy()).max() < 0.05
