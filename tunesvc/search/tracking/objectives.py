"""Trials of several objectives: the points of their curves, and each objective's own view of them.

Optuna's trials have one curve. Here that is the first objective's; the others' values at the same steps are kept beside
it, in the system attribute `OTHERS`, which lives in memory only: in the store they are metrics of the reports. Knows
Optuna's trials and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

OTHERS = "tunesvc:others"
"""System attribute: step -> values of the objectives after the first."""


def signs_of(study: Study) -> np.ndarray:
    """By objective: what makes a small value good."""
    return np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions])


def names_of(study: Study) -> Sequence[str]:
    """By objective: its metric."""
    return study.metric_names or [f"objective {k}" for k in range(len(study.directions))]


def points_of(trial: FrozenTrial, objectives: int) -> dict[int, tuple[float, ...]]:
    """The trial's curve: its values at each step at which it reported all objectives."""
    if objectives == 1:
        return {step: (value,) for step, value in trial.intermediate_values.items()}
    others = _others(trial)
    return {step: (value, *others[step]) for step, value in trial.intermediate_values.items() if step in others}


def point_at(trial: FrozenTrial, step: int, objectives: int) -> tuple[float, ...] | None:
    """Its values at one step; None unless it reported all objectives there."""
    value, others = trial.intermediate_values.get(step), _others(trial).get(step, ())
    return None if value is None or len(others) < objectives - 1 else (value, *others)


def cut(trial: FrozenTrial, step: int) -> FrozenTrial:
    """The trial as it was when it had reported up to a step."""
    made = copy.copy(trial)
    made.intermediate_values = {s: value for s, value in trial.intermediate_values.items() if s <= step}
    if OTHERS in trial.system_attrs:
        kept: Any = {s: values for s, values in _others(trial).items() if s <= step}
        made.system_attrs = {**trial.system_attrs, OTHERS: kept}
    return made


def seen_by(trial: FrozenTrial, objective: int) -> FrozenTrial:
    """The trial as one of a study of that objective alone."""
    made = copy.copy(trial)
    if trial.values is not None and len(trial.values) > 1:
        made.values = [trial.values[objective]]
    if objective > 0:
        made.intermediate_values = {step: values[objective - 1] for step, values in _others(trial).items()}
    return made


def _others(trial: FrozenTrial) -> Mapping[int, tuple[float, ...]]:
    found: Mapping[int, tuple[float, ...]] = trial.system_attrs.get(OTHERS, {})
    return found
