"""Tables for people of what :func:`modelsat_engine.evaluation.run.evaluate` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from modelsat_engine.evaluation.labels import DEFERRAL_LABELS, KIND_LABELS, LABELS, TITLES

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

GROUP_LABELS = {"seen_models": "seen models", "new_models": "new models"}


def render(result: Mapping[str, Any]) -> Group:
    """One table or two a scenario, the router's row first; a rich renderable."""
    from rich.console import Group
    from rich.text import Text

    settings, data = result["settings"], result["data"]
    note = Text(
        f"{result['bundle']['name']}: {data['seen_models']} seen and {data['new_models']} new models; "
        f"{settings['seeds']} seeds of {settings['zoos_per_seed']} random zoos of {settings['zoo_size']}. "
        "Mean and, after ±, standard deviation over seeds with resampled questions. Gain is over the single model that "
        "is best in hindsight, in points; the figure before it is the share of questions answered right, in per cent. "
        "APGR is the area under the deferral curve between the weak model (0) and the strong one (1).",
        style="dim",
    )
    parts: list[RenderableType] = []
    for name, scenario in result["scenarios"].items():
        if name == "cost_pairs":
            parts += [_priced_table(scenario), _unpriced_table(scenario)]
        elif name == "routerbench":
            parts.append(_routerbench_table(scenario))
        elif "predictions" in scenario:
            parts.append(_prediction_table(name, scenario))
        else:
            parts.append(_zoo_table(name, scenario))
    return Group(*parts, note)


def _prediction_table(name: str, scenario: Mapping[str, Any]) -> Table:
    """AUC and calibration, and what choosing earns in zoos of like strength and of any."""
    predictions, zoos = scenario["predictions"], scenario["zoos"]
    columns: dict[str, Callable[[str], str]] = {
        "AUC": lambda key: _figure(predictions.get(key, {}).get("auc"), 1, ".3f"),
        "ECE": lambda key: _figure(predictions.get(key, {}).get("ece"), 1, ".3f", spread=False),
    }
    for kind in zoos:
        label = KIND_LABELS.get(kind, kind)
        if kind != "similar_sparse":
            # Its spread is that of the zoos' strength and says little; the gain is within a zoo.
            columns[label] = _choice(zoos[kind], "routed_accuracy", 100, ".1f", spread=False)
            columns[f"gain, {label}"] = _choice(zoos[kind], "gain_over_best_single", 100, "+.1f")
        else:
            columns["sparse"] = _choice(zoos[kind], "gain_over_best_single", 100, "+.1f")
    title = f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)"
    keys = _in_order(LABELS, predictions, *(zoo["choices"] for zoo in zoos.values()))
    return _table(title, columns, keys, LABELS, caption=_spans(zoos))


def _zoo_table(name: str, scenario: Mapping[str, Any]) -> Table:
    """Gain in every kind of zoo."""
    zoos = scenario["zoos"]
    columns: dict[str, Callable[[str], str]] = {
        f"gain, {KIND_LABELS.get(kind, kind)}": _choice(zoo, "gain_over_best_single", 100, "+.1f")
        for kind, zoo in zoos.items()
    }
    columns["right, %"] = _choice(next(iter(zoos.values())), "routed_accuracy", 100, ".1f", spread=False)
    title = f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)"
    caption = _spans(zoos) + f"; right, % is of {KIND_LABELS.get(next(iter(zoos)), next(iter(zoos)))}"
    if "order" in scenario:
        caption += f". {len(scenario['steps'])} arrivals, ordered by {scenario['order']}"
    return _table(title, columns, _in_order(LABELS, *(zoo["choices"] for zoo in zoos.values())), LABELS, caption)


def _priced_table(scenario: Mapping[str, Any]) -> Table:
    group = scenario["groups"]["priced"]
    columns: dict[str, Callable[[str], str]] = {}
    for width, label in (("wide", "15+"), ("close", "5-15")):
        of_width = group[width]["predictors"]
        columns[f"APGR {label}"] = _deferral(of_width, "apgr", 1, ".3f")
        columns[f"strong {label}"] = _deferral(of_width, "strong_share", 100, ".0f", spread=False)
        columns[f"saved {label}"] = _deferral(of_width, "cost_saved", 100, ".1f")
    named = scenario["named_pair"]
    if named is not None:
        columns["named pair"] = lambda key: _plain(named["predictors"].get(key, {}).get("apgr"))
    rule = scenario["rules"].get("router", {})
    caption = (
        f"{group['wide']['pairs']} pairs 15 points or more apart, {group['close']['pairs']} closer, with prices. "
        "Strong and saved: calls of the strong model and cost saved, in per cent, at "
        f"{scenario['quality_target']:.0%} of the strong model's accuracy. Deferral score of the router: "
        f"{rule.get('rule')}, by {rule.get('chosen_on')}"
    )
    if named is not None:
        caption += f". Named pair: {_short(named['weak'])}, {_short(named['strong'])}"
    title = f"{TITLES['cost_pairs']} ({scenario['questions']:,}): priced models"
    keys = _in_order(DEFERRAL_LABELS, group["wide"]["predictors"], group["close"]["predictors"])
    return _table(title, columns, keys, DEFERRAL_LABELS, caption)


def _unpriced_table(scenario: Mapping[str, Any]) -> Table:
    columns: dict[str, Callable[[str], str]] = {}
    counts, found = [], []
    for group, label in GROUP_LABELS.items():
        for width, points in (("wide", "15+"), ("close", "5-15")):
            part = scenario["groups"][group][width]
            columns[f"{label} {points}"] = _deferral(part["predictors"], "apgr", 1, ".3f")
            counts.append(str(part["pairs"]))
            found.append(part["predictors"])
    title = f"{TITLES['cost_pairs']} ({scenario['questions']:,}): APGR whatever the price"
    keys = _in_order(DEFERRAL_LABELS, *found)
    return _table(title, columns, keys, DEFERRAL_LABELS, f"Pairs: {', '.join(counts)}")


def _routerbench_table(scenario: Mapping[str, Any]) -> Table:
    columns: dict[str, Callable[[str], str]] = {}
    described = []
    for number, pair in enumerate(scenario["pairs"], start=1):
        columns[f"APGR ({number})"] = _deferral(pair["predictors"], "apgr", 1, ".3f")
        columns[f"strong ({number})"] = _deferral(pair["predictors"], "strong_share", 100, ".0f", spread=False)
        columns[f"saved ({number})"] = _deferral(pair["predictors"], "cost_saved", 100, ".1f")
        profiles = f"{_short(pair['weak_profile'])} and {_short(pair['strong_profile'])}"
        described.append(f"({number}) {_short(pair['weak'])} against {_short(pair['strong'])}, profiles {profiles}")
    left_out = "; ".join(f"{_short(model)} {reason}" for model, reason in scenario["left_out"].items())
    title = f"{TITLES['routerbench']} ({scenario['questions']:,} questions)"
    keys = _in_order(DEFERRAL_LABELS, *(pair["predictors"] for pair in scenario["pairs"]))
    caption = ". ".join([*described, f"Left out: {left_out or 'none'}"])
    return _table(title, columns, keys, DEFERRAL_LABELS, caption)


def _table(
    title: str,
    columns: Mapping[str, Callable[[str], str]],
    keys: list[str],
    labels: Mapping[str, str],
    caption: str | None = None,
) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("predictor", no_wrap=True)
    for header in columns:
        table.add_column(header, justify="right")
    for key in keys:
        cells = [cell(key) for cell in columns.values()]
        table.add_row(labels.get(key, key), *cells, style="bold" if key == "router" else None)
    return table


def _in_order(labels: Mapping[str, str], *found: Mapping[str, Any]) -> list[str]:
    """The keys of all mappings: known ones in the order of ``labels``, then the others."""
    present = {key: None for mapping in found for key in mapping}
    return [key for key in labels if key in present] + [key for key in present if key not in labels]


def _choice(zoo: Mapping[str, Any], metric: str, scale: float, spec: str, spread: bool = True) -> Callable[[str], str]:
    return lambda key: _figure(zoo["choices"].get(key, {}).get(metric), scale, spec, spread)


def _deferral(
    predictors: Mapping[str, Any], metric: str, scale: float, spec: str, spread: bool = True
) -> Callable[[str], str]:
    return lambda key: _figure(predictors.get(key, {}).get(metric), scale, spec, spread)


def _spans(zoos: Mapping[str, Any]) -> str:
    """How far apart the candidates of a zoo are: gains compare between zoos of equal span only."""
    spans = [
        f"{KIND_LABELS.get(kind, kind)} {100 * zoo['strength_range']:.1f} ±{100 * zoo['strength_range_sd']:.1f}"
        for kind, zoo in zoos.items()
        if zoo["count"]
    ]
    return "Strongest minus weakest candidate, points of MMLU-Pro accuracy: " + (", ".join(spans) or "no zoo")


def _figure(figure: Mapping[str, float | None] | None, scale: float, spec: str, spread: bool = True) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    text = format(figure["mean"] * scale, spec)
    if spread and figure["sd"] is not None:
        text += f" ±{format(figure['sd'] * scale, spec.lstrip('+'))}"
    return text


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
