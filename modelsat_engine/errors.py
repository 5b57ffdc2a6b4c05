"""Every error this package raises on purpose: one hierarchy, each message says what to do."""

from __future__ import annotations


class ModelSatError(Exception):
    """Base of every deliberate error; catching it catches them all."""


class BundleError(ModelSatError):
    """A router bundle is missing a file, was changed after it was written, or is of another format version."""


class ProfileError(ModelSatError, ValueError):
    """A capability profile or a zoo file is malformed, inconsistent, or of another aptitude test."""


class CandidateError(ModelSatError, KeyError):
    """A candidate name is unknown, given twice, or the zoo has no candidate to choose from."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class InstructionError(ModelSatError, ValueError):
    """An instruction cannot be scored: empty, not text, or not a list of chat messages."""


class PolicyError(ModelSatError, ValueError):
    """A policy's parameters are out of range, or it needs a price that a candidate lacks."""


class DataError(ModelSatError, ValueError):
    """A file of instructions, outcomes or settings cannot be read as what it should be."""


class ExecutorError(ModelSatError, RuntimeError):
    """An executor cannot be used here, or failed while it scored a batch."""


class KernelError(ModelSatError, ValueError):
    """A tensor or a size that a GPU kernel cannot take, or a kernel that cannot be compiled for a GPU."""


class OptionError(ModelSatError, ValueError):
    """An option of the engine or of a call, such as a deadline or a priority, is out of range."""


class EndpointError(ModelSatError, RuntimeError):
    """The endpoint of an LLM cannot be reached, refuses what it is asked, or has stopped answering."""


class SchedulerError(ModelSatError, RuntimeError):
    """A request was not scored for a reason that lies in load, time or life cycle, not in the request's text."""


class Overloaded(SchedulerError):
    """The queue is full, or too full for the request's deadline; refused at once, may be sent again later."""


class DeadlineExceeded(SchedulerError):
    """The deadline of a request passed before it was answered, or could not be met any more."""


class TooLarge(SchedulerError):
    """An instruction exceeds the executor's limits, or a list exceeds the whole queue."""


class ShuttingDown(SchedulerError):
    """The engine is draining or closed."""


class Cancelled(SchedulerError):
    """The caller cancelled the request."""


class ForkedProcess(SchedulerError):
    """An engine was used in a forked child; its threads stayed in the parent. Load the engine after the fork."""


class MissingExtraError(ModelSatError, ImportError):
    """A feature needs an optional dependency.

    Args:
        feature: what the user asked for, for the message.
        extra: the extra of this distribution that installs it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'modelsat-engine[{extra}]'")
        self.extra = extra
