"""What the curves of a study's trials teach, as columns that grow with it: what has ended is looked at once.

Knows Optuna's trials and nothing of what is learned from them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.pruners.curve.encoding import Encoder
from tunesvc.search.tracking.finished import FinishedTrials
from tunesvc.search.tracking.objectives import seen_by

ALL_MAX = 1_024
"""Up to so many trials all are told about unless said otherwise."""
_GROWTH = 1.4
"""Levels lie this factor apart, at the 1st, 2nd, 3rd, 4th, 6th ... report of the longest finished curve."""
_NOTHING, _CUT, _FINISHED = range(3)
_ROW = np.dtype(
    [
        ("kind", "i1"),
        ("length", "i4"),  # how many points
        ("final", "f8"),  # NaN when unknown
        ("is_best", "?"),  # its final value is the best of its curve
        ("is_last", "?"),
        ("space", "i4"),  # trials with equal distributions have the same
    ]
)

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int_]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What is to be learned from; rows are trials in order of their numbers."""

    levels: Sequence[int]
    length: int
    """Points of the longest finished curve."""
    finals: Array
    """Of all finished trials, NaN where a curve only failed."""
    is_best_taken: bool
    """Whether final values are the curves' best ones, rather than their last."""
    encoder: Encoder
    trials: Sequence[FrozenTrial]
    summaries: Array
    """Shape (trials, levels, 3): see `CurveFeatures.summary`."""
    final: Array
    finished: npt.NDArray[np.bool_]


class CurveDataset:
    """Of one study and objective. Not thread-safe.

    Args:
        sign: makes small values good ones.
        objective: which of several it is; trials are taken as that one sees them.
        needed: from how many trials a level learns, at most: finished ones first, and of these the newest.
        finished_min: how many finished ones it needs.
        all_max: up to so many trials all are told about; of more, those from which a level may learn.
    """

    def __init__(
        self,
        orientation: float,
        objective: int | None,
        needed: int,
        finished_min: int,
        all_max: int = ALL_MAX,
    ) -> None:
        self._orientation = orientation
        self._objective = objective
        self._needed = needed
        self._finished_min = finished_min
        self._all_max = all_max
        self._settled = FinishedTrials()
        self._rows = np.zeros(0, _ROW)
        self._levels: Sequence[int] = ()
        self._summaries: Array = np.zeros((0, 0, 3))
        self._new: set[int] = set()
        """Places of what has ended and is not summarised yet."""
        self._spaces: dict[Hashable, int] = {}
        self.ended = 0
        self.finished = 0
        """How many of them have a curve and a final value."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Look at what has ended; as `FinishedTrials.look` takes them."""
        self._rows = grown(self._rows, len(trials))
        again, over = self._settled.look(trials, resumed)
        self.ended += len(over) - len(again)
        self.finished += sum(is_finished(trials[place]) for place in over)
        self._new.difference_update(again)
        self._new.update(over)
        for place in over:
            self._rows[place] = self._row(self.seen(trials[place]))

    def seen(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial as the objective sees it."""
        return trial if self._objective is None else seen_by(trial, self._objective)

    def learn(self, trials: Sequence[FrozenTrial]) -> TrainingSet | None:
        """What all trials teach, those that run included; None when none has finished."""
        under_way = self._settled.open(trials)
        for place in under_way:
            self._rows[place] = self._row(self.seen(trials[place]))
        rows = self._rows[: len(trials)]
        finished = np.flatnonzero(rows["kind"] == _FINISHED)
        if not len(finished):
            return None
        longest = finished[rows["length"][finished].argmax()]
        self._summarise(trials, under_way, _levels(self.seen(trials[longest])))
        all_taught = np.flatnonzero(rows["kind"] != _NOTHING)
        _, firsts = np.unique(rows["space"][all_taught], return_index=True)
        taught = self._telling(all_taught) if len(all_taught) > self._all_max else all_taught
        return TrainingSet(
            self._levels,
            int(rows["length"][longest]),
            rows["final"][finished],
            bool(rows["is_best"][finished].sum() > rows["is_last"][finished].sum()),
            Encoder([trials[place] for place in all_taught[np.sort(firsts)]]),
            [trials[place] for place in taught],
            self._summaries[taught],
            rows["final"][taught],
            rows["kind"][taught] == _FINISHED,
        )

    def _row(self, seen: FrozenTrial) -> tuple[int, int, float, bool, bool, int]:
        kind = _FINISHED if is_finished(seen) else _CUT if _is_cut(seen) else _NOTHING
        final = seen.value if seen.state == TrialState.COMPLETE and kind == _FINISHED else None
        is_best, is_last = (False, False) if final is None else _taken(seen, final, self._orientation)
        space = 0 if kind == _NOTHING else self._spaces.setdefault(_key(seen), len(self._spaces))
        return (
            kind,
            len(seen.intermediate_values),
            math.nan if final is None else final,
            is_best,
            is_last,
            space,
        )

    def _summarise(
        self,
        trials: Sequence[FrozenTrial],
        under_way: Sequence[int],
        levels: Sequence[int],
    ) -> None:
        if levels != self._levels:
            self._levels, self._summaries = levels, np.zeros((0, len(levels), 3))
            self._new = set(range(len(trials)))
        self._summaries = grown(self._summaries, len(trials))
        for place in self._new.union(under_way):
            if self._rows["kind"][place] != _NOTHING:
                self._summaries[place] = CurveFeatures(
                    self.seen(trials[place]),
                    self._orientation,
                ).summaries(levels)
        self._new = set()

    def _telling(self, taught: Places) -> Places:
        """Those from which a level may learn: of the trials that reached it the newest finished, and the newest cut.

        What was cut where too few finished ones have been is of no use: there is no forecast for it.
        """
        there, reached = (
            is_there(self._summaries[taught]),
            reached_by(self._summaries[taught]),
        )
        finished = self._rows["kind"][taught] == _FINISHED
        known = [int(there[finished, k].sum()) >= self._finished_min for k in range(len(self._levels))]
        is_useful = np.array([*known, False])[reached]
        groups = [there[:, k] & group for k in range(len(self._levels)) for group in (finished, ~finished & is_useful)]
        chosen = [np.flatnonzero(group)[-self._needed :] for group in groups]
        return np.asarray(taught[np.unique(np.concatenate(chosen))])


class CurveFeatures:
    """A trial's curve in order of its steps, as costs (small is good); what is not finite is infinite."""

    def __init__(self, trial: FrozenTrial, orientation: float) -> None:
        points = sorted(trial.intermediate_values.items())
        self.steps = [step for step, _ in points]
        self.losses = [orientation * value if math.isfinite(value) else math.inf for _, value in points]

    def summary(self, level: int) -> tuple[float, float, float]:
        """What is known at a level: smoothed last, best, and earlier value (from half way there)."""
        n = bisect_right(self.steps, level)
        if n == 0 or self.steps[-1] < level:
            return (math.nan, math.nan, math.nan)
        width, half = 1 + n // 10, (n + 1) // 2
        losses = self.losses
        return (
            median(losses[n - width : n]),
            min(losses[:n]),
            median(losses[max(half - width, 0) : half]),
        )

    def summaries(self, levels: Sequence[int]) -> Array:
        """Shape (levels, 3); NaN at levels that were not reached."""
        return np.array([self.summary(level) for level in levels])


def is_there(summaries: Array) -> npt.NDArray[np.bool_]:
    """Whether something is known of each trial at each level: it has reached it, and had reported by then."""
    return np.asarray(~np.isnan(summaries[:, :, 0]))


def reached_by(summaries: Array) -> Places:
    """The last level that each trial has reached, -1 for none."""
    there = is_there(summaries)
    return np.where(
        there.any(axis=1),
        there.shape[1] - 1 - there[:, ::-1].argmax(axis=1),
        -1,
    )


def is_finished(trial: FrozenTrial) -> bool:
    """Whether its final value is known; a curve that failed because it diverged ended badly."""
    if not trial.intermediate_values:
        return False
    if trial.state == TrialState.FAIL:
        last = trial.last_step
        return last is not None and not math.isfinite(trial.intermediate_values[last])
    return trial.state == TrialState.COMPLETE


def _is_cut(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.PRUNED, TrialState.RUNNING) and bool(trial.intermediate_values)


def _levels(longest: FrozenTrial) -> list[int]:
    steps = sorted(longest.intermediate_values)
    places, place = [], 1
    while place < len(steps):
        places.append(place)
        place = max(place + 1, int(place * _GROWTH))
    return [steps[place - 1] for place in places or [1]]


def _taken(trial: FrozenTrial, final: float, orientation: float) -> tuple[bool, bool]:
    """Whether the final value is the curve's best one, and whether it is the last."""
    losses = [orientation * value for value in trial.intermediate_values.values() if math.isfinite(value)]
    last = trial.intermediate_values[max(trial.intermediate_values)]
    is_best = bool(losses) and math.isclose(orientation * final, min(losses), rel_tol=1e-9)
    return is_best, math.isclose(final, last, rel_tol=1e-9)


def _key(trial: FrozenTrial) -> Hashable:
    """Alike for equal distributions."""
    try:
        key = tuple(trial.distributions.items())
        hash(key)
    except TypeError:  # plain Optuna lets choices be lists
        return repr(trial.distributions)
    return key


def grown(column: np.ndarray, size: int) -> np.ndarray:
    """The column with room for as many rows, and for some to come."""
    if len(column) >= size:
        return column
    made = np.zeros((2 * size, *column.shape[1:]), column.dtype)
    made[: len(column)] = column
    return made
