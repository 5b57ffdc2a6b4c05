"""A picture of an evaluation: one panel a scenario, PNG, SVG or PDF by the file's ending."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelsat_engine.errors import DataError, MissingExtraError
from modelsat_engine.evaluation.labels import DEFERRAL_LABELS, KIND_LABELS, LABELS, TITLES

ENDINGS = (".png", ".svg", ".pdf")
_COLOURS = {
    "router": "#0b6e4f",
    "router_refined": "#52b788",
    "oracle": "#b8b8b8",
    "random": "#8c8c8c",
    "best_single": "#444444",
    "aptitude_accuracy": "#e0a100",
    "best_per_task": "#7a5195",
    "knn_full_history": "#1f77b4",
    "knn_aptitude_answers": "#8fbcdb",
    "matrix_factorisation": "#d1495b",
}
_PANEL_INCHES = (7.0, 4.2)


def check_plot(path: Path) -> None:
    """Refuse at once what :func:`draw` could not write.

    Raises:
        DataError: an ending that is no picture. MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path} is no picture file; use an ending out of {', '.join(ENDINGS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("modelsat evaluate --plot", "evaluate")


def draw(result: Mapping[str, Any], path: str | Path) -> None:
    """Write the picture of a result of :func:`modelsat_engine.evaluation.run.evaluate`.

    Raises:
        DataError: nothing to draw, or the file cannot be written. MissingExtraError: matplotlib is not installed.
    """
    target = Path(path)
    check_plot(target)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = _panels(result["scenarios"])
    if not panels:
        raise DataError("the result holds no scenario to draw")
    width, height = _PANEL_INCHES
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (title, panel) in zip(grid, panels, strict=False):
        axes.set_title(title, loc="left", fontsize=10)
        panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    name = f"{result['bundle']['name']}@{str(result['bundle']['hash']).removeprefix('sha256:')[:12]}"
    figure.suptitle(f"modelsat evaluate, {name}, {result['settings']['seeds']} seeds", fontsize=11)
    try:
        with rc_context({"svg.fonttype": "none"}):  # text stays text, to be searched and read aloud
            figure.savefig(target, dpi=120)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}") from error


def _panels(scenarios: Mapping[str, Any]) -> list[tuple[str, Callable[[Any], None]]]:
    panels: list[tuple[str, Callable[[Any], None]]] = []
    for name, scenario in scenarios.items():
        title = TITLES.get(name, name)
        if name == "cost_pairs":
            pair = scenario["named_pair"]
            if pair is not None:
                panels.append((f"{_short(pair['weak'])} deferring to {_short(pair['strong'])}", _curves(pair)))
        elif name == "routerbench":
            panels += [
                (f"RouterBench: {_short(pair['weak_profile'])} deferring to {_short(pair['strong'])}", _curves(pair))
                for pair in scenario["pairs"]
            ]
        elif name == "release_stream":
            if scenario["steps"]:
                panels.append((title, _stream(scenario)))
        elif any(zoo["count"] for zoo in scenario["zoos"].values()):
            panels.append((title, _gains(scenario)))
    return panels


def _gains(scenario: Mapping[str, Any]) -> Callable[[Any], None]:
    """Bars of the gain over the best single model, a group a kind of zoo."""
    kinds = {kind: zoo["choices"] for kind, zoo in scenario["zoos"].items() if zoo["count"]}
    hidden = ("random", "best_single", "oracle")  # far off, zero by definition, far off
    keys = [key for key in LABELS if key not in hidden and any(key in choices for choices in kinds.values())]

    def panel(axes: Any) -> None:
        width = 0.8 / max(1, len(keys))
        for place, key in enumerate(keys):
            gains = [choices[key]["gain_over_best_single"] for choices in kinds.values()]
            axes.bar(
                [group + (place + 0.5) * width - 0.4 for group in range(len(kinds))],
                [100 * (gain["mean"] or 0.0) for gain in gains],
                width,
                yerr=[100 * (gain["sd"] or 0.0) for gain in gains],
                color=_COLOURS.get(key),
                ecolor="#00000060",
                label=LABELS[key],
            )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(kinds)), [KIND_LABELS.get(kind, kind) for kind in kinds])
        axes.set_ylabel("gain over best single, points")
        axes.legend(fontsize=7, frameon=False)

    return panel


def _stream(scenario: Mapping[str, Any]) -> Callable[[Any], None]:
    """Accuracy after every arrival."""
    steps = scenario["steps"]
    lines = ("router", "best_single", "aptitude_accuracy", "knn_full_history", "random", "oracle")

    def panel(axes: Any) -> None:
        for key in lines:
            if key in steps[0]["accuracy"]:
                values = [100 * step["accuracy"][key] for step in steps]
                axes.plot(values, color=_COLOURS[key], label=LABELS[key], linewidth=2 if key == "router" else 1)
        arrivals = [(place, step) for place, step in enumerate(steps) if not step["seen"]]
        axes.plot(
            [place for place, _ in arrivals],
            [100 * step["accuracy"]["router"] for _, step in arrivals] if "router" in steps[0]["accuracy"] else [],
            "o",
            color=_COLOURS["router"],
            markersize=4,
            label="a model the router never met",
        )
        axes.set_xticks(range(len(steps)), [_short(step["model"])[:22] for step in steps], rotation=90, fontsize=6)
        axes.set_ylabel("questions answered right, %")
        axes.legend(fontsize=7, frameon=False)

    return panel


def _curves(pair: Mapping[str, Any]) -> Callable[[Any], None]:
    """Accuracy against the share of strong calls."""
    curves = pair["curves"]

    def panel(axes: Any) -> None:
        share = [100 * value for value in curves["share"]]
        for key in [key for key in DEFERRAL_LABELS if key in curves]:
            axes.plot(
                share,
                [100 * value for value in curves[key]],
                color=_COLOURS.get(key),
                label=DEFERRAL_LABELS[key],
                linewidth=2 if key == "router" else 1,
                linestyle="--" if key == "random" else "-",
            )
        axes.set_xlabel("calls of the strong model, %")
        axes.set_ylabel("questions answered right, %")
        axes.legend(fontsize=7, frameon=False)

    return panel


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
