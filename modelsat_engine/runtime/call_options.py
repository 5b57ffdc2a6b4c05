"""What a call of the engine may ask for beside its instructions: a deadline and a priority, checked and in one unit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from modelsat_engine.errors import InstructionError, OptionError
from modelsat_engine.runtime.instruction import Instruction

MIN_PRIORITY = -3
MAX_PRIORITY = 3
_LONGEST_US = 1 << 60  # about 36,000 years, and far from the end of int64


@dataclass(frozen=True)
class CallOptions:
    """Checked options of one call, and the moment it began.

    Attributes:
        started: ``time.perf_counter()`` when the call began; its deadline and its total time count from here.
        deadline_us: time from ``started`` until an answer is no longer wanted, or None.
        priority: -3 to 3, higher is served earlier.
    """

    started: float
    deadline_us: int | None
    priority: int

    @classmethod
    def of(cls, deadline_ms: float | None, priority: int) -> CallOptions:
        """Options of a call that begins now.

        Raises:
            OptionError: a deadline that is negative or no number, or a priority that is no whole number in range.
        """
        if deadline_ms is not None:
            if not _is_number(deadline_ms):
                raise OptionError(f"deadline_ms is {deadline_ms!r}; use a number of milliseconds, or None")
            if math.isnan(deadline_ms) or deadline_ms < 0:
                raise OptionError(f"deadline_ms is {deadline_ms!r}; use 0 or more milliseconds from now, or None")
        if not is_whole_number(priority, MIN_PRIORITY, MAX_PRIORITY):
            raise OptionError(
                f"priority is {priority!r}; use a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}, higher is earlier"
            )
        deadline_us = None if deadline_ms is None else int(min(float(deadline_ms) * 1000, _LONGEST_US))
        return cls(time.perf_counter(), deadline_us, priority)

    @property
    def elapsed_us(self) -> float:
        """Time since the call began."""
        return (time.perf_counter() - self.started) * 1e6

    @property
    def remaining_us(self) -> int | None:
        """Time until the deadline, negative once it has passed; None without one."""
        return None if self.deadline_us is None else int(self.deadline_us - self.elapsed_us)


def is_whole_number(value: object, low: int, high: int) -> bool:
    """Whether ``value`` is an int, and no bool, from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def as_list(instructions: Iterable[Instruction], method: str) -> list[Instruction]:
    """The instructions of a call that takes many; one alone is refused, since a str is also a list of letters."""
    if isinstance(instructions, str):
        raise InstructionError(f"{method} takes a list of instructions; for one, write engine.{method}([text])")
    if isinstance(instructions, (bytes, bytearray, Mapping)) or not isinstance(instructions, Iterable):
        raise InstructionError(f"{method} takes a list of instructions, not {type(instructions).__name__}")
    listed = list(instructions)
    if listed and isinstance(listed[0], Mapping):
        raise InstructionError(
            f"{method} takes a list of conversations; for one list of chat messages, write engine.{method}([messages])"
        )
    return listed
