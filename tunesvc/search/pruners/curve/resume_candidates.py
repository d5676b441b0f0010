"""What trials promise if they go on: the chance to end best, and what is gained per step, kept as long as they hold.

Forecasts are made by `CurveModel`; here they are set against the best finished trials, and put in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason
from tunesvc.search.pruners.curve.curve_model import CurveForecast, CurveModel
from tunesvc.search.pruners.curve.features import grown
from tunesvc.search.tracking.pareto import chance_to_extend

_ROW = np.dtype(
    [
        ("is_known", "?"),
        ("is_any", "?"),
        ("after_step", "i8"),
        ("chance", "f8"),
        ("rate", "f8"),
    ]
)
"""`rate`: what is gained per step; NaN before anybody asked."""


@dataclass(frozen=True, slots=True)
class ResumeCandidate:
    """What may be expected of a trial if it goes on."""

    trial: FrozenTrial
    forecasts: Sequence[CurveForecast]
    front: Sequence[FrozenTrial]
    chance: float
    steps_left: int = 1
    """How many reports the trial would still make, those included that its checkpoint is behind."""

    @property
    def gain(self) -> float:
        """Expected improvement, on the scale of the forecasts; with several objectives the chance of one."""
        return self.chance if len(self.forecasts) > 1 else self.forecasts[0].expected_gain(self.front[0].values[0])

    @property
    def gain_per_step(self) -> float:
        """By what is chosen."""
        return self.gain / self.steps_left

    def reason(self, names: Sequence[str], numbers: Mapping[str, float]) -> Reason:
        """In words and numbers."""
        several = len(self.forecasts) > 1
        told = [format_forecast(f, name if several else "") for f, name in zip(self.forecasts, names, strict=True)]
        aim = "join the Pareto front" if several else f"beat {self.front[0].values[0]:.4g}, the best so far"
        text = f"forecast after step {self.forecasts[0].step}: {' and '.join(told)}; chance to {aim}: "
        text += f"{percent(self.chance)}; more to gain per step than from any other trial, paused or new"
        details: dict[str, Any] = {
            "step": self.forecasts[0].step,
            "chance": self.chance,
            **numbers,
        }
        if not several:
            details |= {
                "best": self.front[0].values[0],
                **forecast_details(self.forecasts[0]),
            }
        return Reason(text, details)


class ResumeCandidates:
    """Of the paused trials of one study. Each is worked out anew when the trial has gone on in between, when a model
    has learned, and when the best is another: all of that becomes rarer as a study grows."""

    def __init__(self) -> None:
        self._basis: Sequence[object] = ()
        self._heard = 0
        self._rows = np.zeros(0, _ROW)
        """By number."""
        self._of: dict[int, ResumeCandidate] = {}
        self._there = np.zeros(0, dtype=int)
        """Numbers of the paused trials that promise something, in order."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        paused: Mapping[int, int],
        models: Sequence[CurveModel],
        front: Sequence[FrozenTrial],
        resumed: Sequence[int] | None,
    ) -> None:
        """Look at the paused trials.

        Args:
            trials: all of the study's.
            paused: number -> the step after which it would go on.
            models: one per objective.
            front: the best finished trials.
            gone_on: see `finished.gone_on_in`.
        """
        self._rows = grown(self._rows, len(trials))
        self._forget([*(model.state for model in models), *front], resumed)
        numbers, after = (np.fromiter(of, int, len(paused)) for of in (paused.keys(), paused.values()))
        rows = self._rows[numbers]
        new = np.sort(numbers[~rows["is_known"] | (rows["after_step"] != after)]).tolist()
        length = max(model.length for model in models)
        left = [_steps_left(trials[number], paused[number], length) for number in new]
        made = resume_candidates_of([trials[number] for number in new], models, front, left)
        for number, candidate in zip(new, made, strict=True):
            chance = math.nan if candidate is None else candidate.chance
            self._rows[number] = (
                True,
                candidate is not None,
                paused[number],
                chance,
                math.nan,
            )
            if candidate is not None:
                self._of[number] = candidate
        self._there = np.sort(numbers[self._rows["is_any"][numbers]])

    @property
    def together(self) -> float:
        """The chance that one of them ends best."""
        others: list[float] = (1 - self._rows["chance"][self._there]).tolist()
        return 1 - math.prod(others)

    def best(self, chance: float) -> ResumeCandidate | None:
        """The one with the most to gain per step among those with at least this chance; of equal ones the first."""
        there = self._there[self._rows["chance"][self._there] >= chance]
        for number in there[np.isnan(self._rows["rate"][there])].tolist():
            self._rows["rate"][number] = self._of[number].gain_per_step
        return self._of[int(there[self._rows["rate"][there].argmax()])] if len(there) else None

    def _forget(self, basis: Sequence[object], resumed: Sequence[int] | None) -> None:
        is_same = len(basis) == len(self._basis) and all(a is b for a, b in zip(basis, self._basis, strict=True))
        if resumed is None or not is_same:
            self._basis, self._of, self._rows["is_known"] = basis, {}, False
        if resumed is not None:
            self._rows["is_known"][resumed[self._heard :]] = False
            self._heard = len(resumed)


def candidates_of(study: Study) -> ResumeCandidates:
    """What is kept of a study; it is worked out anew where it was lost."""
    return _CANDIDATES.setdefault(study, ResumeCandidates())


_CANDIDATES: WeakKeyDictionary[Study, ResumeCandidates] = WeakKeyDictionary()


def resume_candidates_of(
    trials: Sequence[FrozenTrial],
    models: Sequence[CurveModel],
    front: Sequence[FrozenTrial],
    steps_left: Sequence[int] | None = None,
) -> list[ResumeCandidate | None]:
    """One per trial; None for those for which there is no forecast of every objective."""
    out: list[ResumeCandidate | None] = []
    for i, each in enumerate(zip(*(model.forecasts(trials) for model in models), strict=True)):
        known = [forecast for forecast in each if forecast is not None]
        left = 1 if steps_left is None else steps_left[i]
        is_known = len(known) == len(models)
        out.append(ResumeCandidate(trials[i], known, front, chance_of(known, front), left) if is_known else None)
    return out


def chance_of(
    forecasts: Sequence[CurveForecast],
    front: Sequence[FrozenTrial],
) -> float:
    """To end better than the best, or outside of what the front dominates."""
    below = [[f.chance_of_better(v) for f, v in zip(forecasts, t.values, strict=True)] for t in front]
    return chance_to_extend(np.array(below))


def _steps_left(trial: FrozenTrial, after_step: int, length: int) -> int:
    return max(
        1,
        length - sum(step <= after_step for step in trial.intermediate_values),
    )


def format_forecast(forecast: CurveForecast, name: str) -> str:
    """A forecast in words."""
    low, high = forecast.interval(0.9)
    return f"final {name or 'value'} {forecast.value:.4g} (90 % interval {low:.4g} to {high:.4g})"


def forecast_details(forecast: CurveForecast) -> dict[str, float]:
    """A forecast in numbers."""
    low, high = forecast.interval(0.9)
    return {
        "predicted": forecast.value,
        "deviation": forecast.deviation,
        "low": low,
        "high": high,
    }


def percent(chance: float) -> str:
    """In words."""
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
