"""Paused trials as candidates to resume: their chance to end best and gain per step, cached.

A `ForecastModel` makes the forecasts; here they are compared with the best finished trials, and
described.
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
from tunesvc.search.pruners.curve.features import grown
from tunesvc.search.pruners.curve.forecast_verdict import (
    chance_of,
    forecast_details,
    format_forecasts,
    percent,
)
from tunesvc.search.pruners.curve.forecasts import Forecast, ForecastModel

_ROW = np.dtype(
    [
        ("is_known", "?"),
        ("is_any", "?"),
        ("after_step", "i8"),
        ("chance", "f8"),
        ("rate", "f8"),
    ]
)
"""`rate`: gain per step; NaN until it is needed."""


@dataclass(frozen=True, slots=True)
class ResumeCandidate:
    """Forecast of a trial if it resumes."""

    trial: FrozenTrial
    forecasts: Sequence[Forecast]
    front: Sequence[FrozenTrial]
    chance: float
    steps_left: int = 1
    """Reports that the trial would still make, repeated ones after its checkpoint included."""

    @property
    def gain(self) -> float:
        """Expected improvement, on the forecasts' scale; with several objectives its chance."""
        if len(self.forecasts) > 1:
            return self.chance
        return self.forecasts[0].expected_gain(self.front[0].values[0])

    @property
    def gain_per_step(self) -> float:
        """Criterion for selection."""
        return self.gain / self.steps_left

    def reason(
        self,
        names: Sequence[str],
        numbers: Mapping[str, float],
    ) -> Reason:
        """Describe the selection as text and data."""
        several = len(self.forecasts) > 1
        best = self.front[0].values[0]
        aim = "join the Pareto front" if several else f"beat {best:.4g}, the best so far"
        text = (
            f"forecast after {self.forecasts[0].stage}: {format_forecasts(self.forecasts, names)}; "
            f"chance to {aim}: {percent(self.chance)}; "
            "more to gain per step than from any other trial, paused or new"
        )
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
    """Candidates among the paused trials of one study.

    A candidate is computed again after it was resumed, after a fit of a model, and when the best
    has changed. All of these become rarer as a study grows.
    """

    def __init__(self) -> None:
        self._basis: Sequence[object] = ()
        self._resumed_read = 0
        self._rows = np.zeros(0, _ROW)
        """Rows by trial number."""
        self._of: dict[int, ResumeCandidate] = {}
        self._there = np.zeros(0, dtype=int)
        """Numbers of the paused trials with a forecast, sorted."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        paused: Mapping[int, int],
        models: Sequence[ForecastModel],
        front: Sequence[FrozenTrial],
        resumed: Sequence[int] | None,
    ) -> None:
        """Update the candidates.

        Args:
            trials: all of the study's.
            paused: number -> step after which the trial would resume.
            models: one per objective.
            front: the best finished trials.
            resumed: see `finished.resumed_in`.
        """
        self._rows = grown(self._rows, len(trials))
        self._forget([*(model.state for model in models), *front], resumed)
        numbers = np.fromiter(paused.keys(), int, len(paused))
        after = np.fromiter(paused.values(), int, len(paused))
        rows = self._rows[numbers]
        new = np.sort(numbers[~rows["is_known"] | (rows["after_step"] != after)]).tolist()
        length = max(model.length for model in models)
        left = [_steps_left(trials[number], paused[number], length) for number in new]
        made = resume_candidates_of(
            [trials[number] for number in new],
            models,
            front,
            left,
        )
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
        """Chance that one of them ends best."""
        others: list[float] = (1 - self._rows["chance"][self._there]).tolist()
        return 1 - math.prod(others)

    def best(self, chance: float) -> ResumeCandidate | None:
        """Return the candidate that gains most per step, of those with at least this chance."""
        numbers = self._there[self._rows["chance"][self._there] >= chance]
        if not len(numbers):
            return None
        rates = self._rows["rate"]
        for number in numbers[np.isnan(rates[numbers])].tolist():
            rates[number] = self._of[number].gain_per_step
        best = rates[numbers].argmax()
        return self._of[int(numbers[best])]

    def _forget(
        self,
        basis: Sequence[object],
        resumed: Sequence[int] | None,
    ) -> None:
        is_same = len(basis) == len(self._basis)
        is_same = is_same and all(a is b for a, b in zip(basis, self._basis, strict=True))
        if resumed is None or not is_same:
            self._basis, self._of, self._rows["is_known"] = basis, {}, False
        if resumed is not None:
            self._rows["is_known"][resumed[self._resumed_read :]] = False
            self._resumed_read = len(resumed)


def candidates_of(study: Study) -> ResumeCandidates:
    """Return the cached candidates of a study, or an empty cache."""
    return _CANDIDATES.setdefault(study, ResumeCandidates())


_CANDIDATES: WeakKeyDictionary[Study, ResumeCandidates] = WeakKeyDictionary()


def resume_candidates_of(
    trials: Sequence[FrozenTrial],
    models: Sequence[ForecastModel],
    front: Sequence[FrozenTrial],
    steps_left: Sequence[int] | None = None,
) -> list[ResumeCandidate | None]:
    """Return a candidate per trial; None without a forecast of every objective."""
    out: list[ResumeCandidate | None] = []
    for i, each in enumerate(zip(*(model.forecasts(trials) for model in models), strict=True)):
        known = [forecast for forecast in each if forecast is not None]
        left = 1 if steps_left is None else steps_left[i]
        candidate = None
        if len(known) == len(models):
            candidate = ResumeCandidate(
                trials[i],
                known,
                front,
                chance_of(known, front),
                left,
            )
        out.append(candidate)
    return out


def _steps_left(trial: FrozenTrial, after_step: int, length: int) -> int:
    return max(
        1,
        length - sum(step <= after_step for step in list(trial.intermediate_values)),
    )
