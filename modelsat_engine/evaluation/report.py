"""Tables for people of what :func:`modelsat_engine.evaluation.run.evaluate` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelsat_engine.evaluation.labels import DEFERRAL_LABELS, KIND_LABELS, LABELS, TITLES

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

Column = tuple[str, Callable[[str], str]]  # its header, and the cell of a predictor

GROUP_LABELS = {"seen_models": "seen", "new_models": "new"}


def render(result: Mapping[str, Any]) -> Group:
    """One table or two a scenario, the router's row first; a rich renderable."""
    from rich.console import Group
    from rich.text import Text

    settings, data = result["settings"], result["data"]
    note = Text(
        f"{result['bundle']['name']}, executor {settings.get('executor', 'unknown')}: "
        f"{data['seen_models']} seen and {data['new_models']} new models; "
        f"{settings['seeds']} seeds of {settings['zoos_per_seed']} random zoos of {settings['zoo_size']}. "
        "Mean and, after ±, standard deviation over seeds with resampled questions. Gain is over the single model that "
        "is best in hindsight, in points; similar and right are shares of questions answered right. "
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
    columns: list[Column] = [
        ("AUC", _metric(predictions, "auc", 1, ".3f")),
        ("ECE", _metric(predictions, "ece", 1, ".3f", spread=False)),
    ]
    for kind, zoo in zoos.items():
        label = KIND_LABELS.get(kind, kind)
        gain = _choice(zoo, "gain_over_best_single", 100, "+.1f")
        if kind == "similar":
            # Its spread is that of the zoos' strength and says little; the gain is within a zoo.
            columns += [(label, _choice(zoo, "routed_accuracy", 100, ".1f", spread=False)), ("gain", gain)]
        else:
            columns.append((f"gain, {label}", gain))
    title = f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)"
    keys = _in_order(LABELS, predictions, *(zoo["choices"] for zoo in zoos.values()))
    return _table(title, columns, keys, LABELS, caption=_spans(zoos))


def _zoo_table(name: str, scenario: Mapping[str, Any]) -> Table:
    """Gain in every kind of zoo."""
    zoos = scenario["zoos"]
    columns: list[Column] = [
        (f"gain, {KIND_LABELS.get(kind, kind)}", _choice(zoo, "gain_over_best_single", 100, "+.1f"))
        for kind, zoo in zoos.items()
    ]
    columns.append(("right, %", _choice(next(iter(zoos.values())), "routed_accuracy", 100, ".1f", spread=False)))
    title = f"{TITLES.get(name, name)} ({scenario['models']} models, {scenario['questions']:,} questions)"
    caption = _spans(zoos) + f"; right, % is of {KIND_LABELS.get(next(iter(zoos)), next(iter(zoos)))}"
    if "order" in scenario:
        caption += f". {len(scenario['steps'])} arrivals, ordered by {scenario['order']}"
    return _table(title, columns, _in_order(LABELS, *(zoo["choices"] for zoo in zoos.values())), LABELS, caption)


def _priced_table(scenario: Mapping[str, Any]) -> Table:
    group = scenario["groups"]["priced"]
    columns: list[Column] = []
    for width, label in (("wide", "15+"), ("close", "5-15")):
        of_width = group[width]["predictors"]
        columns.append((f"APGR {label}", _metric(of_width, "apgr", 1, ".3f")))
        columns.append(("strong", _metric(of_width, "strong_share", 100, ".0f", spread=False)))
        columns.append(("saved", _metric(of_width, "cost_saved", 100, ".1f")))
    rule = scenario["rules"].get("router", {})
    caption = (
        f"{group['wide']['pairs']} pairs 15 points or more apart, {group['close']['pairs']} closer, with prices. "
        "Strong and saved: calls of the strong model and cost saved, in per cent, at "
        f"{scenario['quality_target']:.0%} of the strong model's accuracy. Deferral score of the router: "
        f"{rule.get('rule')}, by {rule.get('chosen_on')}"
    )
    named = scenario["named_pair"]
    if named is not None:
        keys = [
            key
            for key in ("router", "router_refined", "knn_full_history", "best_per_task")
            if key in named["predictors"]
        ]
        apgr = ", ".join(f"{DEFERRAL_LABELS[key]} {_plain(named['predictors'][key]['apgr'])}" for key in keys)
        caption += f". {_short(named['weak'])} against {_short(named['strong'])}: APGR {apgr}"
    title = f"{TITLES['cost_pairs']} ({scenario['questions']:,}): priced models"
    keys = _in_order(DEFERRAL_LABELS, group["wide"]["predictors"], group["close"]["predictors"])
    return _table(title, columns, keys, DEFERRAL_LABELS, caption)


def _unpriced_table(scenario: Mapping[str, Any]) -> Table:
    columns: list[Column] = []
    counts, found = [], []
    for group, label in GROUP_LABELS.items():
        for width, points in (("wide", "15+"), ("close", "5-15")):
            part = scenario["groups"][group][width]
            columns.append((f"{label} {points}", _metric(part["predictors"], "apgr", 1, ".3f")))
            counts.append(str(part["pairs"]))
            found.append(part["predictors"])
    title = f"{TITLES['cost_pairs']} ({scenario['questions']:,}): APGR whatever the price"
    keys = _in_order(DEFERRAL_LABELS, *found)
    caption = f"Pairs of seen and of new models, 15 points or more apart and 5 to 15; how many: {', '.join(counts)}"
    return _table(title, columns, keys, DEFERRAL_LABELS, caption)


def _routerbench_table(scenario: Mapping[str, Any]) -> Table:
    columns: list[Column] = []
    described = []
    for number, pair in enumerate(scenario["pairs"], start=1):
        columns.append((f"APGR ({number})", _metric(pair["predictors"], "apgr", 1, ".3f")))
        columns.append(("strong", _metric(pair["predictors"], "strong_share", 100, ".0f", spread=False)))
        columns.append(("saved", _metric(pair["predictors"], "cost_saved", 100, ".1f")))
        profiles = f"{_short(pair['weak_profile'])} and {_short(pair['strong_profile'])}"
        described.append(f"({number}) {_short(pair['weak'])} against {_short(pair['strong'])}, profiles {profiles}")
    reasons: dict[str, list[str]] = {}
    for model, reason in scenario["left_out"].items():
        reasons.setdefault(reason, []).append(_short(model))
    left_out = "; ".join(f"{', '.join(models)} ({reason})" for reason, models in reasons.items())
    title = f"{TITLES['routerbench']} ({scenario['questions']:,} questions)"
    keys = _in_order(DEFERRAL_LABELS, *(pair["predictors"] for pair in scenario["pairs"]))
    caption = ". ".join([*described, f"Left out: {left_out or 'none'}"])
    return _table(title, columns, keys, DEFERRAL_LABELS, caption)


def _table(
    title: str,
    columns: Sequence[Column],
    keys: list[str],
    labels: Mapping[str, str],
    caption: str | None = None,
) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("predictor", no_wrap=True)
    for header, _ in columns:
        table.add_column(header, justify="right")
    for key in keys:
        cells = [cell(key) for _, cell in columns]
        table.add_row(labels.get(key, key), *cells, style="bold" if key == "router" else None)
    return table


def _in_order(labels: Mapping[str, str], *found: Mapping[str, Any]) -> list[str]:
    """The keys of all mappings: known ones in the order of ``labels``, then the others."""
    present = {key: None for mapping in found for key in mapping}
    return [key for key in labels if key in present] + [key for key in present if key not in labels]


def _choice(zoo: Mapping[str, Any], metric: str, scale: float, spec: str, spread: bool = True) -> Callable[[str], str]:
    return lambda key: _figure(zoo["choices"].get(key, {}).get(metric), scale, spec, spread)


def _metric(
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
    text = _plain(figure["mean"] * scale, spec)
    if spread and figure["sd"] is not None:
        text += f" ±{_plain(figure['sd'] * scale, spec.lstrip('+'))}"
    return text


def _plain(value: float | None, spec: str = ".3f") -> str:
    """A share below one loses its leading zero: .771."""
    text = "" if value is None else format(value, spec)
    return text.removeprefix("0") if spec == ".3f" else text


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
