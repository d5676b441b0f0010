"""Parameters of selected trials as columns, and the selections."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.db.schema.ids import number_of, trial_id
from tunesvc.db.schema.tables import trial_params
from tunesvc.queries.rows import Objective, StudyView
from tunesvc.queries.sql import is_any_of
from tunesvc.queries.trials.trial_results import Results, subsample_best


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of some trials."""

    name: str
    values: np.ndarray
    """Numbers, or indices into `choices`; NaN for trials without the parameter."""
    choices: tuple[str, ...]
    """Empty for a number."""
    log: bool
    """True if it has a logarithmic scale."""
    low: float
    high: float
    """Bounds of the range; of choices, the first and last index."""

    def text(self, value: float) -> str:
        """Format one of its values."""
        if np.isnan(value):
            return ""
        return self.choices[int(value)] if self.choices else f"{value:.6g}"

    def normalized(self) -> np.ndarray:
        """Return values as shares of the range, between 0 and 1 on its scale; indices of
        choices."""
        if self.choices:
            return self.values
        values = self.values
        low = self.low
        high = self.high
        if self.log:
            values, low, high = np.log(values), np.log(low), np.log(high)
        return (values - low) / ((high - low) or 1.0)


@dataclass(frozen=True, slots=True)
class CompletedTrials:
    """Trials with their parameters and the value of one objective."""

    objective: Objective
    numbers: np.ndarray
    values: np.ndarray
    parameters: tuple[Parameter, ...]
    total: int
    """Number of all trials, of which these are a selection."""
    pruned: np.ndarray
    """Mask of pruned trials, whose value is their last report."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def losses(self) -> np.ndarray:
        """Values oriented so that small is good."""
        return self.values * self.objective.orientation

    def subsample(self, limit: int) -> CompletedTrials:
        """Return at most `limit` trials: the best, and an even sample of the others."""
        mask = subsample_best(self.losses, self.numbers, limit)
        parameters = [replace(one, values=one.values[mask]) for one in self.parameters]
        return replace(
            self,
            numbers=self.numbers[mask],
            values=self.values[mask],
            parameters=tuple(parameters),
            pruned=self.pruned[mask],
        )

    def with_parameters(self, names: Sequence[str]) -> CompletedTrials:
        """Return the trials with only these parameters, in this order."""
        by_name = {one.name: one for one in self.parameters}
        parameters = tuple(by_name[name] for name in names if name in by_name)
        return replace(self, parameters=parameters)


def select_best(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    limit: int,
    states: Collection[str] = (),
) -> CompletedTrials:
    """Select at most `limit` trials with a value: the best, and an even sample of the others."""
    losses = results.losses(view.objectives[index], index)
    rows = results.best_rows(results.with_value(index, states), losses, limit)
    return _selected(database, view, results, index, rows)


def select_evenly(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    limit: int,
) -> CompletedTrials:
    """Select an even sample of at most `limit` complete, feasible trials."""
    rows = results.even_rows(results.done(index) & results.feasible, limit)
    return _selected(database, view, results, index, rows)


def _selected(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    rows: np.ndarray,
) -> CompletedTrials:
    numbers = results.numbers[rows]
    parameters = list_parameters(database, view.study_id, numbers)
    pruned = results.of_state("pruned")[rows]
    return CompletedTrials(
        view.objectives[index],
        numbers,
        results.values[rows, index],
        parameters,
        len(results),
        pruned,
    )


def list_parameters(
    database: Database,
    study_id: int,
    numbers: Iterable[int],
) -> tuple[Parameter, ...]:
    """Return the parameters of trials in the order of their suggestion.

    Each is a column in the order of `numbers`.
    """
    ordered = [int(number) for number in numbers]
    columns = trial_params.c
    ids = [trial_id(study_id, number) for number in ordered]
    # One row per distribution, not per trial: its text is long, and mostly the same.
    query = (
        sa.select(
            columns.name,
            columns.distribution,
            sa.func.min(columns.position).label("position"),
            sa.func.array_agg(columns.trial_id).label("trial_ids"),
            sa.func.array_agg(columns.value).label("values"),
        )
        .where(is_any_of(columns.trial_id, ids))
        .group_by(columns.name, columns.distribution)
    )
    rows = database.rows(query)
    row_of = {number: i for i, number in enumerate(ordered)}
    groups: dict[str, list[_ParameterGroup]] = {}
    for row in sorted(rows, key=lambda row: (row.position, row.name)):
        indices = [row_of[number_of(id_)] for id_ in row.trial_ids]
        group = _ParameterGroup(
            distribution_of(row.distribution),
            np.array(indices, dtype=int),
            np.array(row.values, dtype=float),
        )
        groups.setdefault(row.name, []).append(group)
    return tuple(_parameter(name, len(ordered), found) for name, found in groups.items())


@dataclass(frozen=True, slots=True)
class _ParameterGroup:
    """Trials with the same distribution of a parameter."""

    distribution: BaseDistribution
    indices: np.ndarray
    """Rows of the trials in the column."""
    values: np.ndarray


def _parameter(name: str, length: int, groups: Sequence[_ParameterGroup]) -> Parameter:
    column = np.full(length, np.nan)
    if any(isinstance(group.distribution, CategoricalDistribution) for group in groups):
        return _choice(name, column, groups)
    for group in groups:
        column[group.indices] = group.values
    distributions: list[Any] = [group.distribution for group in groups]
    low = min(distribution.low for distribution in distributions)
    high = max(distribution.high for distribution in distributions)
    log = all(distribution.log for distribution in distributions) and low > 0
    return Parameter(name, column, (), log, float(low), float(high))


def _choice(
    name: str,
    column: np.ndarray,
    groups: Sequence[_ParameterGroup],
) -> Parameter:
    """Return a choice among all distributions' choices; a range contributes its values."""
    codes: dict[str, int] = {}
    for group in groups:
        if isinstance(group.distribution, CategoricalDistribution):
            choices = [str(choice) for choice in group.distribution.choices]
            for choice in choices:
                codes.setdefault(choice, len(codes))
            texts = [choices[int(value)] for value in group.values]
        else:
            texts = [f"{value:g}" for value in group.values]
        column[group.indices] = [codes.setdefault(text, len(codes)) for text in texts]
    last = float(max(len(codes) - 1, 0))
    return Parameter(name, column, tuple(codes), log=False, low=0.0, high=last)
