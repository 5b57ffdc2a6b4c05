"""Pictures of capability profiles: bars with their intervals, or a radar; PNG, SVG or PDF by the file's ending."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelsat_engine.aptitude.comparison import Comparison, TaskScore, overall_score, task_scores
from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.errors import DataError, MissingExtraError

ENDINGS = (".png", ".svg", ".pdf")
STYLES = ("bar", "radar")
_FIRST, _SECOND, _CERTAIN = "#0b6e4f", "#d1495b", "#222222"


def check_picture(path: Path, feature: str) -> None:
    """Refuse at once what could not be drawn later.

    Args:
        feature: what the user asked for, such as "modelsat aptitude show --plot".

    Raises:
        DataError: an ending that is no picture, or a folder that does not exist. MissingExtraError: no matplotlib.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path} is no picture file; use an ending out of {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent} is not a folder; make it first")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(feature, "evaluate")


def draw_profile(profile: CapabilityProfile, path: str | Path, *, style: str = "bar", confidence: float = 0.95) -> None:
    """One candidate: its accuracy on every task it has answers for, best first, with Wilson intervals.

    Args:
        style: "bar", a bar a task; "radar", a spoke a task, in the order of the test.

    Raises:
        DataError: no task to draw, or the file cannot be written. MissingExtraError: matplotlib is not installed.
    """
    scores = [score for score in task_scores(profile, confidence) if score.total]
    whole = overall_score(profile, confidence)
    title = f"{_shown(profile.name)}: {_percent(whole)} of {whole.total:,} aptitude answers right"
    if style == "radar":
        _radar(Path(path), title, {_shown(profile.name): scores})
        return
    scores.sort(key=lambda score: score.accuracy or 0.0)
    figure, axes = _canvas(Path(path), len(scores))
    _bars(axes, scores)
    axes.set_xlabel(f"right answers, %, with {confidence:.0%} intervals", fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    _save(figure, Path(path))


def draw_comparison(comparison: Comparison, path: str | Path, *, style: str = "bar") -> None:
    """Two candidates: the difference on every task, largest first, with its interval; or two radars in one.

    Raises:
        DataError: the file cannot be written. MissingExtraError: matplotlib is not installed.
    """
    a, b = _shown(comparison.a.name), _shown(comparison.b.name)
    if style == "radar":
        pairs = [(x, y) for x, y in zip(comparison.scores_a, comparison.scores_b, strict=True) if x.total and y.total]
        _radar(Path(path), f"{a} and {b}", {a: [x for x, _ in pairs], b: [y for _, y in pairs]})
        return
    differences = sorted(comparison.tasks, key=lambda task: task.difference)
    certain = {task.task for task in comparison.certain}
    figure, axes = _canvas(Path(path), len(differences))
    for place, task in enumerate(differences):
        colour = _FIRST if task.difference > 0 else _SECOND
        axes.barh(place, 100 * task.difference, 0.72, color=colour, alpha=0.9 if task.task in certain else 0.35)
        axes.plot([100 * end for end in task.interval], [place, place], color=_CERTAIN, linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(differences)), [_spaced(task.task) for task in differences], fontsize=7)
    axes.set_ylim(-0.7, len(differences) - 0.3)
    axes.set_xlabel(
        f"points by which {a} is better, with {comparison.confidence:.0%} intervals;\n"
        "full colour where it stands with all tasks taken together",
        fontsize=8,
    )
    low, high = comparison.overall.interval
    axes.set_title(
        f"{a} less {b}: {100 * comparison.overall.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]",
        loc="left",
        fontsize=10,
    )
    _save(figure, Path(path))


def _canvas(path: Path, rows: int) -> tuple[Any, Any]:
    check_picture(path, "a picture of a profile")
    if not rows:
        raise DataError("the profile has no task with an answer to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.4 + 0.19 * rows), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(axes: Any, scores: Sequence[TaskScore]) -> None:
    shares = [100 * (score.accuracy or 0.0) for score in scores]
    below = [max(0.0, share - 100 * score.interval.low) for share, score in zip(shares, scores, strict=True)]
    above = [max(0.0, 100 * score.interval.high - share) for share, score in zip(shares, scores, strict=True)]
    places = range(len(scores))
    axes.barh(places, shares, 0.72, color=_FIRST, alpha=0.8, xerr=[below, above], ecolor="#00000090")
    axes.set_yticks(places, [_spaced(score.task) for score in scores], fontsize=7)
    axes.set_ylim(-0.7, len(scores) - 0.3)
    axes.set_xlim(0, 100)


def _radar(path: Path, title: str, series: dict[str, list[TaskScore]]) -> None:
    check_picture(path, "a picture of a profile")
    tasks = [score.task for score in next(iter(series.values()))]
    if len(tasks) < 3:
        raise DataError(f"a radar needs at least three tasks with answers, there are {len(tasks)}; draw bars")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 9.0), layout="constrained")
    axes: Any = figure.subplots(subplot_kw={"projection": "polar"})
    angles = [2 * math.pi * place / len(tasks) for place in range(len(tasks))]
    closed = [*angles, angles[0]]
    for (name, scores), colour in zip(series.items(), (_FIRST, _SECOND), strict=False):
        shares = [100 * (score.accuracy or 0.0) for score in scores]
        low = [100 * score.interval.low for score in scores]
        high = [100 * score.interval.high for score in scores]
        axes.plot(closed, [*shares, shares[0]], color=colour, linewidth=1.6, label=name)
        axes.fill_between(closed, [*low, low[0]], [*high, high[0]], color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 100)
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, [""] * len(tasks))
    axes.tick_params(axis="y", labelsize=7, colors="#777777")
    for angle, task in zip(angles, tasks, strict=True):  # along the spoke, so that fifty names do not overlap
        right = angle <= math.pi
        axes.text(
            angle,
            104,
            _spaced(task),
            rotation=(90 if right else 270) - math.degrees(angle),
            rotation_mode="anchor",
            ha="left" if right else "right",
            va="center",
            fontsize=7,
        )
    figure.suptitle(title, fontsize=11)
    if len(series) > 1:
        figure.legend(loc="upper left", fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Write the picture whole or not at all."""
    from matplotlib import rc_context

    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with rc_context({"svg.fonttype": "none"}):  # text stays text, to be searched and read aloud
            figure.savefig(temporary, dpi=120)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _shown(name: str, most: int = 40) -> str:
    """A name as matplotlib may draw it: one line, not endless, and no formula between dollar signs."""
    name = "".join(c if c.isprintable() else " " for c in name)
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")


def _spaced(task: str) -> str:
    return _shown(task.replace("_", " "))


def _percent(score: TaskScore) -> str:
    return "–" if score.accuracy is None else f"{score.accuracy:.1%}"
