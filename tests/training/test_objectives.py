"""Objectives against their formulas, written as loops."""

from __future__ import annotations

import math

import torch

from modelsat_engine.training.objectives import OBJECTIVES, binary_cross_entropy, choice, in_batch_cross_entropy


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(21)
    logits = torch.randn(7, 5, generator=generator)
    labels = (torch.rand(7, 5, generator=generator) < 0.5).float()
    known = torch.rand(7, 5, generator=generator) < 0.8
    weights = torch.rand(5, generator=generator) + 0.5
    return logits, labels, known, weights


def test_in_batch_cross_entropy_is_equation_five() -> None:
    logits, labels, known, weights = example()
    total, mass = 0.0, 0.0
    for m in range(5):
        negatives = [b for b in range(7) if known[b, m] and not labels[b, m]]
        for b in range(7):
            if known[b, m] and labels[b, m] and negatives:
                share = math.exp(logits[b, m]) / sum(math.exp(logits[n, m]) for n in [b, *negatives])
                total -= math.log(share) * float(weights[m])
                mass += float(weights[m])
    assert abs(in_batch_cross_entropy(logits, labels, known, weights).item() - total / mass) < 1e-5


def test_binary_cross_entropy_weighs_candidates_and_skips_unknown_outcomes() -> None:
    logits, labels, known, weights = example()
    total, mass = 0.0, 0.0
    for b in range(7):
        for m in range(5):
            if known[b, m]:
                p = 1 / (1 + math.exp(-logits[b, m]))
                total -= float(weights[m]) * math.log(p if labels[b, m] else 1 - p)
                mass += float(weights[m])
    assert abs(binary_cross_entropy(logits, labels, known, weights).item() - total / mass) < 1e-5


def test_choice_compares_right_with_wrong_candidates_of_one_instruction() -> None:
    logits, labels, known, weights = example()
    means = []
    for b in range(7):
        pairs = [
            math.log1p(math.exp(logits[b, w] - logits[b, r]))
            for r in range(5)
            for w in range(5)
            if known[b, r] and known[b, w] and labels[b, r] and not labels[b, w]
        ]
        if pairs:
            means.append(sum(pairs) / len(pairs))
    assert abs(choice(logits, labels, known, weights).item() - sum(means) / len(means)) < 1e-5


def test_nothing_to_learn_gives_zero_and_a_finite_gradient() -> None:
    for name, objective in OBJECTIVES.items():
        for labels in (torch.zeros(3, 4), torch.ones(3, 4)):
            logits = torch.randn(3, 4, requires_grad=True)
            loss = objective(logits, labels, torch.zeros(3, 4, dtype=torch.bool), torch.ones(4))
            loss.backward()
            assert loss.item() == 0, name
            assert logits.grad is not None
            assert logits.grad.isfinite().all(), name


def test_all_right_or_all_wrong_columns_do_not_blow_up_the_in_batch_objective() -> None:
    for labels in (torch.zeros(3, 4), torch.ones(3, 4)):
        logits = torch.randn(3, 4, requires_grad=True)
        in_batch_cross_entropy(logits, labels, torch.ones(3, 4, dtype=torch.bool), torch.ones(4)).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_soft_labels_count_as_right_by_as_much_and_as_wrong_by_the_rest() -> None:
    logits, _, known, weights = example()
    labels = torch.rand(7, 5, generator=torch.Generator().manual_seed(22))
    total, mass = 0.0, 0.0
    for m in range(5):
        known_ones = [b for b in range(7) if known[b, m]]
        against = sum((1 - float(labels[n, m])) * math.exp(logits[n, m]) for n in known_ones)
        for b in known_ones:
            share = math.exp(logits[b, m]) / (math.exp(logits[b, m]) + against)
            total -= float(labels[b, m] * weights[m]) * math.log(share)
            mass += float(labels[b, m] * weights[m])
    assert abs(in_batch_cross_entropy(logits, labels, known, weights).item() - total / mass) < 1e-5

    means = []
    for b in range(7):
        loss, count = 0.0, 0.0
        for r in range(5):
            for w in range(5):
                if r != w and known[b, r] and known[b, w]:
                    share = float(labels[b, r] * (1 - labels[b, w]))
                    loss += share * math.log1p(math.exp(logits[b, w] - logits[b, r]))
                    count += share
        if count:
            means.append(loss / count)
    assert abs(choice(logits, labels, known, weights).item() - sum(means) / len(means)) < 1e-5
