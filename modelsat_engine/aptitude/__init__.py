"""The aptitude test, how it is built, and what a candidate showed on it."""

from __future__ import annotations

from modelsat_engine.aptitude.profile import CapabilityProfile
from modelsat_engine.aptitude.test import AptitudeTask, AptitudeTest
from modelsat_engine.aptitude.zoo import edit_zoo, load_zoo, save_zoo

__all__ = ["AptitudeTask", "AptitudeTest", "CapabilityProfile", "edit_zoo", "load_zoo", "save_zoo"]
