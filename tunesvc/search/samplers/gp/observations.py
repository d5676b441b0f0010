"""What a study's trials teach the model: points, values on a robust scale, and how far each value is to be trusted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.pruners.curve.curve_model import CurveModel
from tunesvc.search.pruners.curve.regression import DOF
from tunesvc.search.samplers.gp.domain import Domain
from tunesvc.search.samplers.gp.gp_model import Hyperparameters
from tunesvc.search.tracking.objectives import is_feasible
from tunesvc.search.tracking.scale import WORST, ValueScale
from tunesvc.search.training_seeds import groups

OBSERVED_MAX = 400
"""The model holds so many trials: of more the best, the newest, and an even choice of the rest."""
_GUESS = 1.0
"""Deviation, on the scale, of a pruned trial's last value when no curve model says what it is worth."""
_AUGMENTATION = 0.05
_EXCESS_MAX = 2.0
"""A violation of more than twice its usual size is no worse."""


@dataclass(frozen=True, slots=True)
class Observations:
    """Small values are good; of finished trials they have mean 0 and variance 1."""

    numbers: np.ndarray
    points: np.ndarray
    values: np.ndarray
    raw: np.ndarray
    """In the first objective's units; NaN for trials that are forecast."""
    variances: np.ndarray
    """Of each value beyond the noise that all have: 0 for finished trials."""
    seeds: np.ndarray
    """Equal where trials share a training seed."""
    is_candidate: np.ndarray
    """Whether the trial may be recommended: finished, and within all constraints."""
    unit: float
    centre: float
    """A value on the scale is `centre + unit * value`."""
    scale: ValueScale | None
    """None for several objectives."""

    def __len__(self) -> int:
        return len(self.values)

    def in_units(self, mean: float, deviation: float) -> tuple[float, float] | None:
        """A prediction in the objective's own units; None for several objectives."""
        if self.scale is None:
            return None
        ends = self.scale.back(self.centre + self.unit * np.array([mean - deviation, mean, mean + deviation]))
        return float(ends[1]), float(abs(ends[2] - ends[0]) / 2)

    def on(self, scale: ValueScale) -> Observations:
        """The same finished trials on another scale, for one objective."""
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
        """At most so many."""
        if len(self) <= limit:
            return self
        order = np.argsort(self.values, kind="stable")
        best, newest = (
            order[: limit // 3],
            np.argsort(-self.numbers, kind="stable")[: limit // 6],
        )
        chosen = np.union1d(best, newest)
        rest = np.setdiff1d(order, chosen)
        even = rest[np.linspace(0, len(rest) - 1, limit - len(chosen)).astype(int)]
        kept = np.union1d(chosen, even)
        return Observations(
            self.numbers[kept],
            self.points[kept],
            self.values[kept],
            self.raw[kept],
            self.variances[kept],
            self.seeds[kept],
            self.is_candidate[kept],
            self.unit,
            self.centre,
            self.scale,
        )


def observe(
    trials: Sequence[FrozenTrial],
    domain: Domain,
    directions: Sequence[StudyDirection],
    curves: Sequence[CurveModel],
    weights: np.ndarray,
    shared_seeds: int | None,
    *,
    is_log: bool | None = None,
) -> Observations | None:
    """What finished, pruned and running trials are worth; None when none has finished.

    Args:
        curves: one per objective, to forecast unfinished trials; none leaves these out.
        weights: of the objectives, for several: they become one by an augmented Chebyshev function (Knowles 2006,
            "ParEGO").
        shared_seeds: how many training seeds the trials share in turns; None: each has its own.
        is_log: as for `ValueScale.of`.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not finished:
        return None
    columns = np.array([trial.values for trial in finished], dtype=float)
    scales = [
        ValueScale.of(column, direction, is_log=is_log) for column, direction in zip(columns.T, directions, strict=True)
    ]
    placed = np.column_stack([scale.to(column) for scale, column in zip(scales, columns.T, strict=True)])
    means, deviations = placed.mean(axis=0), placed.std(axis=0) + 1e-9

    def combined(z: np.ndarray) -> np.ndarray:
        if len(scales) == 1:
            return z[:, 0]
        z = (z - means) / deviations * weights
        return np.asarray(z.max(axis=1) + _AUGMENTATION * z.sum(axis=1))

    values = combined(placed)
    centre, unit = float(values.mean()), float(values.std()) or 1.0
    seen = [(trial, value, 0.0) for trial, value in zip(finished, values, strict=True)]
    seen += _foreseen(trials, curves, scales, combined)
    numbers = np.array([trial.number for trial, _, _ in seen])
    return Observations(
        numbers,
        np.stack([domain.encode(trial.params) for trial, _, _ in seen]),
        (np.array([value for _, value, _ in seen]) - centre) / unit,
        np.array([trial.values[0] if trial.state == TrialState.COMPLETE else np.nan for trial, _, _ in seen]),
        np.array([variance for _, _, variance in seen]) / unit**2,
        groups(numbers, shared_seeds),
        np.array([trial.state == TrialState.COMPLETE and is_feasible(trial) for trial, _, _ in seen]),
        unit,
        centre,
        scales[0] if len(scales) == 1 else None,
    )


Learn = Callable[[Observations], Hyperparameters]
"""Has hyperparameters learned, or remembered."""


def prefers_log(
    finished: Sequence[FrozenTrial],
    domain: Domain,
    direction: StudyDirection,
    shared_seeds: int | None,
    limit: int,
    learn: Learn,
) -> bool:
    """Whether logarithms of an objective's values are a smoother function of the parameters than the values.

    Losses that differ by factors mostly are. A squared distance is not: its logarithm has a hole at the minimum. The
    values are more probable under the better one (Snelson et al. 2003, "Warped Gaussian processes").

    Args:
        limit: at most so many trials are looked at.
    """
    seen = observe(
        finished,
        domain,
        [direction],
        (),
        np.ones(1),
        shared_seeds,
        is_log=True,
    )
    if seen is None or seen.scale is None or not seen.scale.is_log:
        return False
    as_log = seen.scale
    seen = seen.thinned(limit)
    as_is = ValueScale.of(seen.raw, direction, is_log=False)
    return _log_evidence(seen, as_log, learn) > _log_evidence(
        seen.on(as_is),
        as_is,
        learn,
    )


def _log_evidence(seen: Observations, scale: ValueScale, learn: Learn) -> float:
    """How probable the raw values are, up to a constant: by the model, and by how the scale stretches them."""
    stretched = scale.log_slopes(seen.raw).sum() - len(seen) * np.log(seen.unit)
    return learn(seen).log_posterior + float(stretched)


def excesses(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """By how much each trial violates the constraint that it violates most: above 0 where it does; shape (trials,).

    Each constraint in units of its own median size. A trial that one was not judged by keeps within it by as much.
    """
    names = sorted({name for trial in trials for name in trial.constraints})
    worst = np.full(len(trials), -np.inf if names else -1.0)
    for name in names:
        is_judged = np.array([name in trial.constraints for trial in trials])
        excess = np.array([trial.constraints.get(name, 0.0) for trial in trials])
        sizes = np.abs(excess[np.isfinite(excess) & (excess != 0.0)])
        unit = np.median(sizes) if len(sizes) else 1.0
        worst = np.maximum(
            worst,
            np.where(is_judged, np.nan_to_num(excess / unit, nan=_EXCESS_MAX), -1.0),
        )
    out: np.ndarray = worst.clip(-_EXCESS_MAX, _EXCESS_MAX)
    return out


def _foreseen(
    trials: Sequence[FrozenTrial],
    curves: Sequence[CurveModel],
    scales: Sequence[ValueScale],
    combined: Callable[[np.ndarray], np.ndarray],
) -> list[tuple[FrozenTrial, float, float]]:
    """Pruned and running trials with what is forecast for all objectives together, and its variance."""
    if len(curves) == 1:
        known = _unfinished(trials, curves[0], scales[0])
        return [(trial, *known[trial.number]) for trial in trials if trial.number in known]
    if not curves:
        return []
    by_objective = [
        _unfinished(trials, model, scale, guesses=False) for model, scale in zip(curves, scales, strict=False)
    ]
    nodes = np.array(list(itertools.product((-np.sqrt(3.0), 0.0, np.sqrt(3.0)), repeat=len(curves))))
    shares = np.where(nodes == 0.0, 2 / 3, 1 / 6).prod(
        axis=1,
    )  # of a normal variable: Gauss and Hermite's, three each
    out = []
    for trial in trials:
        if all(trial.number in known for known in by_objective):
            z, variance = np.array([known[trial.number] for known in by_objective]).T
            values = combined(z + np.sqrt(variance) * nodes)
            mean = float(shares @ values)
            out.append((trial, mean, float(shares @ (values - mean) ** 2)))
    return out


def _unfinished(
    trials: Sequence[FrozenTrial],
    curves: CurveModel,
    scale: ValueScale,
    *,
    guesses: bool = True,
) -> Mapping[int, tuple[float, float]]:
    """By number: what is forecast for a pruned or running trial that has reported, and its variance.

    With `guesses`, a pruned trial that cannot be forecast is taken for its last value.
    """
    partial = [
        trial
        for trial in trials
        if trial.state in (TrialState.PRUNED, TrialState.RUNNING) and trial.intermediate_values
    ]
    out = {}
    for trial, forecast in zip(partial, curves.forecasts(partial), strict=True):
        if forecast is None:
            if guesses and trial.state == TrialState.PRUNED:
                last = trial.intermediate_values[max(trial.intermediate_values)]
                out[trial.number] = float(scale.to(last)), _GUESS**2
        elif forecast.scale == scale:
            out[trial.number] = (
                min(float(forecast.z), WORST),
                float(forecast.deviation_z**2) * DOF / (DOF - 2),
            )
        else:
            low, high = scale.to(
                np.array(
                    [
                        forecast.value - forecast.deviation,
                        forecast.value + forecast.deviation,
                    ]
                )
            )
            variance = (float(high - low) / 2) ** 2 * DOF / (DOF - 2)
            out[trial.number] = float(scale.to(forecast.value)), variance
    return out
