"""Trials of several objectives: orientation, points of curves, one objective's view.

Optuna's trials have one curve: here the first objective's. The other objectives' values at the same
steps are in the system attribute `OTHERS`, which exists in memory only; the database has them as
metrics of reports. Knows Optuna's trials only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.space.directions import orient_each

OTHERS = "tunesvc:others"
"""System attribute: step -> values of the objectives after the first."""


def orientations_of(study: Study) -> np.ndarray:
    """Return the factors of a study's objectives; shape (objectives,)."""
    return orient_each(study.directions)


def is_feasible(trial: FrozenTrial) -> bool:
    """Return True if the trial violates none of its constraints."""
    return all(excess <= 0 for excess in trial.constraints.values())


def is_candidate(trial: FrozenTrial) -> bool:
    """Return True if a trial may be recommended: complete, a number, and feasible."""
    if trial.state != TrialState.COMPLETE or any(math.isnan(value) for value in trial.values):
        return False
    return is_feasible(trial)


def names_of(study: Study) -> Sequence[str]:
    """Return the metric of each objective."""
    return study.metric_names or [f"objective {k}" for k in range(len(study.directions))]


def points_of(
    trial: FrozenTrial,
    objectives: int,
) -> dict[int, tuple[float, ...]]:
    """Return the trial's values at each step at which it reported all objectives."""
    # Copied in one operation: Optuna changes the curve when another thread reports.
    points = trial.intermediate_values.copy()
    if objectives == 1:
        return {step: (value,) for step, value in points.items()}
    others = _others(trial)
    return {step: (value, *others[step]) for step, value in points.items() if step in others}


def point_at(
    trial: FrozenTrial,
    step: int,
    objectives: int,
) -> tuple[float, ...] | None:
    """Return the trial's values at one step; None unless it reported all objectives there."""
    value = trial.intermediate_values.get(step)
    others = _others(trial).get(step, ())
    return None if value is None or len(others) < objectives - 1 else (value, *others)


def cut(trial: FrozenTrial, step: int) -> FrozenTrial:
    """Return the trial as it was after its report at a step."""
    made = copy.copy(trial)
    points = trial.intermediate_values.copy()
    made.intermediate_values = {s: value for s, value in points.items() if s <= step}
    if OTHERS in trial.system_attrs:
        kept: Any = {s: values for s, values in _others(trial).items() if s <= step}
        made.system_attrs = {**trial.system_attrs, OTHERS: kept}
    return made


def seen_by(trial: FrozenTrial, objective: int) -> FrozenTrial:
    """Return the trial as one of a study with that objective only."""
    made = copy.copy(trial)
    if trial.values is not None and len(trial.values) > 1:
        made.values = [trial.values[objective]]
    if objective > 0:
        others = _others(trial)
        made.intermediate_values = {s: values[objective - 1] for s, values in others.items()}
    return made


def _others(trial: FrozenTrial) -> Mapping[int, tuple[float, ...]]:
    found: Mapping[int, tuple[float, ...]] = trial.system_attrs.get(OTHERS, {})
    return found
