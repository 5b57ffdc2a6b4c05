"""Opening the engine that the shared options describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelsat_engine.commands.options import candidate_names
from modelsat_engine.commands.zoo import Zoo, read_zoo
from modelsat_engine.errors import CandidateError

if TYPE_CHECKING:
    from modelsat_engine.aptitude import CapabilityProfile
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.engine import Engine


def open_engine(
    bundle: Path | None,
    zoo: Path | None,
    chosen: tuple[str, ...] = (),
    executor: str = "auto",
    threads: int | None = None,
    mode: Literal["latency", "throughput"] = "latency",
) -> Engine:
    """The engine over a zoo that has at least one candidate; the caller closes it.

    Args:
        bundle: the bundle; None: the shipped one.
        zoo: the zoo file; None: the user's own, or else the bundle's.
        chosen: the values of `--candidates`; none: the whole zoo.

    Raises:
        CandidateError: a chosen name is not in the zoo, or there is no candidate at all.
        ModelSatError: whatever `Bundle.load`, `load_zoo` and `Engine.load` raise.
    """
    from modelsat_engine.export.bundle import Bundle

    opened = Bundle.load(bundle)
    return engine_over(opened, read_zoo(opened, zoo), chosen, executor, threads, mode)


def engine_over(
    bundle: Bundle,
    zoo: Zoo,
    chosen: tuple[str, ...] = (),
    executor: str = "auto",
    threads: int | None = None,
    mode: Literal["latency", "throughput"] = "latency",
) -> Engine:
    """:func:`open_engine` of what is opened and read already."""
    from modelsat_engine.runtime.engine import Engine

    if not zoo.profiles:
        where = f"the zoo of the bundle {bundle.path}" if zoo.path is None else f"the zoo {zoo.path}"
        option = f" --zoo {zoo.path}" if zoo.named else ""
        raise CandidateError(f"{where} is empty; add a candidate: modelsat candidates add FILE{option}")
    return Engine.load(bundle, zoo=_choose(zoo.profiles, chosen), executor=executor, threads=threads, mode=mode)


def _choose(profiles: list[CapabilityProfile], chosen: tuple[str, ...]) -> list[CapabilityProfile]:
    by_name = {profile.name: profile for profile in profiles}
    names = candidate_names(chosen, by_name)
    for name in names:
        if name not in by_name:
            raise CandidateError(f"no candidate is called {name!r}; see 'modelsat candidates list'")
    if chosen and not names:
        raise CandidateError("--candidates names nobody; give one name or more, or leave it out")
    return [by_name[name] for name in names] if names else profiles
