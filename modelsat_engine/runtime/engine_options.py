"""What an engine is loaded with: modes, the bounds of their batches, and the checks of numbers."""

from __future__ import annotations

from typing import Literal

from modelsat_engine import _core
from modelsat_engine.errors import ExecutorError, OptionError
from modelsat_engine.runtime.call_options import is_whole_number
from modelsat_engine.runtime.executors import ExecutorLimits

Mode = Literal["latency", "throughput"]
DEFAULT_MAX_QUEUE = 65_536
_LARGEST_MAX_QUEUE = 1 << 30
# In latency mode a request waits at most for the batch that runs, so batches are kept short there; in throughput mode
# they are as large as the executor takes (64 instructions and 8,192 tokens for onnxruntime).
_LATENCY_BATCH_REQUESTS = 4
_LATENCY_BATCH_TOKENS = 512


def batch_bounds(limits: ExecutorLimits, mode: Mode) -> ExecutorLimits:
    """Bounds of the scheduler's batches: the executor's, in latency mode tighter."""
    if mode == "throughput":
        return limits
    tokens = max(_LATENCY_BATCH_TOKENS, limits.max_instruction_tokens)
    return ExecutorLimits(
        max_batch_requests=min(limits.max_batch_requests, _LATENCY_BATCH_REQUESTS),
        max_batch_tokens=min(limits.max_batch_tokens, tokens),
        max_instruction_tokens=limits.max_instruction_tokens,
    )


def require_queue_bound(max_queue: object) -> None:
    """Raise OptionError unless it is a number of instructions."""
    if not is_whole_number(max_queue, 1, _LARGEST_MAX_QUEUE):
        raise OptionError(f"max_queue is {max_queue!r}; use a whole number of instructions, 1 or more")


def require_thread_count(threads: object) -> None:
    """Raise ExecutorError unless it is a number of threads."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ExecutorError(f"threads is {threads!r}; use a whole number of 1 or more, or None")


def usable_cpu_count() -> int:
    """CPUs this process may use at once, by affinity and cgroup quota."""
    return _core.usable_cpu_count()
