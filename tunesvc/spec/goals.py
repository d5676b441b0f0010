"""Goals of objectives: which values are better. Imports nothing of tunesvc."""

from __future__ import annotations

from typing import Literal

Goal = Literal["minimize", "maximize"]


def orient(goal: Goal) -> float:
    """Return the factor that turns a value into a loss, of which small is good: -1.0 or 1.0."""
    return -1.0 if goal == "maximize" else 1.0
