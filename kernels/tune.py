"""`python -m modelsat_engine.kernels.tune`: measure tiles on this GPU and write the committed table anew."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import click

from modelsat_engine.errors import KernelError, MissingExtraError, ModelSatError
from modelsat_engine.kernels.configs import TABLE_FILE, TARGETS, read_table

Tile = dict[str, int]
#: What is tried for each kernel; what a list does not name keeps its value.
CHOICES: dict[str, dict[str, tuple[int, ...]]] = {
    "linear": {
        "block_rows": (32, 64, 128),
        "block_columns": (32, 64, 128),
        "block_k": (32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (3, 4),
    },
    "candidate_attention": {"block_rows": (16, 32, 64), "block_keys": (32, 64, 128), "num_warps": (2, 4)},
    "prefix_attention": {"block_queries": (32, 64, 128), "block_keys": (32, 64, 128), "num_warps": (4, 8)},
    "residual_layer_norm": {"block_rows": (1, 2, 4, 8), "num_warps": (1, 2, 4)},
    "embedding_layer_norm": {"block_rows": (1, 2, 4, 8), "num_warps": (1, 2, 4)},
    "scoring_head": {"block_candidates": (1, 2, 4, 8), "num_warps": (2, 4, 8)},
}
#: A tile must be so much faster than the one in the table before it takes its place: less is noise.
LEAST_GAIN = 0.03


def tiles_to_try(kernel: str, current: Tile) -> Iterator[Tile]:
    """Every tile of a kernel's choices, the current one first."""
    choices = CHOICES[kernel]
    yield dict(current)
    for values in product(*choices.values()):
        tile = {**current, **dict(zip(choices, values, strict=True))}
        if tile != current:
            yield tile


def best_tile(
    kernel: str, current: Tile, measure: Callable[[Tile], float], problem: Callable[[Tile], str | None]
) -> tuple[Tile, float, float]:
    """The fastest tile that may be committed, unless it gains too little over the current one.

    Args:
        measure: seconds with a tile, infinity where the GPU cannot run it.
        problem: why a tile may not be committed however fast it is, or None; asked only of tiles that would win.

    Returns:
        Tile, its time, and the current tile's.

    Raises:
        KernelError: not even the current tile runs.
    """
    timed = [(tile, measure(tile)) for tile in tiles_to_try(kernel, current)]
    before = timed[0][1]
    if not math.isfinite(before):
        raise KernelError(f"{kernel} does not run on this GPU with the tile of the table: {current}")
    faster = sorted((pair for pair in timed if pair[1] < before * (1 - LEAST_GAIN)), key=lambda pair: pair[1])
    for tile, after in faster:
        if problem(tile) is None:
            return tile, after, before
    return dict(current), before, before


def tile_problem(kernel: str, sizes: str, tile: Tile, target: str) -> str | None:
    """Why ahead-of-time compilation would refuse a tile: the first form of the kernel that spills or does not fit.

    Needs no GPU. All forms of the kernel are compiled, in every dtype, for a tile measured in fp16 serves others too.
    """
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.kernels.compilation import compile_form
    from modelsat_engine.kernels.inventory import all_forms
    from modelsat_engine.model.config import NetworkConfig

    kernels = read_table()[target]
    before = kernels.get(kernel)
    kernels[kernel] = {**(before or {}), sizes: tile}
    try:
        for form in all_forms(NetworkConfig.from_json(dict(Bundle.load().config))):
            if form.kernel == kernel:
                try:
                    found = compile_form(form, target).problem
                except KernelError as error:
                    found = str(error)
                if found is not None:
                    return f"{form.name}: {found}"
        return None
    finally:
        if before is None:
            del kernels[kernel]
        else:
            kernels[kernel] = before


def write_table(table: Mapping[str, Mapping[str, Mapping[str, Tile]]]) -> None:
    """Replace the committed table, one tile a line."""
    lines = ["{"]
    for target, kernels in table.items():
        lines.append(f' "{target}": {{')
        for kernel, sizes in sorted(kernels.items()):
            rows = ",\n".join(f'   "{name}": {json.dumps(tile)}' for name, tile in sizes.items())
            lines.append(f'  "{kernel}": {{\n{rows}\n  }},')
        lines[-1] = lines[-1].removesuffix(",") if kernels else lines[-1]
        lines.append(" },")
    lines[-1] = lines[-1].removesuffix(",")
    TABLE_FILE.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
    read_table.cache_clear()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kernel", "kernels", multiple=True, type=click.Choice(tuple(CHOICES)), help="Only this kernel.")
@click.option("--dry-run", is_flag=True, help="Measure, but leave the table as it is.")
@click.pass_context
def main(ctx: click.Context, kernels: tuple[str, ...], dry_run: bool) -> None:
    """Measure tiles for the shipped router's sizes on this GPU and write kernels/configs/table.json anew.

    A tile that spills registers is passed over, however fast it is. Run the tests afterwards.

    \b
    Examples:
      python -m modelsat_engine.kernels.tune
      python -m modelsat_engine.kernels.tune --kernel linear --dry-run
    """
    from modelsat_engine.commands.console import complain, print_json

    try:
        found = tune(kernels or tuple(CHOICES))
    except ModelSatError as error:
        complain(str(error))
        ctx.exit(1)
    print_json(found["changes"])
    if not dry_run:
        write_table(found["table"])


def tune(kernels: tuple[str, ...]) -> dict[str, Any]:
    """Measure on this GPU.

    Returns:
        "table", to be written, and "changes": kernel, sizes, tile, microseconds before and after.

    Raises:
        MissingExtraError: PyTorch or Triton is not installed.
        KernelError: there is no CUDA device, or a kernel does not run on it.
    """
    from modelsat_engine.runtime.executors.cuda_device import device_reason

    reason = device_reason()
    if reason is not None:
        raise KernelError(f"tiles are measured on the GPU that they are for, and {reason}; run this where one is")
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("tuning kernels", "gpu") from error
    from modelsat_engine.commands.progress import ProgressBar
    from modelsat_engine.kernels.configs import target_of, tile
    from modelsat_engine.kernels.tune_workload import workloads

    device = torch.device("cuda", 0)
    target = target_of(device)
    table = json.loads(json.dumps(read_table()))
    changes = []
    work = [item for item in workloads(device) if item.kernel in kernels]
    with ProgressBar("measuring tiles") as bar:
        for index, item in enumerate(work):
            bar.update(index / len(work), f"{item.kernel} {item.sizes}")
            current = tile(item.kernel, torch.float16, item.sizes, target)
            entry = table[target].setdefault(item.kernel, {})

            def measure(tried: Tile, item: Any = item) -> float:
                read_table()[target].setdefault(item.kernel, {})[item.sizes] = tried
                return geometric_mean_s(item.runs)

            def problem(tried: Tile, item: Any = item) -> str | None:
                return tile_problem(item.kernel, item.sizes, tried, target)

            best, after, before = best_tile(item.kernel, current, measure, problem)
            read_table()[target][item.kernel][item.sizes] = best
            if best != current:
                entry[item.sizes] = best
                changes.append(
                    {
                        "kernel": item.kernel,
                        "sizes": item.sizes,
                        "tile": best,
                        "before_us": round(before * 1e6, 2),
                        "after_us": round(after * 1e6, 2),
                    }
                )
    return {"table": {name: table[name] for name in ("default", *TARGETS)}, "changes": changes}


def geometric_mean_s(runs: Sequence[Callable[[], object]]) -> float:
    """Time of several calls, each counting alike however long it takes; infinity where one cannot run."""
    times = [seconds_of(run) for run in runs]
    return math.exp(statistics.fmean(map(math.log, times))) if all(map(math.isfinite, times)) else math.inf


def seconds_of(run: Callable[[], object], calls: int = 20, repeats: int = 7) -> float:
    """Median time of one call on the device, out of graphs of many; infinity where it cannot run."""
    import torch

    try:
        run()  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                run()
    except Exception:  # too much shared memory or too many registers: this tile is none for this GPU
        return math.inf
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / calls)
    return statistics.median(times)


if __name__ == "__main__":
    from modelsat_engine.cli import exit_with

    exit_with(lambda: main(standalone_mode=False))
