"""Scales of several objectives, on which all differences along the front count alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tunesvc.search.tracking.scale import ValueScale
from tunesvc.space.directions import orient_each


def trade_off_scales(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> Sequence[ValueScale]:
    """Return the scale of each objective, of finished trials.

    Its unit is the extent of the better half of the trials, those that the fewest others dominate.
    Worse values are compressed. An objective by itself would be misleading: half of a front may
    share its best value, and its worst value may belong to the front while penalties do not.
    """
    orientations = orient_each(directions)
    losses = orientations * np.array([trial.values for trial in trials], dtype=float)
    losses = losses[np.isfinite(losses).all(axis=1)]
    if not len(losses):
        return [ValueScale(float(o), False, 0.0, 1.0) for o in orientations]
    is_worse = (losses[:, None] >= losses).all(axis=2) & (losses[:, None] > losses).any(axis=2)
    order = np.argsort(is_worse.sum(axis=1), kind="stable")
    better = losses[order[: (len(order) + 1) // 2]]
    low, high = better.min(axis=0), better.max(axis=0)
    units = np.maximum(high - low, 1e-9 * np.abs(high))
    units[units == 0.0] = 1.0
    every = zip(orientations, high, units, strict=True)
    return [ValueScale(float(o), False, float(end), float(unit)) for o, end, unit in every]
