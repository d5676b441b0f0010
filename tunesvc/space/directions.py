"""Optuna's directions of objectives, and the goals in a spec that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection

from tunesvc.spec.goals import Goal, goal_named, orient


def direction_of(goal: str) -> StudyDirection:
    """Return the direction of a goal, or of a stored direction's name."""
    return StudyDirection[goal.upper()]


def goal_of(direction: StudyDirection | str) -> Goal:
    """Return the goal of a direction or of its name; one that is not set is minimised."""
    return goal_named(direction if isinstance(direction, str) else direction.name.lower())


def orient_each(directions: Sequence[StudyDirection] | Sequence[str]) -> np.ndarray:
    """Return the factors that turn values into losses; shape (objectives,)."""
    return np.array([orient(goal_of(direction)) for direction in directions])
