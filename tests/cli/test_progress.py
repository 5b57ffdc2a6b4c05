"""What long work says where nobody sees a bar."""

from __future__ import annotations

import pytest

from modelsat_engine.commands import progress
from modelsat_engine.commands.progress import ProgressBar


class Clock:
    """Seconds that pass only when told."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("Training") as bar:
        for second in range(0, 185, 5):
            clock.now = 1000.0 + second
            bar.update(second / 600, f"step {second}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Training 10% after 1 min, about 9 min left: step 60",
        "Training 20% after 2 min, about 8 min left: step 120",
        "Training 30% after 3 min, about 7 min left: step 180",
    ]


def test_the_rest_of_a_stage_is_foretold_by_that_stage(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("Training") as bar:
        for second in range(0, 600, 10):
            clock.now = 1000.0 + second
            bar.update(second / 600, "first stage")
        for second in range(0, 125, 5):
            clock.now = 1600.0 + second
            bar.update(second / 240, "second stage")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "Training 50% after 12 min, about 2 min left: second stage"


def test_what_is_soon_done_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("Scoring") as bar:
        for second in range(60):
            clock.now = 1000.0 + second
            bar.update(second / 60)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("fraction", "line"),
    [
        (None, "Reading after 5.0 h"),
        (0.0, "Reading 0% after 5.0 h"),
        (0.01, "Reading 1% after 5.0 h"),
        (1.0, "Reading 100% after 5.0 h, about 0 min left"),
    ],
)
def test_what_cannot_be_foretold_is_left_out(
    fraction: float | None, line: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("Reading") as bar:
        clock.now += 5 * 3600
        bar.update(fraction)
    assert capsys.readouterr().err.splitlines() == [line]
