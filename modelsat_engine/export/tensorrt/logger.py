"""TensorRT's messages: kept for errors that we raise, handed to `logging`, never printed."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger("modelsat_engine.tensorrt")


def quiet_logger() -> Any:
    """A ``tensorrt.ILogger`` with the attribute `first_error`: the first error that it was told, in its words."""
    import tensorrt

    levels = {
        tensorrt.ILogger.Severity.INTERNAL_ERROR: logging.INFO,  # it is raised as well
        tensorrt.ILogger.Severity.ERROR: logging.INFO,
        tensorrt.ILogger.Severity.WARNING: logging.INFO,  # TensorRT warns of much that nobody can act on
        tensorrt.ILogger.Severity.INFO: logging.DEBUG,
    }
    errors = (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR)

    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self._errors: list[str] = []

        @property
        def first_error(self) -> str:
            return self._errors[0] if self._errors else "it gives no reason"

        def log(self, severity: Any, msg: str) -> None:
            if severity in levels:
                text = " ".join(msg.split())
                if severity in errors:
                    self._errors.append(text)
                _log.log(levels[severity], "%s", text)

    return Logger()
