"""Capability encoders: order of tasks, missing answers, expert notes, and text views."""

from __future__ import annotations

import pytest
import torch

from modelsat_engine.model.capability import TaskwiseEncoder, TextEncoder
from modelsat_engine.model.config import CapabilityEncoderConfig
from tests.model.random_networks import TRUNK, make_network


def make_encoder(per_task: bool = False) -> TaskwiseEncoder:
    torch.manual_seed(3)
    encoder = TaskwiseEncoder(CapabilityEncoderConfig(size=20, tasks=9, keyword_size=11), 24, per_task).eval()
    encoder.describe_test(torch.randn(9, 11), torch.randn(9), -0.4)
    return encoder


def counts(candidates: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    total = torch.full((candidates, 9), 20.0)
    return torch.randint(0, 21, (candidates, 9), generator=generator).float(), total


def test_order_of_tasks_does_not_matter() -> None:
    encoder, (correct, total), note = make_encoder(), counts(), torch.zeros(4, 24)
    before = encoder(correct, total, note)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(6))
    encoder.keywords.copy_(encoder.keywords[order])
    encoder.offsets.copy_(encoder.offsets[order])
    assert torch.allclose(before, encoder(correct[:, order], total[:, order], note), atol=1e-5)


def test_a_task_without_answers_gives_no_evidence() -> None:
    encoder, (correct, total) = make_encoder(), counts()
    correct[:, 2] = total[:, 2] = 0
    _, evidence = encoder.task_evidence(correct, total)
    assert evidence[:, 2].abs().max() < 1e-6
    assert evidence[:, 3].abs().min() > 1e-6


def test_empty_and_perfect_profiles_stay_finite() -> None:
    encoder = make_encoder()
    total = torch.tensor([[0.0] * 9, [20.0] * 9, [20.0] * 9])
    correct = torch.tensor([[0.0] * 9, [20.0] * 9, [0.0] * 9])
    assert encoder(correct, total, torch.zeros(3, 24)).isfinite().all()


def test_few_answers_move_a_candidate_less_than_many() -> None:
    encoder = make_encoder()
    few, many = torch.full((1, 9), 2.0), torch.full((1, 9), 200.0)
    _, weak = encoder.task_evidence(few * torch.linspace(0, 1, 9), few)
    _, strong = encoder.task_evidence(many * torch.linspace(0, 1, 9), many)
    assert (weak.abs() < strong.abs() + 1e-6).all()


def test_a_profile_of_hard_tasks_alone_does_not_look_weak() -> None:
    encoder = make_encoder()
    total = torch.full((2, 9), 2000.0)
    correct = (total * torch.sigmoid(0.6 + encoder.offsets)).round()  # one ability on every task
    hard = encoder.offsets.argsort()[:3]
    only_hard = torch.zeros(9).index_fill(0, hard, 1.0)
    total[1], correct[1] = total[1] * only_hard, correct[1] * only_hard
    overall, evidence = encoder.task_evidence(correct, total)
    assert torch.allclose(overall, torch.tensor(0.6 + 0.4), atol=0.02)  # relative to the center, -0.4
    assert evidence.abs().max() < 0.02


def test_evidence_is_what_the_tasks_say_and_needs_to_be_asked_for() -> None:
    network = make_network(relevance_hidden=5)
    correct, total = torch.tensor([[3.0] * 7, [0.0] * 7]), torch.full((2, 7), 9.0)
    note = torch.tensor([[5, 6], [0, 0]])
    zoo = network.connect_counts(correct, total, note, (note > 0).long())
    assert zoo.inquiry_start.shape == (2, 1, 24 + network.config.evidence_size)
    evidence = zoo.inquiry_start[:, :, 24:]
    overall, of_tasks = network.capability.task_evidence(correct, total)
    assert torch.allclose(evidence[:, 0, 0], torch.ones(2))
    assert torch.allclose(evidence[:, 0, 1], overall)
    assert torch.allclose(evidence[:, 0, 2:9] * 7**0.5, of_tasks, atol=1e-5)
    assert evidence[0, 0, 9:].abs().max() > 0
    assert evidence[1, 0, 9:].abs().max() == 0
    with pytest.raises(ValueError, match="without evidence"):
        make_encoder().evidence_of(*counts(), torch.zeros(4, 24))


def test_task_rows_and_overall_row() -> None:
    encoder, (correct, total) = make_encoder(per_task=True), counts()
    assert encoder(correct, total, torch.zeros(4, 24)).shape == (4, 1, 10, 20)


def test_expert_notes_matter_and_empty_ones_are_zero() -> None:
    network = make_network()
    ids, mask = torch.tensor([[5, 6, 7], [5, 6, 7]]), torch.tensor([[1, 1, 0], [0, 0, 0]])
    notes = network.embed_notes(ids, mask)
    assert notes[1].abs().max() == 0
    assert notes[0].abs().max() > 0
    correct, total = torch.full((2, 7), 3.0), torch.full((2, 7), 9.0)
    start = network.connect_counts(correct, total, ids, mask).inquiry_start
    assert (start[0] - start[1]).abs().max() > 1e-4


def test_text_encoder_gives_a_view_per_shuffle_and_ignores_padding() -> None:
    torch.manual_seed(4)
    encoder = TextEncoder(CapabilityEncoderConfig(kind="text", size=24), TRUNK).eval()
    ids = torch.randint(1, TRUNK.vocab, (3, 2, 15))
    mask = torch.ones_like(ids)
    mask[1, 0, 9:] = 0
    rows = encoder(ids, mask)
    assert rows.shape == (3, 2, 1, 24)
    alone = encoder(ids[1:2, :1, :9], mask[1:2, :1, :9])
    assert torch.allclose(rows[1, 0], alone[0, 0], atol=1e-5)
