"""A candidate's refinement: what graded answers beside the aptitude test add to its profile."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelsat_engine.errors import ProfileError

_JSON_KEYS = frozenset({"axes", "values", "answers"})


@dataclass(frozen=True)
class Refinement:
    """Random effects of one candidate on a router's axes, fitted to its own graded answers (`runtime.refinement`).

    Attributes:
        axes: id of the axes, as ``refinement.axes`` in the router's router.json; another router ignores the values.
        values: one finite number an axis.
        answers: how many graded answers they were fitted to.

    Raises:
        ProfileError: an attribute of another type, no value, or one that is not finite.
    """

    axes: str
    values: tuple[float, ...]
    answers: int

    def __post_init__(self) -> None:
        axes: object = self.axes  # a file may hold anything
        if not isinstance(axes, str) or not axes:
            raise ProfileError(f"a refinement names the axes of its router, not {axes!r}")
        try:
            values = tuple(float(value) for value in self.values)
            answers = operator.index(self.answers)
        except (TypeError, ValueError):
            raise ProfileError("a refinement holds a list of numbers, and how many answers they come from") from None
        if not values or not all(map(math.isfinite, values)) or answers < 0:
            raise ProfileError("a refinement holds one finite number for each axis, and 0 or more answers")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "answers", answers)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every attribute."""
        return {"axes": self.axes, "values": list(self.values), "answers": self.answers}

    @classmethod
    def from_json(cls, value: Any) -> Refinement:
        """The refinement that :meth:`to_json` described.

        Raises:
            ProfileError: not an object with exactly these keys, or values that the class refuses.
        """
        if not isinstance(value, Mapping) or value.keys() != _JSON_KEYS:
            raise ProfileError("a refinement is an object with axes, values and answers; refine the candidate again")
        return cls(**value)
