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
    "knn_full_history": "64 nearest neighbours, full history",
    "knn_aptitude_answers": "64 nearest aptitude answers",
    "matrix_factorisation": "matrix factorisation, rank 16",
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
        "is best in hindsight, in points. Similar zoos hold models of like strength, mixed ones any.",
        style="dim",
    )
    return Group(*(_table(name, scenario) for name, scenario in result["scenarios"].items()), note)


def _table(name: str, scenario: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)",
        title_justify="left",
    )
    table.add_column("predictor", no_wrap=True)
    for header in ("AUC", "ECE", "accuracy, similar", "gain", "accuracy, mixed", "gain"):
        table.add_column(header, justify="right", no_wrap=True)
    predictions = scenario["predictions"]
    choices = {kind: scenario["zoos"][kind]["choices"] for kind in ("similar", "mixed")}
    shown = [key for key in LABELS if key in predictions or any(key in of_kind for of_kind in choices.values())]
    shown += [key for key in predictions if key not in LABELS]
    for key in shown:
        cells = [_figure(predictions.get(key, {}).get(metric), 1, ".3f") for metric in ("auc", "ece")]
        for of_kind in choices.values():
            cells.append(_figure(of_kind.get(key, {}).get("routed_accuracy"), 100, ".1f"))
            cells.append(_figure(of_kind.get(key, {}).get("gain_over_best_single"), 100, "+.1f"))
        table.add_row(LABELS.get(key, key), *cells, style="bold" if key == "router" else None)
    return table


def _figure(figure: Mapping[str, float | None] | None, scale: float, spec: str) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    text = format(figure["mean"] * scale, spec)
    if figure["sd"] is not None:
        text += f" ±{format(figure['sd'] * scale, spec.lstrip('+'))}"
    return text
