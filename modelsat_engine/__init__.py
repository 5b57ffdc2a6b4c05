"""Says how likely each candidate LLM is to answer an instruction correctly, and routes by it.

    from modelsat_engine import Engine
    with Engine.load() as engine:
        print(engine.route("Prove that the square root of 2 is irrational.").candidate)

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelsat_engine import errors as errors
    from modelsat_engine.aptitude.profile import CapabilityProfile as CapabilityProfile
    from modelsat_engine.aptitude.test import AptitudeTask as AptitudeTask
    from modelsat_engine.aptitude.test import AptitudeTest as AptitudeTest
    from modelsat_engine.runtime.engine import Engine as Engine
    from modelsat_engine.runtime.engine import RoutingDecision as RoutingDecision
    from modelsat_engine.runtime.policies import CheapestAbove as CheapestAbove
    from modelsat_engine.runtime.policies import HighestProbability as HighestProbability
    from modelsat_engine.runtime.policies import MaximumUtility as MaximumUtility

__version__ = "0.1.0"

__all__ = [
    "AptitudeTask",
    "AptitudeTest",
    "CapabilityProfile",
    "CheapestAbove",
    "Engine",
    "HighestProbability",
    "MaximumUtility",
    "RoutingDecision",
    "__version__",
    "errors",
]

# Python started in the root of a checkout finds this folder before an installed copy. The extension and the
# kernels are only in the installed copy, so its folder stays part of the package.
__path__ = extend_path(__path__, __name__)

_HOME_OF = {
    "AptitudeTask": "modelsat_engine.aptitude.test",
    "AptitudeTest": "modelsat_engine.aptitude.test",
    "CapabilityProfile": "modelsat_engine.aptitude.profile",
    "CheapestAbove": "modelsat_engine.runtime.policies",
    "Engine": "modelsat_engine.runtime.engine",
    "HighestProbability": "modelsat_engine.runtime.policies",
    "MaximumUtility": "modelsat_engine.runtime.policies",
    "RoutingDecision": "modelsat_engine.runtime.engine",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name == "errors":
        return import_module("modelsat_engine.errors")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
