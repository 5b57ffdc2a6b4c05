"""The whole chain on invented outcomes: train from a recipe, export, load, route, evaluate. Seed 51."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modelsat_engine import Engine
from modelsat_engine.aptitude.building import profiles_from_outcomes
from modelsat_engine.errors import BundleError, DataError
from modelsat_engine.evaluation.run import evaluate
from modelsat_engine.export.bundle import Bundle
from modelsat_engine.export.run import export
from modelsat_engine.model.config import TrunkConfig
from modelsat_engine.model.trunk import EncoderTrunk, _pretrained_name
from modelsat_engine.training.run import train
from tests.evaluation.synthetic import synthetic_outcomes, synthetic_test, write_outcomes

TRUNK = TrunkConfig(layers=3, hidden=24, heads=3, intermediate=40, vocab=200, max_positions=64)

RECIPE = """
name = "tiny"
seed = 51

[network]
inject_at = 1
{network}

[network.trunk]
layers = 3
hidden = 24
heads = 3
intermediate = 40
vocab = 200
max_positions = 64

[network.capability_encoder]
size = 20
tasks = 7
keyword_size = 24

[samples]
max_tokens = 24

[schedule]
connector_steps = 8
epochs = 3
trunk_from = 1
trunk_learning_rate = 1e-3
"""


def write_base(directory: Path, texts: tuple[str, ...]) -> Path:
    """A random encoder with a word-level vocabulary, in the files of a Hugging Face checkpoint."""
    torch.manual_seed(51)
    directory.mkdir()
    trunk = EncoderTrunk(TRUNK)
    weights = {_pretrained_name(name): value.clone() for name, value in trunk.state_dict().items()}
    weights["embeddings.token_type_embeddings.weight"] = torch.zeros(2, TRUNK.hidden)
    save_file(weights, directory / "model.safetensors")
    words = sorted({word for text in texts for word in text.replace("?", " ?").split()})
    vocab = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words][: TRUNK.vocab])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.mark.parametrize(
    "network",
    ["memory_rows = 0", "memory_rows = 8", "relevance_hidden = 9\nrefinement_axes = 4"],
    ids=lambda text: text[:9],
)
def test_a_router_is_trained_exported_and_routes(tmp_path: Path, network: str) -> None:
    data, _ = synthetic_outcomes(51)
    test = synthetic_test(data, 0)
    test.save(tmp_path / "aptitude.json")
    outcomes = write_outcomes(tmp_path / "outcomes", data)
    base = write_base(tmp_path / "base", data.questions.instruction)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(network=network), encoding="utf-8")

    events: list[dict[str, object]] = []
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    record = train(recipe, outcomes, base, run, progress=events.append, aptitude_test=tmp_path / "aptitude.json")
    assert events[-1]["stage"] == "all"
    assert record["calibration"]["expected_calibration_error_after"] < 0.2
    with pytest.raises(DataError, match="not empty"):
        train(recipe, outcomes, base, run, aptitude_test=tmp_path / "aptitude.json")

    written = export(run, bundle)
    assert written["largest_difference"] < 1e-5
    assert (bundle / "weights.safetensors").stat().st_mode & 0o777 == 0o644
    profiles = profiles_from_outcomes(data, test)
    texts = list(data.questions.instruction[::60])
    with Engine.load(bundle, zoo=profiles) as engine:
        scores = engine.score(texts)
        assert scores.shape == (len(texts), len(profiles))
        assert engine.route(texts[0]).candidate in engine.candidates.names
        # trained on outcomes, so the strong models of the seen ones score higher than the weak
        seen = data.rows(record["split"]["models"]["seen"])
        assert np.corrcoef(scores[:, seen].mean(0), data.strength[seen])[0, 1] > 0.5

    result = evaluate(bundle, outcomes, seeds=2, zoo_size=3)
    refined = "refinement_axes" in network
    assert ("router_refined" in result["scenarios"]["new_models"]["predictions"]) == refined
    assert all(profile.refinement is None for profile in Bundle.load(bundle).zoo)
    assert json.loads(json.dumps(result))["scenarios"]["new_models"]["predictions"]["router"]["auc"]["mean"] > 0.5

    with pytest.raises(BundleError, match="not a bundle"):
        export(run, tmp_path / "base")
    (run / "zoo.json").unlink()
    with pytest.raises(DataError, match=r"zoo\.json is missing"):
        export(run, tmp_path / "other")
