"""Candidates are encoded once, in batches, each on its own; what does not fit is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelsat_engine.errors import BundleError, ExecutorError, ProfileError
from modelsat_engine.export.bundle import Bundle, write_manifest
from modelsat_engine.runtime import capability
from modelsat_engine.runtime.capability import CapabilityEncoder
from modelsat_engine.runtime.capability_inputs import TextInputs
from modelsat_engine.runtime.instruction import InstructionTokenizer
from tests.runtime.tiny_bundle import HIDDEN, LATE_LAYERS, tiny_profile, tiny_tokenizer, write_tiny_bundle

TOKENIZER = InstructionTokenizer(tiny_tokenizer(), 64)


@pytest.fixture(autouse=True)
def _nothing_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept on disk has tests of its own."""
    monkeypatch.setenv("MODELSAT_CACHE", "off")


def encoder_of(bundle: Bundle) -> CapabilityEncoder:
    return CapabilityEncoder(bundle, TOKENIZER)


def test_shapes_follow_router_json(bundle_of_any_memory: Bundle) -> None:
    bundle = bundle_of_any_memory
    encoder = encoder_of(bundle)
    views, rows = bundle.config["views"], bundle.config["memory_rows"]
    for count in (0, 1, 3):
        encoded = encoder.encode(bundle.zoo[:count])
        assert encoded.inquiry_start.shape == (count, views, HIDDEN)
        assert encoded.inquiry_start.dtype == np.float32
        if rows:
            assert encoded.memory is not None
            assert encoded.memory.shape == (count, views, LATE_LAYERS, 2, rows, HIDDEN)
        else:
            assert encoded.memory is None


def test_a_candidate_does_not_depend_on_those_encoded_with_it(bundle_of_any_memory: Bundle) -> None:
    bundle = bundle_of_any_memory
    rng = np.random.default_rng(11)
    skills = rng.integers(0, 50, 301).tolist()
    profiles = [
        tiny_profile(f"m{index}", skill, bundle.aptitude_test, notes="" if index % 3 else "square root " * (index % 7))
        for index, skill in enumerate(skills)
    ]
    together = encoder_of(bundle).encode(profiles)
    for index in (0, 1, 2, 255, 256, 300):
        alone = encoder_of(bundle).encode([profiles[index]])
        np.testing.assert_allclose(together.inquiry_start[index], alone.inquiry_start[0], atol=1e-6)
        if alone.memory is not None and together.memory is not None:
            np.testing.assert_allclose(together.memory[index], alone.memory[0], atol=1e-6)


def test_counts_and_notes_matter(bundle: Bundle) -> None:
    base = bundle.zoo[0]
    other_counts = replace(base, correct={**base.correct, "chess": (base.correct["chess"] + 1) % 5})
    encoded = encoder_of(bundle).encode([base, other_counts, replace(base, notes="prove"), replace(base, notes="")])
    rows = encoded.inquiry_start.reshape(4, -1)
    assert all(np.abs(rows[i] - rows[j]).max() > 1e-3 for i in range(4) for j in range(i))


def test_another_note_is_another_capability(bundle: Bundle) -> None:
    encoder = encoder_of(bundle)
    first, other = (encoder.encode([replace(bundle.zoo[0], notes=notes)]) for notes in ("prove", "chess"))
    assert np.abs(first.inquiry_start - other.inquiry_start).max() > 1e-3


def test_a_known_capability_is_not_encoded_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(bundle)
    first = encoder.encode(bundle.zoo)
    monkeypatch.setattr(encoder, "_run", lambda _: pytest.fail("encoded again"))
    cheaper = [replace(profile, name="x" + profile.name, usd_per_million_tokens=0.1) for profile in bundle.zoo]
    again = encoder.encode(cheaper[::-1])
    np.testing.assert_array_equal(again.inquiry_start, first.inquiry_start[::-1])


def test_the_cache_is_bounded(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "_CACHED_CANDIDATES", 2)
    encoder = encoder_of(bundle)
    encoder.encode(bundle.zoo)
    assert len(encoder._recent) == 2


def test_a_profile_of_another_test_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ProfileError, match="grade the candidate on that test"):
        encoder_of(bundle).encode([replace(bundle.zoo[0], test_id="sha256:0000000000000000")])
    with pytest.raises(ProfileError, match="'unknown' is not in the aptitude test"):
        encoder_of(bundle).encode([replace(bundle.zoo[0], correct={"unknown": 1}, total={"unknown": 2})])


def test_a_missing_task_is_allowed_and_warned_of_once(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    partial = replace(bundle.zoo[0], correct={"chess": 2}, total={"chess": 4})
    encoder = encoder_of(bundle)
    with caplog.at_level(logging.WARNING):
        assert np.isfinite(encoder.encode([partial, bundle.zoo[1]]).inquiry_start).all()
        encoder.encode([partial])
    assert [record.getMessage() for record in caplog.records] == [
        "candidate model-0 has no answers on 4 of 5 aptitude tasks: its probabilities are less certain"
    ]


def test_an_unknown_encoder_kind_says_to_upgrade(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"'quantum'.*upgrade the package"):
        encoder_of(replace(bundle, config={**bundle.config, "capability_encoder": {"kind": "quantum"}}))


@pytest.mark.parametrize("key", ["views", "trunk", "inject_at", "memory_rows", "capability_encoder", "tokenizer"])
def test_a_config_without_a_size_is_refused(bundle: Bundle, key: str) -> None:
    config = {name: value for name, value in bundle.config.items() if name != key}
    with pytest.raises(BundleError, match=rf"router\.json lacks '{key}'"):
        encoder_of(replace(bundle, config=config))


def test_a_graph_that_does_not_fit_router_json_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny", views=2)
    config = json.loads((path / "router.json").read_text())
    (path / "router.json").write_text(json.dumps({**config, "views": 3}))
    write_manifest(path)
    bundle = Bundle.load(path)
    with pytest.raises(
        ExecutorError, match=r"capability\.onnx gave inquiry_start \(1, 2, 24\), need finite \(1, 3, 24\)"
    ):
        encoder_of(bundle).encode(bundle.zoo)


def test_a_graph_that_gives_nan_is_refused(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    model = onnx.load(path / "capability.onnx")
    tasks = next(tensor for tensor in model.graph.initializer if tensor.name == "tasks")
    broken = onnx.numpy_helper.to_array(tasks).copy()
    broken[0, 0] = np.nan
    tasks.CopyFrom(onnx.numpy_helper.from_array(broken, "tasks"))
    onnx.save(model, str(path / "capability.onnx"))
    write_manifest(path)
    bundle = Bundle.load(path)
    with pytest.raises(ExecutorError, match="need finite"):
        encoder_of(bundle).encode(bundle.zoo)


def test_the_text_form_is_read_in_one_order_a_view_for_every_candidate(bundle: Bundle) -> None:
    inputs = TextInputs(bundle.aptitude_test, TOKENIZER, views=3, max_tokens=1000)
    test = bundle.aptitude_test
    profiles = [tiny_profile("a", 1, test), tiny_profile("b", 2, test, notes="")]
    together, alone = inputs(profiles), inputs(profiles[1:])
    assert together["capability_ids"].shape == together["capability_mask"].shape
    assert together["capability_ids"].shape[:2] == (2, 3)
    for name, rows in alone.items():
        width = rows.shape[2]
        assert (together[name][1, :, :width] == rows[0]).all()
        assert not together[name][1, :, width:].any(), "the rest is padding"
    assert len({row.tobytes() for row in together["capability_ids"][0]}) == 3, "views differ"


def test_a_router_that_reads_capabilities_as_text_encodes_each_on_its_own(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "tiny", encoder="text"))
    profiles = [*bundle.zoo, replace(bundle.zoo[0], notes="prove " * 9)]
    together = encoder_of(bundle).encode(profiles).inquiry_start
    assert together.shape == (4, 2, HIDDEN)
    for index, profile in enumerate(profiles):
        alone = encoder_of(bundle).encode([profile]).inquiry_start[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)
    rows = together.reshape(8, HIDDEN)
    assert min(np.abs(rows[i] - rows[j]).max() for i in range(8) for j in range(i)) > 1e-4
