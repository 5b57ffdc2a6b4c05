"""TensorRT's phases as one progress bar."""

from __future__ import annotations

from typing import Any

from modelsat_engine.commands.progress import ProgressBar


def progress_monitor(bar: ProgressBar) -> Any:
    """A ``tensorrt.IProgressMonitor`` that moves a bar by the outermost phase and names the innermost one.

    Phases lie inside each other: building an engine is one, timing one layer another. An interrupt of the user ends
    the build at its next step, and is kept in the attribute `interrupted`, since TensorRT passes no exception on.
    """
    import tensorrt

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}  # of the open phases, the outermost first
            self._fractions: dict[str, float] = {}  # of each that is done

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(1, num_steps)
            self._fractions.setdefault(phase_name, 0.0)
            self._show()

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                self._fractions[phase_name] = step / self._steps[phase_name]
            self._show()
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)
            self._fractions.pop(phase_name, None)
            self._show()

        def _show(self) -> None:
            fraction, share = 0.0, 1.0
            for name, steps in self._steps.items():
                fraction += share * self._fractions.get(name, 0.0)
                share /= steps
            try:
                bar.update(min(1.0, fraction), next(reversed(self._steps), ""))
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()
