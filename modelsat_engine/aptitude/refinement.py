"""A candidate's refinement: what graded answers beside the aptitude test add to its profile."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelsat_engine.errors import ProfileError

_REQUIRED_KEYS = frozenset({"axes", "values", "answers"})
_KEYS = _REQUIRED_KEYS | {"shared"}


@dataclass(frozen=True)
class Refinement:
    """Random effects of one candidate on a router's axes, fitted to graded answers (`runtime.refinement`).

    Attributes:
        axes: id of the axes, as ``refinement.axes`` in the router's router.json; another router ignores the values.
        values: one finite number an axis, the candidate's own effects.
        answers: how many graded answers of the candidate they were fitted to.
        shared: the same for what all candidates of its zoo share, which is how their traffic differs from what the
            router was trained on; without any, zeros. Both are added.

    Raises:
        ProfileError: an attribute of another type, no value, one that is not finite, or not as many of one as of the
            other.
    """

    axes: str
    values: tuple[float, ...]
    answers: int
    shared: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        axes: object = self.axes  # a file may hold anything
        if not isinstance(axes, str) or not axes:
            raise ProfileError(f"a refinement names the axes of its router, not {axes!r}")
        try:
            values = tuple(float(value) for value in self.values)
            shared = tuple(float(value) for value in self.shared) or (0.0,) * len(values)
            answers = operator.index(self.answers)
        except (TypeError, ValueError):
            raise ProfileError("a refinement holds a list of numbers, and how many answers they come from") from None
        if not values or not all(map(math.isfinite, (*values, *shared))) or answers < 0:
            raise ProfileError("a refinement holds one finite number for each axis, and 0 or more answers")
        if len(shared) != len(values):
            raise ProfileError(f"a refinement holds {len(values)} values of its own and {len(shared)} shared ones")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "answers", answers)

    @property
    def effects(self) -> tuple[float, ...]:
        """What moves the candidate's logit on each axis: its own effects and the shared ones."""
        return tuple(map(operator.add, self.values, self.shared))

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every attribute."""
        return {
            "axes": self.axes,
            "values": list(self.values),
            "answers": self.answers,
            "shared": list(self.shared),
        }

    @classmethod
    def from_json(cls, value: Any) -> Refinement:
        """The refinement that :meth:`to_json` described.

        Raises:
            ProfileError: not an object with these keys, or values that the class refuses.
        """
        if not isinstance(value, Mapping) or not _REQUIRED_KEYS <= value.keys() <= _KEYS:
            raise ProfileError("a refinement is an object with axes, values, answers and shared")
        return cls(**value)
