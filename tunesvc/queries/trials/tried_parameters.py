"""Parameters of chosen trials as columns, and those choices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    json_to_distribution,
)
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import number_of, trial_id
from tunesvc.db.schema.tables import trial_params
from tunesvc.queries.rows import Objective, StudyView
from tunesvc.queries.trials.trial_results import Results, subsample, subsample_best


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of some trials."""

    name: str
    values: np.ndarray
    """Numbers, or places in `choices`; NaN where the trial does not have it."""
    choices: tuple[str, ...]
    """Empty for a number."""
    log: bool
    """Whether it is searched on a logarithmic scale."""
    low: float
    high: float
    """Its range; of choices the first and last place."""

    def text(self, value: float) -> str:
        """How one of its values reads."""
        if np.isnan(value):
            return ""
        return self.choices[int(value)] if self.choices else f"{value:.6g}"

    def places(self) -> np.ndarray:
        """Values as 0 ... 1 of the range, logarithmic where it is searched so; places for choices."""
        if self.choices:
            return self.values
        values, low, high = self.values, self.low, self.high
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
    there: int
    """Trials in all, of which these are a choice."""
    pruned: np.ndarray
    """Which were pruned: their value is the last that they reported."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def losses(self) -> np.ndarray:
        """Small is good."""
        return -self.values if self.objective.maximize else self.values

    def fewer(self, limit: int) -> CompletedTrials:
        """At most so many: the best, and an even choice of the others."""
        kept = subsample_best(self.losses, self.numbers, limit)
        found = tuple(replace(one, values=one.values[kept]) for one in self.parameters)
        return replace(
            self,
            numbers=self.numbers[kept],
            values=self.values[kept],
            parameters=found,
            pruned=self.pruned[kept],
        )

    def only(self, names: Sequence[str]) -> CompletedTrials:
        """With these parameters alone, in this order."""
        by_name = {one.name: one for one in self.parameters}
        return replace(
            self,
            parameters=tuple(by_name[name] for name in names if name in by_name),
        )


def tried_best(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    limit: int,
    states: Collection[str] = (),
) -> CompletedTrials:
    """At most so many trials of these states that have a value: the best, and an even choice of the others."""
    places = np.flatnonzero(results.drawable(index, states))
    costs = results.losses(view.objectives[index], index)[places]
    kept = places[subsample_best(costs, results.numbers[places], limit)]
    return _tried(database, view, results, index, kept)


def tried_evenly(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    limit: int,
) -> CompletedTrials:
    """At most so many complete, feasible trials, an even choice of all of them."""
    places = np.flatnonzero(results.done(index) & results.feasible)
    kept = places[subsample(results.numbers[places], limit)]
    return _tried(database, view, results, index, kept)


def _tried(
    database: Database,
    view: StudyView,
    results: Results,
    index: int,
    places: np.ndarray,
) -> CompletedTrials:
    numbers = results.numbers[places]
    found = list_parameters(database, view.study_id, numbers)
    pruned = results.of_state("pruned")[places]
    return CompletedTrials(
        view.objectives[index],
        numbers,
        results.values[places, index],
        found,
        len(results),
        pruned,
    )


def list_parameters(
    database: Database,
    study_id: int,
    numbers: Iterable[int],
) -> tuple[Parameter, ...]:
    """The parameters of these trials in the order in which they were drawn, each a column in the order of `numbers`."""
    ordered = [int(number) for number in numbers]
    table = trial_params
    ids = sa.cast(
        [trial_id(study_id, number) for number in ordered],
        pg.ARRAY(sa.BigInteger),
    )
    # one row per distribution, not per trial: it is long, and mostly the same
    query = (
        sa.select(
            table.c.name,
            table.c.distribution,
            sa.func.min(table.c.position).label("position"),
            sa.func.array_agg(table.c.trial_id).label("trial_ids"),
            sa.func.array_agg(table.c.value).label("values"),
        )
        .where(table.c.trial_id == sa.any_(ids))
        .group_by(table.c.name, table.c.distribution)
    )
    with database.engine.connect() as connection:
        rows = connection.execute(query).all()
    place = {number: i for i, number in enumerate(ordered)}
    groups: dict[str, list[_ParameterGroup]] = {}
    for row in sorted(rows, key=lambda row: (row.position, row.name)):
        at = np.array([place[number_of(one)] for one in row.trial_ids], dtype=int)
        group = _ParameterGroup(
            _distribution(row.distribution),
            at,
            np.array(row.values, dtype=float),
        )
        groups.setdefault(row.name, []).append(group)
    return tuple(_parameter(name, len(ordered), found) for name, found in groups.items())


@dataclass(frozen=True, slots=True)
class _ParameterGroup:
    """Trials that drew a parameter from the same distribution."""

    distribution: BaseDistribution
    at: np.ndarray
    values: np.ndarray


def _parameter(name: str, length: int, groups: Sequence[_ParameterGroup]) -> Parameter:
    column = np.full(length, np.nan)
    if any(isinstance(group.distribution, CategoricalDistribution) for group in groups):
        return _choice(name, column, groups)
    for group in groups:
        column[group.at] = group.values
    kinds = [group.distribution for group in groups]
    low, high = min(kind.low for kind in kinds), max(kind.high for kind in kinds)  # type: ignore[attr-defined]
    log = all(kind.log for kind in kinds) and low > 0  # type: ignore[attr-defined]
    return Parameter(name, column, (), log, float(low), float(high))


def _choice(name: str, column: np.ndarray, groups: Sequence[_ParameterGroup]) -> Parameter:
    """A choice of what any of the distributions offers; a range among them counts value by value."""
    texts: dict[str, int] = {}
    for group in groups:
        if isinstance(group.distribution, CategoricalDistribution):
            named = np.array(
                [texts.setdefault(str(c), len(texts)) for c in group.distribution.choices],
                dtype=float,
            )
            column[group.at] = named[group.values.astype(int)]
        else:
            column[group.at] = [texts.setdefault(f"{value:g}", len(texts)) for value in group.values]
    return Parameter(name, column, tuple(texts), False, 0.0, float(max(len(texts) - 1, 0)))


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
