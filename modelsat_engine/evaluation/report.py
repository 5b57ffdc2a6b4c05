"""Tables for people of what :func:`modelsat_engine.evaluation.run.evaluate` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

TITLES = {
    "seen_models": "Seen models, new questions",
    "new_models": "New models, new questions",
    "new_datasets": "Datasets never trained on",
}
LABELS = {
    "router": "router",
    "random": "random candidate",
    "aptitude_accuracy": "best single by aptitude test",
    "best_single": "best single in hindsight",
    "best_per_task": "best per task, full history",
    "knn_full_history": "kNN (64), full history",
    "knn_aptitude_answers": "kNN (64), aptitude answers",
    "matrix_factorisation": "matrix factorisation (16)",
    "oracle": "oracle",
}


def render(result: Mapping[str, Any]) -> Group:
    """One table a scenario, the router's row first; a rich renderable."""
    from rich.console import Group
    from rich.text import Text

    settings, data = result["settings"], result["data"]
    note = Text(
        f"{result['bundle']['name']}: {data['seen_models']} seen and {data['new_models']} new models; "
        f"{settings['seeds']} seeds of {settings['zoos_per_seed']} random zoos of {settings['zoo_size']}. "
        "Mean and, after ±, standard deviation over seeds with resampled questions. Gain is over the single model that "
        "is best in hindsight, in points. Columns similar and mixed are the share of questions answered right, in per "
        "cent, when routing in zoos of models of like strength and of any.",
        style="dim",
    )
    return Group(*(_table(name, scenario) for name, scenario in result["scenarios"].items()), note)


def _table(name: str, scenario: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("predictor", no_wrap=True)
    for header in ("AUC", "ECE", "similar", "gain", "mixed", "gain"):
        table.add_column(header, justify="right", no_wrap=True)
    predictions = scenario["predictions"]
    choices = {kind: scenario["zoos"][kind]["choices"] for kind in ("similar", "mixed")}
    shown = [key for key in LABELS if key in predictions or any(key in of_kind for of_kind in choices.values())]
    shown += [key for key in predictions if key not in LABELS]
    for key in shown:
        predicted = predictions.get(key, {})
        cells = [_figure(predicted.get("auc"), 1, ".3f"), _figure(predicted.get("ece"), 1, ".3f", spread=False)]
        for of_kind in choices.values():
            # Its spread is that of the zoos' strength and says little; the gain is within a zoo.
            cells.append(_figure(of_kind.get(key, {}).get("routed_accuracy"), 100, ".1f", spread=False))
            cells.append(_figure(of_kind.get(key, {}).get("gain_over_best_single"), 100, "+.1f"))
        table.add_row(LABELS.get(key, key), *cells, style="bold" if key == "router" else None)
    return table


def _figure(figure: Mapping[str, float | None] | None, scale: float, spec: str, spread: bool = True) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    text = format(figure["mean"] * scale, spec)
    if spread and figure["sd"] is not None:
        text += f" ±{format(figure['sd'] * scale, spec.lstrip('+'))}"
    return text
