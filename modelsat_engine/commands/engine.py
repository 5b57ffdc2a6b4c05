"""Opening the engine that the shared options describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelsat_engine.commands.options import candidate_names
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
        zoo: the zoo file; None: the bundle's own zoo.
        chosen: the values of `--candidates`; none: the whole zoo.

    Raises:
        CandidateError: a chosen name is not in the zoo, or there is no candidate at all.
        ModelSatError: whatever `Bundle.load`, `load_zoo` and `Engine.load` raise.
    """
    from modelsat_engine.export.bundle import Bundle
    from modelsat_engine.runtime.engine import Engine

    opened = Bundle.load(bundle)
    profiles = _choose(_zoo_of(opened, zoo), chosen)
    return Engine.load(opened, zoo=profiles, executor=executor, threads=threads, mode=mode)


def _zoo_of(bundle: Bundle, zoo: Path | None) -> list[CapabilityProfile]:
    if zoo is None:
        profiles, where = list(bundle.zoo), f"the zoo of the bundle {bundle.path}"
    else:
        from modelsat_engine.aptitude import load_zoo

        profiles, where = load_zoo(zoo), f"the zoo {zoo}"
    if not profiles:
        raise CandidateError(f"{where} is empty; add a candidate: modelsat candidates add FILE --zoo zoo.json")
    return profiles


def _choose(profiles: list[CapabilityProfile], chosen: tuple[str, ...]) -> list[CapabilityProfile]:
    by_name = {profile.name: profile for profile in profiles}
    names = candidate_names(chosen, by_name)
    for name in names:
        if name not in by_name:
            raise CandidateError(f"no candidate is called {name!r}; see 'modelsat candidates list'")
    if chosen and not names:
        raise CandidateError("--candidates names nobody; give one name or more, or leave it out")
    return [by_name[name] for name in names] if names else profiles
