"""Time on the device and time to an answer, each call with a cold second-level cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

#: Several times the second-level cache of any GPU of today.
FLUSH_BYTES = 512 * 2**20
Call = Callable[[], object]


class DeviceTimer:
    """Times calls on one device."""

    def __init__(self, device: torch.device) -> None:
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def device_us(self, call: Call, repeats: int = 50, warm_up: int = 5) -> dict[str, float]:
        """From the first kernel's start to the last one's end, microseconds: p50, p90, p99 and n.

        The cache is overwritten before every call. That takes so long that the host is through with queueing a graph
        by then; what a slow host leaves as gaps between kernels counts, as it does in use.
        """
        for _ in range(warm_up):
            call()
        pairs = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            begin.record()
            call()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return summary([begin.elapsed_time(end) * 1e3 for begin, end in pairs])


def graph_of(run: Call) -> Call:
    """A call that replays what `run` queues; `run` must not wait for the device."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # what `run` reads may be on its way there
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Call = graph.replay
    return replay


def wall_us(call: Call, repeats: int = 200, warm_up: int = 20) -> dict[str, float]:
    """From the call to its return, microseconds: p50, p90, p99 and n. `call` gives its answer to the host."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    return summary(times)


def summary(times_us: Sequence[float]) -> dict[str, float]:
    """Percentiles of some times."""
    values: dict[str, Any] = {f"p{q}_us": round(float(np.percentile(times_us, q)), 2) for q in (50, 90, 99)}
    return {**values, "n": len(times_us)}
