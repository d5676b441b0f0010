"""Observations for the model: points, values on a robust scale, and the variance of each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.pruners.curve.forecasts import ForecastModel
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters
from tunesvc.search.samplers.gp.model.repeats import Repeats
from tunesvc.search.tracking.objectives import is_feasible
from tunesvc.search.tracking.scale import ValueScale
from tunesvc.search.tracking.transferred import source_of
from tunesvc.search.training_seeds import groups

OBSERVED_MAX = 400
"""Most trials in the model: the best, the newest, and an even sample of the rest."""
_GUESS = 1.0
"""Deviation, on the scale, of a pruned trial's last value if no curve model can forecast it."""


@dataclass(frozen=True, slots=True)
class Observations:
    """Values are losses; those of finished trials have mean 0 and variance 1."""

    numbers: np.ndarray
    points: np.ndarray
    values: np.ndarray
    raw: np.ndarray
    """Values in the objective's units; NaN for forecast trials."""
    variances: np.ndarray
    """Variance of each value beyond the common noise: 0 for finished trials."""
    seeds: np.ndarray
    """Equal numbers for trials that share a training seed."""
    is_candidate: np.ndarray
    """True if the trial may be recommended: an own one that is finished and feasible. While there
    is none, those of earlier studies count."""
    unit: float
    centre: float
    """A value on the scale is `centre + unit * value`."""
    scale: ValueScale

    def __len__(self) -> int:
        return len(self.values)

    @property
    def repeats(self) -> Repeats:
        """Repeats among the trials that have finished."""
        is_measured = ~np.isnan(self.raw)
        return Repeats.of(self.points[is_measured], self.values[is_measured])

    def in_units(self, mean: float, deviation: float) -> tuple[float, float]:
        """Return a prediction in the objective's units."""
        around = np.array([mean - deviation, mean, mean + deviation])
        ends = self.scale.back(self.centre + self.unit * around)
        return float(ends[1]), float(abs(ends[2] - ends[0]) / 2)

    def on(self, scale: ValueScale) -> Observations:
        """Return the same finished trials on another scale."""
        placed = scale.to(self.raw)
        centre, unit = float(placed.mean()), float(placed.std()) or 1.0
        return replace(
            self,
            values=(placed - centre) / unit,
            centre=centre,
            unit=unit,
            scale=scale,
        )

    def thinned(self, limit: int) -> Observations:
        """Return at most so many observations, or one more to have a candidate."""
        if len(self) <= limit:
            return self
        order = np.argsort(self.values, kind="stable")
        best = order[: limit // 3]
        newest = np.argsort(-self.numbers, kind="stable")[: limit // 6]
        first = np.union1d(best, newest)
        rest = np.setdiff1d(order, first)
        even = rest[np.linspace(0, len(rest) - 1, limit - len(first)).astype(int)]
        chosen = np.union1d(first, even)
        candidates = order[self.is_candidate[order]]
        if len(candidates) and not self.is_candidate[chosen].any():
            chosen = np.union1d(chosen, candidates[:1])
        return self.part(chosen)

    def part(self, places: np.ndarray) -> Observations:
        """Return the observations at these places."""
        return replace(
            self,
            numbers=self.numbers[places],
            points=self.points[places],
            values=self.values[places],
            raw=self.raw[places],
            variances=self.variances[places],
            seeds=self.seeds[places],
            is_candidate=self.is_candidate[places],
        )

    def standardised(self) -> Observations:
        """Return the same observations with values of mean 0 and variance 1."""
        centre, unit = float(self.values.mean()), float(self.values.std()) or 1.0
        return replace(
            self,
            values=(self.values - centre) / unit,
            variances=self.variances / unit**2,
            centre=self.centre + self.unit * centre,
            unit=self.unit * unit,
        )


def observe(
    trials: Sequence[FrozenTrial],
    domain: Domain,
    direction: StudyDirection,
    curves: ForecastModel | None,
    shared_blocks: int | None,
    *,
    is_log: bool | None = None,
    scale: ValueScale | None = None,
) -> Observations | None:
    """Return observations of finished, pruned and running trials; None if none has finished.

    Args:
        trials: each with one value.
        curves: forecasts unfinished trials; None to leave these out.
        shared_blocks: number of folds or seeds that trials have in turns; None: all differ.
        is_log: as for `ValueScale.of`.
        scale: of the values; None to derive one from those of finished trials.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not finished:
        return None
    finals = np.array([trial.values[0] for trial in finished], dtype=float)
    scale = scale or ValueScale.of(finals, direction, is_log=is_log)
    values = scale.to(finals)
    centre, unit = float(values.mean()), float(values.std()) or 1.0
    seen = [(trial, value, 0.0) for trial, value in zip(finished, values, strict=True)]
    if curves is not None:
        known = _unfinished(trials, curves, scale)
        seen += [(trial, *known[trial.number]) for trial in trials if trial.number in known]
    observed = [trial for trial, _, _ in seen]
    is_complete = [trial.state == TrialState.COMPLETE for trial in observed]
    raw = [t.values[0] if done else np.nan for t, done in zip(observed, is_complete, strict=True)]
    numbers = np.array([trial.number for trial in observed])
    return Observations(
        numbers,
        np.stack([domain.locate(trial) for trial in observed]),
        (np.array([value for _, value, _ in seen]) - centre) / unit,
        np.array(raw),
        np.array([variance for _, _, variance in seen]) / unit**2,
        groups(numbers, shared_blocks),
        _candidates(observed),
        unit,
        centre,
        scale,
    )


def _candidates(trials: Sequence[FrozenTrial]) -> np.ndarray:
    is_good = [trial.state == TrialState.COMPLETE and is_feasible(trial) for trial in trials]
    is_own = [source_of(trial) is None for trial in trials]
    own = np.array(is_good) & np.array(is_own)
    return own if own.any() else np.array(is_good)


Learn = Callable[[Observations], Hyperparameters]
"""Fits hyperparameters, or returns cached ones."""


def prefers_log(
    finished: Sequence[FrozenTrial],
    domain: Domain,
    direction: StudyDirection,
    shared_blocks: int | None,
    limit: int,
    learn: Learn,
) -> bool:
    """Return True if logarithms of values are a smoother function of the parameters than values.

    Mostly they are for losses that differ by factors. They are not for a squared distance, whose
    logarithm has a hole at the minimum. The better scale makes the values more probable (Snelson et
    al. 2003, "Warped Gaussian processes").

    Args:
        limit: most trials that are used.
    """
    seen = observe(
        finished,
        domain,
        direction,
        None,
        shared_blocks,
        is_log=True,
    )
    if seen is None or not seen.scale.is_log:
        return False
    as_log = seen.scale
    seen = seen.thinned(limit)
    as_is = ValueScale.of(seen.raw, direction, is_log=False)
    log_evidence = _log_evidence(seen, as_log, learn)
    return log_evidence > _log_evidence(seen.on(as_is), as_is, learn)


def _log_evidence(seen: Observations, scale: ValueScale, learn: Learn) -> float:
    """Return the log probability of raw values, up to a constant, by model and scale."""
    stretched = scale.log_slopes(seen.raw).sum() - len(seen) * np.log(seen.unit)
    return learn(seen).log_posterior + float(stretched)


def _unfinished(
    trials: Sequence[FrozenTrial],
    curves: ForecastModel,
    scale: ValueScale,
) -> Mapping[int, tuple[float, float]]:
    """Return forecast and variance by number, for pruned and running trials that have reported.

    A pruned trial without a forecast counts with its last value.
    """
    partial = [
        trial
        for trial in trials
        if trial.state in (TrialState.PRUNED, TrialState.RUNNING) and trial.intermediate_values
    ]
    out = {}
    for trial, forecast in zip(partial, curves.forecasts(partial), strict=True):
        if forecast is None:
            if trial.state == TrialState.PRUNED:
                last = trial.intermediate_values[max(trial.intermediate_values)]
                out[trial.number] = float(scale.to(last)), _GUESS**2
        else:
            out[trial.number] = forecast.on(scale)
    return out
