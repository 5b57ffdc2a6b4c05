"""The bars of a CPU executor, each beside the figure that was measured."""

from __future__ import annotations

from typing import Any

from latency.contenders import NATIVE


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per bar: ``what``, ``value``, ``bar``, ``holds``. None without the native executor.

    A ratio between calls is one of processor time, which is what a call costs whatever else the machine does; with
    several threads it is one of wall time.
    """
    clock = "cpu_ratio" if result["threads"] == 1 else "wall_ratio"
    if NATIVE in result["missing"]:
        return []
    rows: list[dict[str, Any]] = []

    def at_least(what: str, value: float, bar: float) -> None:
        rows.append({"what": what, "value": value, "bar": f">= {bar}", "holds": value >= bar})

    def at_most(what: str, value: float, bar: float) -> None:
        rows.append({"what": what, "value": value, "bar": f"<= {bar}", "holds": value <= bar})

    base = result["cells"][0]["contenders"]
    for name, bar in (("onnxruntime_fp32", 5.0), ("onnxruntime_int8", 3.5)):
        if name in base:
            at_least(f"times faster than {name} at S = 64, M = 10", base[name][clock]["p50"], bar)
    size = result["zoo_size_100_to_1"][NATIVE]
    at_most("cost of M = 100 against M = 1", size[clock]["p50"], 1.6)
    for name in (NATIVE, "torch_eager"):
        if name in result["one_forward_per_candidate"]:
            loop = result["one_forward_per_candidate"][name]
            at_least(f"one pass against one forward per candidate, M = 20, in {name}", loop[clock]["p50"], 25.0)
    at_most("load, ms", result["load"][NATIVE]["wall_ms_p50"], 300.0)
    at_most(
        "p99 beside a busy Python thread against alone, queue and execution",
        result["busy_thread"][NATIVE]["engine"]["p99_ratio"],
        1.5,
    )
    quality = result.get("quality", {}).get(NATIVE)
    if quality:
        at_least("route agreement with float32, the bundle's zoo", quality["route_agreement"], 0.985)
        for kind in ("random", "similar"):
            at_least(f"the same, {kind} zoos of five", quality[f"route_agreement_{kind}_five"], 0.985)
        at_most("mean loss of P, all instructions", quality["mean_loss_of_p"], 0.001)
        at_most("mean |dP|", quality["mean_abs_dp"], 0.005)
        for scenario in ("seen_models", "new_models"):
            at_most(f"loss of AUC, {scenario.replace('_', ' ')}", quality[f"auc_loss_{scenario}"], 0.002)
    return rows
