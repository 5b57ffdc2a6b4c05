"""The sweeps as a picture: one panel per axis, one line per contender, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

AXES = {"seq": "tokens of the instruction", "candidates": "candidates", "batch": "instructions in a call"}


def write_plot(cells: Sequence[dict[str, Any]], base: dict[str, int], path: Path) -> None:
    """Median processor time of a call against each axis, the other two at their base values.

    Args:
        path: of the picture; its ending chooses the format, as matplotlib knows them.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(AXES), figsize=(5 * len(AXES), 4), sharey=True, layout="constrained")
    for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
        others = [key for key in base if key != axis]
        chosen = [cell for cell in cells if all(cell[key] == base[key] for key in others)]
        chosen.sort(key=lambda cell: int(cell[axis]))
        values = [cell[axis] for cell in chosen]
        for name in cells[0]["contenders"]:
            times = [cell["contenders"][name]["cpu_ms"]["p50"] for cell in chosen]
            panel.plot(values, times, marker="o", label=name)
        fixed = ", ".join(f"{key} {base[key]}" for key in others)
        panel.set(xscale="log", yscale="log", xlabel=label, title=fixed, xticks=values, xticklabels=values)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("processor time of a call, ms (median)")
    panels[-1].legend()
    figure.savefig(path)
    pyplot.close(figure)
