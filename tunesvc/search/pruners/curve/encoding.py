"""Parameters as columns of numbers: ranges as 0..1 on their scale, choices one-hot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial


class Encoder:
    """Encodes the parameters of trials. A missing one is encoded as the middle, and marked.

    Where trials declare different ranges, their union counts.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._ranges: dict[str, tuple[bool, float, float]] = {}
        self._choices: dict[str, list[str]] = {}
        for trial in trials:
            for name, distribution in trial.distributions.items():
                self._see(name, distribution)
        names = [*self._ranges, *self._choices]
        has_all = {name: all(name in trial.params for trial in trials) for name in names}
        self._missing = [name for name in names if not has_all[name]]

    def encode(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Encode trials; shape (trials, columns)."""
        columns = []
        for name, bounds in self._ranges.items():
            columns.append([_place(trial.params.get(name), *bounds) for trial in trials])
        for name, choices in self._choices.items():
            values = [repr(trial.params.get(name)) for trial in trials]
            shown = choices[1:] if len(choices) == 2 else choices
            columns += [[float(value == choice) for value in values] for choice in shown]
        columns += [[float(name in trial.params) for trial in trials] for name in self._missing]
        return np.array(columns, dtype=float).reshape(len(columns), len(trials)).T

    def _see(self, name: str, distribution: BaseDistribution) -> None:
        if isinstance(distribution, CategoricalDistribution):
            seen = self._choices.setdefault(name, [])
            seen += [repr(choice) for choice in distribution.choices if repr(choice) not in seen]
        elif isinstance(distribution, (FloatDistribution, IntDistribution)):
            is_log, low, high = self._ranges.get(
                name,
                (distribution.log, np.inf, -np.inf),
            )
            self._ranges[name] = (
                is_log,
                min(low, distribution.low),
                max(high, distribution.high),
            )


def _place(value: float | None, is_log: bool, low: float, high: float) -> float:
    if value is None or high <= low:
        return 0.5
    if is_log:
        value, low, high = np.log([max(value, low), low, high])
    return (value - low) / (high - low)
