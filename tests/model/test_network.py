"""One pass over a whole zoo is the same network as one pass per pair."""

from __future__ import annotations

import pytest
import torch

from modelsat_engine.model.config import NetworkConfig
from modelsat_engine.model.network import ConnectedZoo, ModelSatNetwork
from modelsat_engine.model.reference import score_pair
from modelsat_engine.model.relevance import RelevanceHead
from tests.model.random_networks import make_batch, make_network, make_zoo


def pairwise(network: ModelSatNetwork, ids: torch.Tensor, mask: torch.Tensor, zoo: ConnectedZoo) -> torch.Tensor:
    """Probabilities [B, M] from the reference, a pass for every view of every pair."""
    rows = []
    for tokens, length in zip(ids, mask.sum(1).tolist(), strict=True):
        for candidate in range(len(zoo.inquiry_start)):
            logits = []
            for view in range(network.config.views):
                memory = None if zoo.memory_start is None else zoo.memory_start[candidate, view]
                logits.append(score_pair(network, tokens[:length], zoo.inquiry_start[candidate, view], memory))
            logit = torch.stack(logits) / network.temperature + network.calibration_bias
            rows.append(torch.sigmoid(logit).mean())
    return torch.stack(rows).reshape(len(ids), -1)


@pytest.mark.parametrize("layout", ["shared", "capability_first"])
@pytest.mark.parametrize("memory_rows", [0, 1, 50])
@pytest.mark.parametrize(("inject_at", "views"), [(0, 1), (2, 2), (3, 1)])
def test_one_pass_equals_separate_passes(layout: str, memory_rows: int, inject_at: int, views: int) -> None:
    network = make_network(layout, inject_at, memory_rows, views)
    zoo, (ids, mask) = make_zoo(network, 5), make_batch([17, 1, 9])
    difference = network.score_zoo(ids, mask, zoo) - pairwise(network, ids, mask, zoo)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("memory_rows", [0, 1, 50])
@pytest.mark.parametrize(("inject_at", "views"), [(0, 1), (3, 2)])
def test_relevance_head_adds_the_same_in_one_pass_and_in_separate_ones(
    memory_rows: int, inject_at: int, views: int
) -> None:
    network = make_network("shared", inject_at, memory_rows, views, relevance_hidden=13)
    zoo, (ids, mask) = make_zoo(network, 5), make_batch([17, 1, 9])
    scores = network.score_zoo(ids, mask, zoo)
    assert (scores - pairwise(network, ids, mask, zoo)).abs().max() < 1e-6
    assert torch.allclose(scores, network(ids, mask, zoo.inquiry_start, _cached(network, zoo))[0], atol=1e-6)
    logits = network.zoo_logits(network.encode_instruction(ids, mask > 0), mask > 0, zoo)
    calibrated = torch.sigmoid(logits / network.temperature + network.calibration_bias)
    assert torch.allclose(calibrated.mean(-1), scores, atol=1e-6)


def test_relevance_head_starts_from_the_candidates_overall_strength() -> None:
    torch.manual_seed(8)
    head, evidence = RelevanceHead(24, 13, 6), torch.randn(5, 6)
    assert torch.equal(head.eval()(torch.randn(3, 24)) @ evidence.T, evidence[:, 1].expand(3, 5))


def test_relevance_head_reads_pooled_states_on_one_scale() -> None:
    torch.manual_seed(9)
    head = RelevanceHead(24, 13, 6).eval()
    torch.nn.init.normal_(head.tasks.weight)
    pooled = torch.randn(40, 24)
    head.describe(pooled)
    before = head(pooled)
    head.describe(7 * pooled + 3)
    assert torch.allclose(head(7 * pooled + 3), before, atol=1e-4)


def _cached(network: ModelSatNetwork, zoo: ConnectedZoo) -> torch.Tensor | None:
    return None if zoo.memory_start is None else network.memory_keys_values(zoo.memory_start)


@pytest.mark.parametrize("memory_rows", [0, 50])
@pytest.mark.parametrize("candidates", [1, 101])
def test_zoo_of_any_size_equals_separate_passes(memory_rows: int, candidates: int) -> None:
    network = make_network(memory_rows=memory_rows)
    zoo, (ids, mask) = make_zoo(network, candidates), make_batch([13])
    difference = network.score_zoo(ids, mask, zoo) - pairwise(network, ids, mask, zoo)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("memory_rows", [0, 1, 50])
def test_order_and_duplicates_of_candidates_do_not_matter(memory_rows: int) -> None:
    network = make_network(memory_rows=memory_rows, views=2)
    zoo, (ids, mask) = make_zoo(network, 7), make_batch([11, 5])
    alone = network.score_zoo(ids, mask, zoo)
    picked = torch.tensor([6, 0, 3, 3, 5, 0, 1, 2, 4, 6, 6])
    memory = None if zoo.memory_start is None else zoo.memory_start[picked]
    mixed = network.score_zoo(ids, mask, ConnectedZoo(zoo.inquiry_start[picked], memory))
    assert (mixed - alone[:, picked]).abs().max() < 1e-6


def test_batch_mates_and_padding_do_not_matter() -> None:
    network = make_network(memory_rows=1)
    zoo, lengths = make_zoo(network, 3), [31, 2, 17, 1]
    ids, mask = make_batch(lengths)
    together = network.score_zoo(ids, mask, zoo)
    for row, length in enumerate(lengths):
        alone = network.score_zoo(ids[row : row + 1, :length], mask[row : row + 1, :length], zoo)
        assert (together[row] - alone[0]).abs().max() < 1e-6


@pytest.mark.parametrize("memory_rows", [1, 50])
def test_cached_memory_equals_recomputed_memory(memory_rows: int) -> None:
    network = make_network(memory_rows=memory_rows, views=2)
    zoo, (ids, mask) = make_zoo(network, 4), make_batch([6, 19])
    assert zoo.memory_start is not None
    cached = network.memory_keys_values(zoo.memory_start)
    assert cached.shape == (4, 2, network.config.late_layers, 2, memory_rows, 24)
    one_by_one = torch.cat([network.memory_keys_values(zoo.memory_start[m : m + 1]) for m in range(4)])
    assert (cached - one_by_one).abs().max() < 1e-6
    from_cache, _ = network(ids, mask, zoo.inquiry_start, cached)
    assert (from_cache - pairwise(network, ids, mask, zoo)).abs().max() < 1e-6


def test_layouts_differ_because_the_instruction_sees_the_capability_in_only_one() -> None:
    shared, uncut = make_network("shared"), make_network("capability_first")
    zoo, (ids, mask) = make_zoo(shared, 3), make_batch([12])
    assert (shared.score_zoo(ids, mask, zoo) - uncut.score_zoo(ids, mask, zoo)).abs().max() > 1e-3


def test_views_are_averaged_as_probabilities() -> None:
    network = make_network(views=2)
    zoo, (ids, mask) = make_zoo(network, 3), make_batch([12])
    single = [network(ids, mask, zoo.inquiry_start[:, view : view + 1])[0] for view in range(2)]
    assert torch.allclose(network.score_zoo(ids, mask, zoo), (single[0] + single[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("head", ["yes_no", "regression"])
def test_both_heads_score_and_learn(head: str) -> None:
    network = make_network(head=head).requires_grad_(True)
    zoo, (ids, mask) = make_zoo(network, 3), make_batch([8, 3])
    network(ids, mask, zoo.inquiry_start)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.head.parameters())


def test_head_of_two_rows_is_the_softmax_over_yes_and_no() -> None:
    network = make_network()
    state = torch.randn(5, 24)
    softmax = network.head.rows(state).softmax(-1)[:, 0]
    assert torch.allclose(torch.sigmoid(network.logits(state)), softmax, atol=1e-6)


def test_config_survives_json_and_refuses_nonsense() -> None:
    config = make_network(memory_rows=8).config
    assert NetworkConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="inject_at 6"):
        NetworkConfig(inject_at=6)
    with pytest.raises(ValueError, match="layout"):
        NetworkConfig(layout="sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0, 1 or 51"):
        NetworkConfig(memory_rows=3)
    with pytest.raises(ValueError, match="relevance head needs layout 'shared'"):
        NetworkConfig(layout="capability_first", relevance_hidden=8)
    with pytest.raises(ValueError, match="relevance_hidden"):
        NetworkConfig(relevance_hidden=-1)
    assert NetworkConfig(relevance_hidden=8).evidence_size == 56
    assert NetworkConfig().evidence_size == 0
