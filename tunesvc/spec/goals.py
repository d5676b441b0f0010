"""Goals of objectives: which values are better. Imports nothing of tunesvc."""

from __future__ import annotations

from typing import Literal

Goal = Literal["minimize", "maximize"]


def goal_named(direction: str) -> Goal:
    """Return the goal of a stored direction; one that is not set is minimised."""
    return "maximize" if direction == "maximize" else "minimize"


def orient(goal: Goal) -> float:
    """Return the factor that turns a value into a loss, of which small is good: -1.0 or 1.0."""
    return -1.0 if goal == "maximize" else 1.0
