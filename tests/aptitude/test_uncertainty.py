"""Drawn profiles: deterministic, as long as the test, and as wide as the answers are few."""

from __future__ import annotations

import numpy as np
import pytest

from modelsat_engine.aptitude import AptitudeTask, AptitudeTest, CapabilityProfile
from modelsat_engine.aptitude.uncertainty import TaskPrior, ability, draw_profiles

TASKS, ITEMS, SEED = 17, 20, 3
TEST = AptitudeTest(
    tuple(AptitudeTask(f"t{t}", tuple("abcde"), tuple(f"t{t}/{i}" for i in range(ITEMS))) for t in range(TASKS))
)
PRIOR = TaskPrior(np.linspace(-1.5, 1.5, TASKS), 0.3, 8.0)


def profile(answers: int, name: str = "m", share: float = 0.6) -> CapabilityProfile:
    total = {f"t{t}": answers for t in range(TASKS)}
    return CapabilityProfile(name, {task: round(share * n) for task, n in total.items()}, total, test_id=TEST.id)


def accuracies(draws: list[CapabilityProfile]) -> np.ndarray:
    return np.array([[p.correct[f"t{t}"] / p.total[f"t{t}"] for t in range(TASKS)] for p in draws])


def test_draws_depend_on_the_counts_alone() -> None:
    one, again = (draw_profiles(profile(5, name), TEST, PRIOR, 6) for name in ("a", "b"))
    assert [p.correct for p in one] == [p.correct for p in again]
    assert len({tuple(p.correct.values()) for p in one}) == 6
    assert [p.correct for p in draw_profiles(profile(6), TEST, PRIOR, 6)] != [p.correct for p in one]
    assert all(set(p.total.values()) == {ITEMS} and p.answers is None and p.test_id == TEST.id for p in one)


def test_fewer_answers_scatter_more() -> None:
    spread = [
        accuracies(draw_profiles(profile(n, share=0.5), TEST, PRIOR, 400)).std(0).mean() for n in (0, 2, 6, 20, 200)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 3 * spread[-1]


def test_draws_lie_around_what_was_answered() -> None:
    mean = accuracies(draw_profiles(profile(200), TEST, PRIOR, 400)).mean(0)
    np.testing.assert_allclose(mean, 0.6, atol=0.06)


def test_an_empty_task_takes_what_its_difficulty_and_the_others_say() -> None:
    full = profile(20)
    partial = CapabilityProfile(
        "m", {k: v for k, v in full.correct.items() if k != "t16"}, {k: v for k, v in full.total.items() if k != "t16"}
    )
    estimate, _ = ability(*partial.counts(TEST), PRIOR)
    drawn = accuracies(draw_profiles(partial, TEST, PRIOR, 400))
    assert drawn[:, 16].mean() == pytest.approx(1 / (1 + np.exp(1.5 - estimate)), abs=0.04)
    assert drawn[:, 16].std() > 1.3 * drawn[:, 8].std()


def test_ability_and_its_error_are_found_again() -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    for truth in (-2.0, 0.0, 1.7):
        total = np.full(TASKS, 60.0)
        found = []
        for _ in range(60):
            correct = rng.binomial(60, 1 / (1 + np.exp(PRIOR.difficulty - truth)))
            estimate, error = ability(correct, total, PRIOR)
            found.append((estimate - truth) / error)
        assert abs(np.mean(found)) < 0.5
        assert 0.7 < np.std(found) < 1.3


@pytest.mark.parametrize("right", [0, 1])
def test_none_or_all_right_stays_finite(right: int) -> None:
    drawn = accuracies(draw_profiles(profile(20, share=right), TEST, PRIOR))
    assert np.isfinite(drawn).all()
    assert abs(drawn.mean() - right) < 0.1


def test_difficulties_come_from_profiles_where_the_router_knows_none() -> None:
    hard = {f"t{t}": 20 - t for t in range(TASKS)}
    shown = CapabilityProfile("m", hard, dict.fromkeys(hard, 20), test_id=TEST.id)
    prior = TaskPrior.from_profiles([shown], TEST, 8.0)
    assert (np.diff(prior.difficulty) > 0).all()
    flat = TaskPrior.from_profiles([], TEST, 8.0)
    assert np.ptp(flat.difficulty) == 0
    assert np.isfinite(flat.difficulty).all()
