"""Forecasts of the final values of unfinished trials, as pruners and samplers use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from optuna.trial import FrozenTrial

from tunesvc.search.tracking.scale import ValueScale


class Forecast(Protocol):
    """Forecast of a trial's final value: a Student t distribution."""

    @property
    def step(self) -> int:
        """Last step that it rests on."""
        ...

    @property
    def stage(self) -> str:
        """Extent of the observations, for messages: `step 3`, `2 of 5 folds`."""
        ...

    @property
    def value(self) -> float:
        """Median, in the objective's units."""
        ...

    @property
    def deviation(self) -> float:
        """Half the width of the interval of one deviation around it, in the objective's units."""
        ...

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the central interval with this probability, in the objective's units."""
        ...

    def chance_of_better(self, value: float) -> float:
        """Return the probability that the final value is better than this one."""
        ...

    def expected_gain(self, value: float) -> float:
        """Return the expected improvement over this value; worse counts as none."""
        ...

    def is_no_better_than(self, value: float) -> bool:
        """Return True if the median is not better than this value."""
        ...

    def on(self, scale: ValueScale) -> tuple[float, float]:
        """Return mean and variance on a scale."""
        ...


class ForecastModel(Protocol):
    """Forecasts trials of one study, for one objective."""

    @property
    def levels(self) -> Sequence[int]:
        """Steps at which forecasts change; empty before there is a forecast."""
        ...

    @property
    def length(self) -> int:
        """Number of reports of the longest finished trial; 0 before there is a forecast."""
        ...

    @property
    def state(self) -> object:
        """Identity of what was learned: the same object as long as forecasts stay the same."""
        ...

    def update(self, trials: Sequence[FrozenTrial], resumed: Sequence[int] | None = None) -> None:
        """Learn from all trials of a study."""
        ...

    def forecast(self, trial: FrozenTrial) -> Forecast | None:
        """Forecast a trial; None before its first report, or while too few have finished."""
        ...

    def forecasts(self, trials: Sequence[FrozenTrial]) -> Sequence[Forecast | None]:
        """Forecast trials from their curves as given here, which may be cut."""
        ...

    def expected(self, trials: Iterable[FrozenTrial]) -> dict[int, float]:
        """Forecast final values of pruned trials by number, in the objective's units."""
        ...

    def forget(self) -> None:
        """Drop what was learned, as at a restart."""
        ...

    def invalidate(self) -> None:
        """Read all trials again, because their distributions have changed."""
        ...
