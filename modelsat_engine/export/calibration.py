"""Which values the inputs of the trunk's linear layers take: what a static int8 scale has to cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from modelsat_engine.errors import ExecutorError
from modelsat_engine.runtime.onnx_session import session_of_model


@dataclass
class Observed:
    """The range of every column of the rows that one value of the graph took.

    Attributes:
        low, high: float32 ``[D]``.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Observed:
        """Of rows ``[N, D]``."""
        return cls(rows.min(0), rows.max(0))

    def add(self, rows: np.ndarray) -> None:
        """Take in more rows ``[N, D]``."""
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))


def observe(
    model: onnx.ModelProto, values: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, Observed]:
    """Runs a float32 graph and watches some of its values.

    Args:
        values: names of values of shape ``[..., D]``.
        feeds: the graph's inputs, unpadded, batch by batch.

    Raises:
        ExecutorError: ONNX Runtime refuses the graph or a batch, or a value is not finite.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    shown = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in shown)
    session = session_of_model(watched, threads=1)
    observed: dict[str, Observed] = {}
    for feed in feeds:
        try:
            arrays = session.run(list(values), dict(feed))
        except Exception as error:  # the library raises a class per status code, without a common base of its own
            raise ExecutorError(f"ONNX Runtime failed on a calibration batch: {error}") from error
        for name, array in zip(values, arrays, strict=True):
            rows = array.reshape(-1, array.shape[-1])
            if not np.isfinite(rows).all():
                raise ExecutorError(f"the value {name} is not finite for a calibration instruction")
            if name in observed:
                observed[name].add(rows)
            else:
                observed[name] = Observed.of(rows)
    return observed
