"""Real outcomes of real models, how they are split, and what a router's choices are worth on them."""

from __future__ import annotations
