"""What TensorRT calls while it builds, with the real base classes: progress and messages.

python -m tests.export.tensorrt.callbacks        prints one JSON object
"""

from __future__ import annotations

import json
from typing import Any

import tensorrt

from modelsat_engine.export.tensorrt.logger import quiet_logger
from modelsat_engine.export.tensorrt.progress import progress_monitor


class Bar:
    """Remembers what it was shown; the user interrupts at one of the phases."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, str]] = []
        self.interrupt_at: str | None = None

    def update(self, fraction: float | None, note: str = "") -> None:
        self.shown.append((round(fraction or 0.0, 3), note))
        if note == self.interrupt_at:
            raise KeyboardInterrupt


def main() -> None:
    bar = Bar()
    monitor: Any = progress_monitor(bar)  # type: ignore[arg-type]
    monitor.phase_start("build", None, 4)
    answers = [monitor.step_complete("build", 1)]
    monitor.phase_start("timing", "build", 10)
    answers.append(monitor.step_complete("timing", 5))
    monitor.phase_finish("timing")
    answers.append(monitor.step_complete("build", 4))
    bar.interrupt_at = "build"
    answers.append(monitor.step_complete("build", 4))
    bar.interrupt_at = None
    answers.append(monitor.step_complete("build", 4))
    monitor.phase_finish("build")
    monitor.phase_finish("never started")

    logger: Any = quiet_logger()
    said = [logger.first_error]
    severity = tensorrt.ILogger.Severity
    logger.log(severity.INFO, "nothing wrong")
    logger.log(severity.VERBOSE, "a flood")
    logger.log(severity.ERROR, "first\n  reason")
    logger.log(severity.INTERNAL_ERROR, "what follows from it")
    said.append(logger.first_error)
    assert isinstance(monitor, tensorrt.IProgressMonitor)
    assert isinstance(logger, tensorrt.ILogger)
    print(json.dumps({"shown": bar.shown, "answers": answers, "interrupted": monitor.interrupted, "said": said}))


if __name__ == "__main__":
    main()
