"""Cost and gain of further trials: a forecast with its uncertainty, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunesvc.queries.rows import StudyView
from tunesvc.search.analysis.gain_forecast import GainForecast

if TYPE_CHECKING:
    from tunesvc.queries.trials.trial_results import Results

STEP = 10
"""Fewest further trials, and the multiple to which their number is rounded."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Cost and gain of further trials."""

    trials: int
    amount: float
    """Their cost: money if the study has prices, otherwise GPU hours or hours."""
    effort_text: str
    """The amount with its unit."""
    metric: str
    gain: GainForecast | None
    reason: str
    """Reason why no gain can be forecast; empty if there is one."""

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """One sentence with the cost and the gain."""
        cost = f"Another {self.trials} trials would take about {self.effort_text}"
        if self.gain is None:
            return f"{cost}. Their gain cannot be forecast: {self.reason}."
        return f"{cost} and improve {self.metric} by {describe_gain(self.gain)}."


def describe_gain(gain: GainForecast) -> str:
    """Format a gain, such as `about 0.0003 (90 %: 0 to 0.0011)`."""
    return f"about {gain.mean:.2g} (90 %: {gain.low:.2g} to {gain.high:.2g})"


def describe_outlook(
    view: StudyView,
    losses: np.ndarray,
    trials: int | None = None,
) -> Outlook | None:
    """Forecast what further trials take and bring; None before the first finished trial.

    Args:
        view: the study.
        losses: of the trials that may be best, at least of the best ones; small is good.
        trials: number of further trials; by default a quarter of those that have finished.
    """
    from tunesvc.queries.cost.spending import EffortUnit
    from tunesvc.search.analysis.gain_forecast import forecast_gain

    finished = view.counts.done
    if not finished:
        return None
    more = trials or max(STEP, round(finished / 4 / STEP) * STEP)
    unit = EffortUnit.of(view)
    spent = view.cost if view.cost is not None else view.gpu_hours or view.active_s / 3600
    amount = spent / finished * more
    gain, reason = None, _obstacle(view)
    if not reason:
        gain = forecast_gain(losses, finished, more)
        reason = "" if gain is not None else _lack(view, losses)
    text = unit.format(amount)
    return Outlook(more, amount, text, view.objectives[0].name, gain, reason)


def get_outlook(
    view: StudyView,
    results: Results,
    trials: int | None = None,
) -> Outlook | None:
    """Forecast what further trials of a study take and bring; see `describe_outlook`."""
    losses = results.losses(view.objectives[0])[results.candidates()]
    return describe_outlook(view, losses, trials)


def _obstacle(view: StudyView) -> str:
    """Return the reason why a study's best results forecast nothing; empty if they do."""
    if len(view.objectives) > 1:
        return "the study has several objectives"
    if view.has_population:
        return "members of a population continue each other"
    if ":confirm" in view.name:
        return "the study repeats configurations by design"
    if view.is_exhausted:
        return "every configuration has been tried, and only a wider space adds new ones"
    return ""


def _lack(view: StudyView, losses: np.ndarray) -> str:
    from tunesvc.search.analysis.gain_forecast import BEST, GAIN_FORECAST_FROM

    if view.counts.done < GAIN_FORECAST_FROM:
        return f"it needs {GAIN_FORECAST_FROM} finished trials, and there are {view.counts.done}"
    if np.isfinite(losses).sum() < BEST:
        return f"it needs {BEST} complete trials"
    return f"the {BEST} best results are equal"
