"""Which values the inputs of the trunk's linear layers take: what a static int8 scale has to cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from modelsat_engine.errors import ExecutorError
from modelsat_engine.runtime.onnx_session import session_of_model

_KEPT_ROWS = 2048


@dataclass
class Observed:
    """Rows that one value of the graph took, ``[N, D]``: the range of every column, and a sample to try scales on.

    Attributes:
        low, high: float32 ``[D]``.
        sample: at most 2,048 rows, spread evenly over what was seen.
    """

    low: np.ndarray
    high: np.ndarray
    sample: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, share: float) -> None:
        """Take in rows ``[n, D]``, keeping about ``share`` of them."""
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        step = max(1, round(1 / share))
        self.sample.append(rows[::step])

    def rows(self) -> np.ndarray:
        """The sample, ``[N, D]``."""
        return np.concatenate(self.sample)


def observe(
    model: onnx.ModelProto, values: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]], total_rows: int
) -> dict[str, Observed]:
    """Runs a float32 graph and watches some of its values.

    Args:
        values: names of values of shape ``[..., D]``.
        feeds: the graph's inputs, unpadded, batch by batch.
        total_rows: about how many rows a value will have taken in the end.

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
            if name not in observed:
                edge = np.full(rows.shape[1], np.inf, np.float32)
                observed[name] = Observed(edge, -edge)
            observed[name].add(rows, min(1.0, _KEPT_ROWS / total_rows))
    return observed
