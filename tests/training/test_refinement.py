"""Axes of a trained router: what they are, and how far models are found to lie apart on them. Seed 71."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.training.refinement import population_variance, principal_axes
from tests.model.random_networks import make_network

SEED = 71


def test_axes_are_a_constant_and_standardised_components() -> None:
    torch.manual_seed(SEED)
    hidden = torch.randn(503, 7) @ torch.randn(7, 7) + torch.randn(7)
    weight, bias = principal_axes(hidden, 5)
    features = hidden @ weight.T + bias
    assert torch.equal(features[:, 0], torch.ones(503))
    torch.testing.assert_close(features[:, 1:].mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(features[:, 1:].T), torch.eye(4), atol=1e-3, rtol=0)
    covered = (features[:, 1:].T @ (hidden - hidden.mean(0)) / len(hidden)).pow(2).sum(1)  # of the states' variance
    assert torch.equal(covered.sort(descending=True).values, covered)


def test_axes_do_not_depend_on_the_order_of_questions() -> None:
    torch.manual_seed(SEED)
    hidden = torch.randn(301, 6)
    one, other = principal_axes(hidden, 4), principal_axes(hidden.flip(0), 4)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_constant_hidden_value_does_no_harm() -> None:
    hidden = torch.cat([torch.randn(50, 2, generator=torch.Generator().manual_seed(SEED)), torch.ones(50, 3)], 1)
    weight, bias = principal_axes(hidden, 5)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_the_spread_of_models_is_found() -> None:
    rng = np.random.default_rng(SEED)
    variance = np.array([0.02, 0.5, 0.1])
    theta = rng.normal(size=(60, 3)) * np.sqrt(variance)
    features, offset = rng.normal(size=(1501, 3)), rng.normal(size=(1501, 60))
    P = 1 / (1 + np.exp(-(offset + features @ theta.T)))
    outcomes = (rng.random(P.shape) < P).astype(np.int8)
    outcomes[rng.random(P.shape) < 0.1] = -1
    found = population_variance(features, offset, outcomes)
    np.testing.assert_allclose(found, (theta**2).mean(0), rtol=0.35, atol=0.01)


def test_a_network_leaves_room_behind_its_evidence() -> None:
    network = make_network(relevance_hidden=9, refinement_axes=4)
    generator = torch.Generator().manual_seed(SEED)
    total = torch.randint(1, 9, (3, 7), generator=generator).float()
    ids = torch.ones(3, 2, dtype=torch.long)
    zoo = network.connect_counts(total // 2, total, ids, ids)
    assert zoo.inquiry_start.shape == (3, 1, 24 + 2 + 4 + 7 + 4)
    assert not zoo.inquiry_start[..., -4:].any()
    assert zoo.inquiry_start[..., -5].all()


@pytest.mark.parametrize("axes", [-1, 1, 9])
def test_axes_need_a_relevance_head_that_is_wide_enough(axes: int) -> None:
    with pytest.raises(ValueError, match="refinement_axes"):
        NetworkConfig(relevance_hidden=8, refinement_axes=axes)
    with pytest.raises(ValueError, match="refinement_axes"):
        NetworkConfig(refinement_axes=4)
