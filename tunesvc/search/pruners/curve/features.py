"""Features of a study's curves, in columns that grow with it: finished trials are read once.

Knows Optuna's trials, and nothing of the model that learns from them.
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
"""Default number of trials up to which all of them are used."""
_GROWTH = 1.4
"""Factor between levels: they lie at the 1st, 2nd, 3rd, 4th, 6th ...
report of the longest curve."""
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
    """Data to learn from; rows are trials in order of their numbers."""

    levels: Sequence[int]
    length: int
    """Number of points of the longest finished curve."""
    finals: Array
    """Final values of all finished trials; NaN for curves that failed."""
    is_best_taken: bool
    """True if final values are the curves' best ones, not their last."""
    encoder: Encoder
    trials: Sequence[FrozenTrial]
    summaries: Array
    """Shape (trials, levels, 3); see `CurveFeatures.summary`."""
    final: Array
    finished: npt.NDArray[np.bool_]


class CurveDataset:
    """Curves of one study and objective. Not thread-safe.

    Args:
        orientation: factor that turns values into losses.
        objective: index of one of several; trials are taken from its point of view.
        needed: most trials that a level is fitted to: finished ones first, then the newest.
        finished_min: fewest finished trials of a level.
        all_max: number of trials up to which all are used; beyond it, those that a level may use.
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
        self._finished_trials = FinishedTrials()
        self._rows = np.zeros(0, _ROW)
        self._levels: Sequence[int] = ()
        self._summaries: Array = np.zeros((0, 0, 3))
        self._new: set[int] = set()
        """Indices of finished trials that are not summarised yet."""
        self._spaces: dict[Hashable, int] = {}
        self.ended = 0
        self.finished = 0
        """Number of ended trials with a curve and a final value."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Read trials that have finished. Arguments as for `FinishedTrials.update`."""
        self._rows = grown(self._rows, len(trials))
        reopened, finished = self._finished_trials.update(trials, resumed)
        self.ended += len(finished) - len(reopened)
        self.finished += sum(is_finished(trials[index]) for index in finished)
        self._new.difference_update(reopened)
        self._new.update(finished)
        for index in finished:
            self._rows[index] = self._row(self.viewed(trials[index]))

    def viewed(self, trial: FrozenTrial) -> FrozenTrial:
        """Return the trial from the objective's point of view."""
        return trial if self._objective is None else seen_by(trial, self._objective)

    def learn(self, trials: Sequence[FrozenTrial]) -> TrainingSet | None:
        """Return the data of all trials, running ones included; None if none has finished."""
        unfinished = self._finished_trials.open(trials)
        for index in unfinished:
            self._rows[index] = self._row(self.viewed(trials[index]))
        rows = self._rows[: len(trials)]
        finished = np.flatnonzero(rows["kind"] == _FINISHED)
        if not len(finished):
            return None
        longest = finished[rows["length"][finished].argmax()]
        self._summarise(
            trials,
            unfinished,
            _levels(self.viewed(trials[longest])),
        )
        all_usable = np.flatnonzero(rows["kind"] != _NOTHING)
        _, firsts = np.unique(rows["space"][all_usable], return_index=True)
        usable = self._select(all_usable) if len(all_usable) > self._all_max else all_usable
        return TrainingSet(
            self._levels,
            int(rows["length"][longest]),
            rows["final"][finished],
            bool(rows["is_best"][finished].sum() > rows["is_last"][finished].sum()),
            Encoder([trials[index] for index in all_usable[np.sort(firsts)]]),
            [trials[index] for index in usable],
            self._summaries[usable],
            rows["final"][usable],
            rows["kind"][usable] == _FINISHED,
        )

    def _row(
        self,
        viewed: FrozenTrial,
    ) -> tuple[int, int, float, bool, bool, int]:
        kind = _NOTHING
        if is_finished(viewed):
            kind = _FINISHED
        elif _is_cut(viewed):
            kind = _CUT
        final, is_best, is_last = None, False, False
        if viewed.state == TrialState.COMPLETE and kind == _FINISHED:
            final = viewed.value
        if final is not None:
            is_best, is_last = _match_final(viewed, final, self._orientation)
        space = 0
        if kind != _NOTHING:
            space = self._spaces.setdefault(_key(viewed), len(self._spaces))
        return (
            kind,
            len(viewed.intermediate_values),
            math.nan if final is None else final,
            is_best,
            is_last,
            space,
        )

    def _summarise(
        self,
        trials: Sequence[FrozenTrial],
        unfinished: Sequence[int],
        levels: Sequence[int],
    ) -> None:
        if levels != self._levels:
            self._levels = levels
            self._summaries = np.zeros((0, len(levels), 3))
            self._new = set(range(len(trials)))
        self._summaries = grown(self._summaries, len(trials))
        for index in self._new.union(unfinished):
            if self._rows["kind"][index] != _NOTHING:
                features = CurveFeatures(
                    self.viewed(trials[index]),
                    self._orientation,
                )
                self._summaries[index] = features.summaries(levels)
        self._new = set()

    def _select(self, usable: Places) -> Places:
        """Return the trials that levels may use: of each level the newest finished and cut ones.

        A trial cut where too few finished ones have been is useless: it has no forecast.
        """
        there = is_there(self._summaries[usable])
        reached = reached_by(self._summaries[usable])
        finished = self._rows["kind"][usable] == _FINISHED
        counts = there[finished].sum(axis=0)
        is_useful = np.array([*(counts >= self._finished_min), False])[reached]
        used = []
        for k in range(len(self._levels)):
            used.append(np.flatnonzero(there[:, k] & finished)[-self._needed :])
            used.append(np.flatnonzero(there[:, k] & ~finished & is_useful)[-self._needed :])
        return np.asarray(usable[np.unique(np.concatenate(used))])


class CurveFeatures:
    """A trial's curve in order of its steps, as losses; values that are not finite are infinite."""

    def __init__(self, trial: FrozenTrial, orientation: float) -> None:
        points = sorted(trial.intermediate_values.items())
        self.steps = [step for step, _ in points]
        losses = [orientation * value for _, value in points]
        self.losses = [loss if math.isfinite(loss) else math.inf for loss in losses]

    def summary(self, level: int) -> tuple[float, float, float]:
        """Return features at a level: smoothed last, best, and value half way there."""
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
        """Return features at all levels; shape (levels, 3), NaN where a level was not reached."""
        return np.array([self.summary(level) for level in levels])


def is_there(summaries: Array) -> npt.NDArray[np.bool_]:
    """Return True for each trial and level that it has reached, having reported by then."""
    return np.asarray(~np.isnan(summaries[:, :, 0]))


def reached_by(summaries: Array) -> Places:
    """Return the last level that each trial has reached, -1 for none."""
    there = is_there(summaries)
    return np.where(
        there.any(axis=1),
        there.shape[1] - 1 - there[:, ::-1].argmax(axis=1),
        -1,
    )


def is_finished(trial: FrozenTrial) -> bool:
    """Return True if the final value is known; a curve that diverged counts as ended badly."""
    if not trial.intermediate_values:
        return False
    if trial.state == TrialState.FAIL:
        last = trial.last_step
        return last is not None and not math.isfinite(trial.intermediate_values[last])
    return trial.state == TrialState.COMPLETE


def _is_cut(trial: FrozenTrial) -> bool:
    is_cut = trial.state in (TrialState.PRUNED, TrialState.RUNNING)
    return is_cut and bool(trial.intermediate_values)


def _levels(longest: FrozenTrial) -> list[int]:
    steps = sorted(longest.intermediate_values)
    counts, index = [], 1
    while index < len(steps):
        counts.append(index)
        index = max(index + 1, int(index * _GROWTH))
    return [steps[index - 1] for index in counts or [1]]


def _match_final(
    trial: FrozenTrial,
    final: float,
    orientation: float,
) -> tuple[bool, bool]:
    """Return whether the final value is the curve's best one, and whether it is the last."""
    points = trial.intermediate_values.values()
    losses = [orientation * value for value in points if math.isfinite(value)]
    last = trial.intermediate_values[max(trial.intermediate_values)]
    is_best = bool(losses) and math.isclose(
        orientation * final,
        min(losses),
        rel_tol=1e-9,
    )
    return is_best, math.isclose(final, last, rel_tol=1e-9)


def _key(trial: FrozenTrial) -> Hashable:
    """Return the same key for equal distributions."""
    try:
        key = tuple(trial.distributions.items())
        hash(key)
    except TypeError:  # plain Optuna lets choices be lists
        return repr(trial.distributions)
    return key


def grown(column: np.ndarray, size: int) -> np.ndarray:
    """Return the column with room for as many rows, and for some more."""
    if len(column) >= size:
        return column
    made = np.zeros((2 * size, *column.shape[1:]), column.dtype)
    made[: len(column)] = column
    return made
