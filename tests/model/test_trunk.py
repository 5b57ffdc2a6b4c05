"""The trunk equals the Hugging Face encoder whose weights it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsat_engine.errors import BundleError
from modelsat_engine.model.trunk import EncoderTrunk
from tests.model.random_networks import TRUNK

transformers = pytest.importorskip("transformers", reason="the reference implementation of BERT")


def hugging_face_encoder() -> torch.nn.Module:
    torch.manual_seed(8)
    config = transformers.BertConfig(
        vocab_size=TRUNK.vocab,
        hidden_size=TRUNK.hidden,
        num_hidden_layers=TRUNK.layers,
        num_attention_heads=TRUNK.heads,
        intermediate_size=TRUNK.intermediate,
        max_position_embeddings=TRUNK.max_positions,
        layer_norm_eps=TRUNK.layer_norm_eps,
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def test_trunk_equals_hugging_face_bert(tmp_path: Path) -> None:
    original = hugging_face_encoder()
    save_file(
        {name: tensor.contiguous() for name, tensor in original.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    trunk = EncoderTrunk(TRUNK).eval()
    trunk.load_pretrained(tmp_path)
    ids = torch.randint(1, TRUNK.vocab, (3, 13))
    mask = torch.arange(13)[None] < torch.tensor([13, 4, 9])[:, None]
    with torch.no_grad():
        expected = original(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        assert (trunk(ids, mask) - expected)[mask].abs().max() < 1e-5


def test_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    trunk = EncoderTrunk(TRUNK)
    with pytest.raises(BundleError, match="not found"):
        trunk.load_pretrained(tmp_path)
    weights = {name: tensor.contiguous() for name, tensor in hugging_face_encoder().state_dict().items()}
    missing = {name: tensor for name, tensor in weights.items() if "layer.3.output.dense.bias" not in name}
    save_file(missing, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match=r"lack the tensor encoder.layer.3.output.dense.bias"):
        trunk.load_pretrained(tmp_path)
    weights["encoder.layer.0.output.dense.bias"] = torch.zeros(5)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match="another shape"):
        trunk.load_pretrained(tmp_path)
