"""Let an LLM take the aptitude test: ask every question at its endpoint, grade the answers, keep them all."""

from __future__ import annotations

from modelsat_engine.aptitude.taking.extraction import Grade, grade
from modelsat_engine.aptitude.taking.protocol import Protocol
from modelsat_engine.aptitude.taking.selection import Item, select_items

__all__ = ["Grade", "Item", "Protocol", "grade", "select_items"]
