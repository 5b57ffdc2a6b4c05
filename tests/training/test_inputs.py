"""Training reads candidates exactly as a deployed router will."""

from __future__ import annotations

import numpy as np
import torch

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.model.config import CapabilityEncoderConfig, NetworkConfig
from modelsat_engine.model.network import ModelSatNetwork
from modelsat_engine.runtime.capability_inputs import TaskwiseInputs, TextInputs
from modelsat_engine.training.inputs import MAX_NOTE_TOKENS, NetworkInputs, pad
from modelsat_engine.training.samples import Candidates, Forms
from tests.model.random_networks import TRUNK, make_network
from tests.training.test_trainer import make_data, make_tokenizer

COUNTS = np.array([[3, 0, 1, 2, 3, 1, 0], [0, 2, 2, 2, 1, 0, 3]], np.float32)
CANDIDATES = Candidates(COUNTS, np.full_like(COUNTS, 3), ("text " * 40, ""))


def profiles() -> list[CapabilityProfile]:
    _, test = make_data()
    right = [dict(zip(test.task_names, map(int, row), strict=True)) for row in COUNTS]
    asked = dict.fromkeys(test.task_names, 3)
    return [CapabilityProfile(f"m{n}", row, asked, notes=CANDIDATES.notes[n]) for n, row in enumerate(right)]


def test_counts_and_notes_are_read_as_at_run_time() -> None:
    _, test = make_data()
    network, tokenizer = make_network(), make_tokenizer()
    start = NetworkInputs([], tokenizer, test, 0).connect(network, CANDIDATES).inquiry_start
    fed = TaskwiseInputs(test, tokenizer, MAX_NOTE_TOKENS)(profiles())
    expected = network.connect_counts(*(torch.from_numpy(value) for value in fed.values())).inquiry_start
    assert fed["note_mask"].sum(1).tolist() == [MAX_NOTE_TOKENS, 0]
    assert torch.allclose(start, expected, atol=1e-6)


def test_capability_texts_are_read_as_at_run_time() -> None:
    torch.manual_seed(3)
    _, test = make_data()
    encoder = CapabilityEncoderConfig(kind="text", size=TRUNK.hidden, tasks=7)
    network = ModelSatNetwork(NetworkConfig(TRUNK, encoder, inject_at=1, views=2)).eval()
    tokenizer = make_tokenizer()
    start = NetworkInputs([], tokenizer, test, 0).connect(network, CANDIDATES).inquiry_start
    fed = TextInputs(test, tokenizer, 2, TRUNK.max_positions)(profiles())
    expected = network.connect_text(*(torch.from_numpy(value) for value in fed.values())).inquiry_start
    assert start.shape == (2, 2, TRUNK.hidden)
    assert torch.allclose(start, expected, atol=1e-6)


def test_frozen_layers_are_computed_once_and_give_the_same_prefix() -> None:
    _, test = make_data()
    network = make_network()
    tokens = [np.array([2, 9, 30 + q, 3], np.int32)[: 2 + q % 3] for q in range(5)]
    whole, cached = (NetworkInputs(tokens, make_tokenizer(), test, frozen) for frozen in (0, 2))
    questions = np.array([4, 0, 2])
    expected, mask = whole.prefix(network, questions)
    for _ in range(2):
        prefix, same_mask = cached.prefix(network, questions)
        assert torch.equal(mask, same_mask)
        assert (prefix - expected)[mask].abs().max() < 5e-3  # kept in half precision


def test_bare_questions_are_shown_without_their_options_where_they_have_any() -> None:
    _, test = make_data()
    network = make_network()
    tokens = [np.array([2, 9, 30 + q, 40, 41, 3], np.int32) for q in range(4)]
    bare = {1: np.array([2, 9, 3], np.int32), 3: np.array([2, 7, 7, 3], np.int32)}
    questions, hide = np.array([3, 0, 1, 1]), np.array([True, True, False, True])
    forms = Forms(hide, np.zeros(4, np.int64))
    ids, mask = NetworkInputs(tokens, make_tokenizer(), test, 0, bare).instructions(questions, forms)
    assert ids[0].tolist() == [2, 7, 7, 3, 0, 0]
    assert ids[1].tolist() == tokens[0].tolist()  # has no options to hide
    assert ids[2].tolist() == tokens[1].tolist()  # not asked to hide them
    assert mask.sum(1).tolist() == [4, 6, 6, 3]
    whole, cached = (NetworkInputs(tokens, make_tokenizer(), test, frozen, bare) for frozen in (0, 2))
    expected, seen = whole.prefix(network, questions, forms)
    assert (cached.prefix(network, questions, forms)[0] - expected)[seen].abs().max() < 5e-3


def test_shuffled_questions_are_tokenised_anew_in_the_order_asked_for() -> None:
    _, test = make_data()
    network = make_network()
    tokens = [np.array([2, 9, 30 + q, 3], np.int32) for q in range(4)]
    asked: list[tuple[int, int]] = []

    def shuffled(column: int, order: int) -> np.ndarray:
        asked.append((column, order))
        return np.array([2, 5, 6, 30 + column, 3], np.int32)

    questions, forms = np.array([3, 0, 1]), Forms(np.zeros(3, bool), np.array([0, 77, 5]))
    whole, cached = (NetworkInputs(tokens, make_tokenizer(), test, n, shuffled=shuffled) for n in (0, 2))
    ids, _ = whole.instructions(questions, forms)
    assert ids.tolist() == [[2, 9, 33, 3, 0], [2, 5, 6, 30, 3], [2, 5, 6, 31, 3]]
    assert asked == [(0, 77), (1, 5)]
    expected, seen = whole.prefix(network, questions, forms)
    assert (cached.prefix(network, questions, forms)[0] - expected)[seen].abs().max() < 1e-5
    assert torch.equal(cached.prefix(network, questions)[1], whole.prefix(network, questions)[1])  # and as written


def test_padding_keeps_at_least_one_column() -> None:
    ids, mask = pad([np.array([], np.int32), np.array([], np.int32)])
    assert ids.shape == mask.shape == (2, 1)
    assert mask.sum() == 0
