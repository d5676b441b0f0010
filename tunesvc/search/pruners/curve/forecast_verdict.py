"""A pruner's view of a trial: its forecasts beside the best finished trials, as text and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason
from tunesvc.search.pruners.curve.forecasts import Forecast
from tunesvc.search.tracking.pareto import chance_to_extend

_SHOWN = 5
"""Most trials that a reason names."""


@dataclass(frozen=True, slots=True)
class ForecastVerdict:
    """Forecasts of a trial beside the best finished trials, and the chance to beat those."""

    step: int
    values: Sequence[float]
    """Reports at that step, one per objective."""
    forecasts: Sequence[Forecast]
    front: Sequence[FrozenTrial]
    """Finished trials that no other dominates; of one objective the best."""
    finished: int
    chance: float
    """Chance to end better than the best, or outside of what the front dominates."""

    def audit(self) -> dict[str, Any]:
        """Return the data by which the audit will be decided."""
        data: dict[str, Any] = {"step": self.step, "chance": self.chance}
        if len(self.values) > 1:
            data["front"] = [trial.values for trial in self.front]
        else:
            data["best"] = self.front[0].values[0]
        return data

    def reason(
        self,
        names: Sequence[str],
        allowed: float,
        is_poor: bool,
        audited: bool,
    ) -> Reason:
        """Describe the decision as text and data."""
        several = len(self.values) > 1
        forecasts = format_forecasts(self.forecasts, names)
        aim = self._beside_front() if several else self._beside_best()
        text = f"forecast after {self.forecasts[0].stage}: {forecasts}; "
        text += f"chance to {aim}: {percent(self.chance)}"
        if audited:
            text += "; it may finish all the same, to audit the pruner"
        details: dict[str, Any] = {
            "step": self.step,
            "chance": self.chance,
            "allowed": allowed,
            "finished": self.finished,
            "stopped": is_poor and not audited,
            "audit": audited,
        }
        if several:
            triples = zip(names, self.values, self.forecasts, strict=True)
            details["metrics"] = {}
            for name, value, forecast in triples:
                details["metrics"][name] = {
                    "value": value,
                    **forecast_details(forecast),
                }
            details["front"] = len(self.front)
            dominating = self._dominating()[:_SHOWN]
            details["comparators"] = [{"number": t.number, "values": t.values} for t in dominating]
        else:
            details |= {
                "value": self.values[0],
                "best": self.front[0].values[0],
                **forecast_details(self.forecasts[0]),
            }
        return Reason(text, details)

    def _beside_best(self) -> str:
        return f"beat {self.front[0].values[0]:.4g}, the best of {self.finished} finished trials"

    def _beside_front(self) -> str:
        named = []
        for trial in self._dominating():
            values = ", ".join(f"{value:.4g}" for value in trial.values)
            named.append(f"{trial.number} ({values})")
        text = f"join the {len(self.front)} Pareto-optimal of {self.finished} finished trials"
        if named:
            more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
            text += f", of which {', '.join(named[:_SHOWN])}{more} would dominate it"
        return text

    def _dominating(self) -> list[FrozenTrial]:
        """Return the front's members that are as good as the forecast in every objective."""
        return [trial for trial in self.front if self._is_dominated_by(trial)]

    def _is_dominated_by(self, trial: FrozenTrial) -> bool:
        pairs = zip(self.forecasts, trial.values, strict=True)
        return all(forecast.is_no_better_than(value) for forecast, value in pairs)


def chance_of(
    forecasts: Sequence[Forecast],
    front: Sequence[FrozenTrial],
) -> float:
    """Return the chance to end better than the best, or outside of what the front dominates."""
    below = []
    for trial in front:
        pairs = zip(forecasts, trial.values, strict=True)
        below.append([forecast.chance_of_better(value) for forecast, value in pairs])
    return chance_to_extend(np.array(below))


def format_forecasts(
    forecasts: Sequence[Forecast],
    names: Sequence[str],
) -> str:
    """Describe the forecasts of all objectives; the metric is named if there are several."""
    if len(forecasts) == 1:
        return format_forecast(forecasts[0], "")
    pairs = zip(forecasts, names, strict=True)
    return " and ".join(format_forecast(forecast, name) for forecast, name in pairs)


def format_forecast(forecast: Forecast, name: str) -> str:
    """Describe a forecast."""
    low, high = forecast.interval(0.9)
    return f"final {name or 'value'} {forecast.value:.4g} (90 % interval {low:.4g} to {high:.4g})"


def forecast_details(forecast: Forecast) -> dict[str, float]:
    """Return a forecast as data."""
    low, high = forecast.interval(0.9)
    return {
        "predicted": forecast.value,
        "deviation": forecast.deviation,
        "low": low,
        "high": high,
    }


def percent(chance: float) -> str:
    """Format a chance."""
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
