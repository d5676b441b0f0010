"""Trials of a study as columns, for charts of all trials. Much cheaper to read than whole rows.

Finished trials do not change, so a later call reads only what can be new:
`get_results(..., before=earlier)`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import STATES_SHOWN, UNFINISHED
from tunesvc.db.schema.tables import reports, trials
from tunesvc.queries.rows import Objective
from tunesvc.queries.sql import in_study, is_any_of, is_feasible, newest_report, state_shown

_CODES = {state: code for code, state in enumerate(STATES_SHOWN)}
_UNFINISHED = tuple(_CODES[state] for state in UNFINISHED)


@dataclass(frozen=True, slots=True)
class Results:
    """All trials by number: columns with one entry per trial."""

    numbers: np.ndarray
    states: np.ndarray
    """Indices into `STATES_SHOWN`."""
    values: np.ndarray
    """Shape (trials, objectives); NaN for missing values."""
    feasible: np.ndarray
    steps: np.ndarray
    """Number of steps up to the newest report; NaN without a report."""
    ended_s: np.ndarray
    """Seconds since 1970; NaN for unfinished trials."""

    def __len__(self) -> int:
        return len(self.numbers)

    def of_state(self, state: str) -> np.ndarray:
        """Return a mask of the trials in a state."""
        mask: np.ndarray = self.states == _CODES[state]
        return mask

    def in_states(self, states: Collection[str]) -> np.ndarray:
        """Return a mask of the trials in one of these states; of all if empty."""
        codes = [_CODES[state] for state in states or _CODES]
        mask: np.ndarray = np.isin(self.states, codes)
        return mask

    def done(self, index: int = 0) -> np.ndarray:
        """Return a mask of the complete trials with a finite value of this objective."""
        mask: np.ndarray = self.of_state("complete") & np.isfinite(self.values[:, index])
        return mask

    def with_value(self, index: int = 0, states: Collection[str] = ()) -> np.ndarray:
        """Return a mask of the trials in these states with a finite value of this objective."""
        mask: np.ndarray = self.in_states(states) & np.isfinite(self.values[:, index])
        return mask

    def candidates(self) -> np.ndarray:
        """Return a mask of the trials that may be best: complete, feasible, without NaN."""
        has_nan = np.isnan(self.values).any(axis=1)
        mask: np.ndarray = self.of_state("complete") & self.feasible & ~has_nan
        return mask

    def losses(self, objective: Objective, index: int = 0) -> np.ndarray:
        """Return one objective's values oriented so that small is good."""
        losses: np.ndarray = self.values[:, index] * objective.orientation
        return losses

    def best(self, objective: Objective, index: int = 0) -> int | None:
        """Return the number of the candidate with the best value; of equal ones the first."""
        rows = np.flatnonzero(self.candidates())
        if not len(rows):
            return None
        first = np.argmin(self.losses(objective, index)[rows])
        return int(self.numbers[rows[first]])

    def best_rows(
        self,
        mask: np.ndarray,
        losses: np.ndarray,
        limit: int,
    ) -> np.ndarray:
        """Return at most `limit` rows of a mask: the best, and an even sample of the others."""
        rows = np.flatnonzero(mask)
        selected: np.ndarray = rows[subsample_best(losses[rows], self.numbers[rows], limit)]
        return selected

    def even_rows(self, mask: np.ndarray, limit: int) -> np.ndarray:
        """Return an even sample of at most `limit` rows of a mask."""
        rows = np.flatnonzero(mask)
        selected: np.ndarray = rows[subsample(self.numbers[rows], limit)]
        return selected


@dataclass(frozen=True, slots=True)
class PruningSavings:
    """Estimated savings by stopping trials early."""

    pruned: int
    whole: int
    """Number of complete trials with reports."""
    full_steps: float
    """Median of the steps of a complete trial."""
    steps: float
    """Estimated number of steps saved."""
    share: float
    """Saved share of the steps without pruning."""


def get_results(
    database: Database,
    study_id: int,
    before: Results | None = None,
) -> Results:
    """Return all trials as columns.

    Args:
        database: Database to read.
        study_id: Study of the trials.
        before: Earlier result for the same study; reads only what can have changed since.
    """
    condition = trials.c.study_id == study_id
    feasible = is_feasible([study_id])
    if before is not None and len(before):
        condition = sa.and_(condition, _is_new(study_id, before))
        feasible = is_feasible()
    with database.engine.connect() as connection:
        width = connection.execute(_COUNT_OBJECTIVES, {"study": study_id}).scalar() or 1
        packed = connection.execute(_packed(study_id, condition, feasible, width)).scalar()
    return _merged(before, _unpacked(packed, width))


def _is_new(study_id: int, before: Results) -> sa.ColumnElement[bool]:
    """Return the condition that a trial may differ from an earlier result."""
    unfinished = before.numbers[np.isin(before.states, _UNFINISHED)]
    ids = [trial_id(study_id, int(number)) for number in unfinished]
    is_later = trials.c.number > int(before.numbers[-1])
    return sa.or_(is_later, is_any_of(trials.c.trial_id, ids))


_COUNT_OBJECTIVES = sa.text("SELECT cardinality(directions) FROM studies WHERE study_id = :study")


def _packed(
    study_id: int,
    condition: sa.ColumnElement[bool],
    feasible: sa.ColumnElement[bool],
    width: int,
) -> sa.Select[Any]:
    """Select all rows as one string of doubles.

    As rows, 100,000 trials would take Python a second.
    """
    last_step = newest_report(reports.c.step).correlate(trials).scalar_subquery()
    states = sa.cast(list(STATES_SHOWN), pg.ARRAY(sa.Text))
    columns: list[Any] = [
        trials.c.number,
        sa.func.array_position(states, state_shown()) - 1,
        sa.cast(feasible, sa.Integer),
        last_step + _step_offset(study_id),
        sa.extract("epoch", trials.c.ended_at),
        *(trials.c["values"][i + 1] for i in range(width)),
    ]
    row = reduce(lambda left, right: left.op("||")(right), map(_as_bytes, columns))
    by_number: Any = pg.aggregate_order_by(sa.literal_column("''::bytea"), trials.c.number)
    return sa.select(sa.func.string_agg(row, by_number)).where(condition)


def _as_bytes(column: Any) -> Any:
    nan: Any = sa.literal_column("'NaN'::float8")
    return sa.func.float8send(sa.func.coalesce(sa.cast(column, sa.Double), nan))


def _step_offset(study_id: int) -> sa.ColumnElement[int]:
    """Return 1 if the study counts steps from 0: then step n is the n + 1st; else 0."""
    first = (
        sa.select(reports.c.step)
        .where(in_study(reports.c.trial_id, study_id))
        .order_by(reports.c.trial_id, reports.c.attempt, reports.c.step)
        .limit(1)
        .scalar_subquery()
    )
    return sa.case((first == 0, 1), else_=0)


def _unpacked(packed: bytes | None, width: int) -> Results:
    table = np.frombuffer(packed or b"", dtype=">f8").astype(float).reshape(-1, 5 + width)
    number, state, feasible, steps, ended_s = table[:, :5].T
    return Results(
        number.astype(np.int64),
        state.astype(np.int8),
        table[:, 5:],
        feasible == 1.0,
        steps,
        ended_s,
    )


def saved_by_pruning(
    pruned: np.ndarray,
    complete: np.ndarray,
    every: np.ndarray,
) -> PruningSavings | None:
    """Estimate the savings; None without a pruned trial or without a complete one.

    Args:
        pruned: Steps of trials that were stopped early.
        complete: Steps of complete trials.
        every: Steps of all trials.
    """
    pruned, complete, every = (steps[~np.isnan(steps)] for steps in (pruned, complete, every))
    if not len(pruned) or not len(complete):
        return None
    full = float(median(complete.tolist()))
    saved = float(np.maximum(0.0, full - pruned).sum())
    share = saved / (saved + float(every.sum()))
    return PruningSavings(len(pruned), len(complete), full, saved, share)


def saving_of(results: Results) -> PruningSavings | None:
    """Estimate the savings of a study, see `saved_by_pruning`."""
    steps = results.steps
    pruned = results.of_state("pruned")
    complete = results.of_state("complete")
    return saved_by_pruning(steps[pruned], steps[complete], steps)


def subsample(numbers: np.ndarray, limit: int) -> np.ndarray:
    """Return a mask of an even sample of at most `limit` trials.

    The sample is deterministic: a study that grows replaces few of its members.
    """
    if len(numbers) <= limit:
        return np.ones(len(numbers), dtype=bool)
    keys = _hashed(numbers)
    mask = np.zeros(len(numbers), dtype=bool)
    mask[np.argpartition(keys, limit - 1)[:limit]] = True
    return mask


def subsample_best(losses: np.ndarray, numbers: np.ndarray, limit: int) -> np.ndarray:
    """Return a mask of at most `limit` trials: a quarter are the best, the others an even
    sample."""
    if len(numbers) <= limit:
        return np.ones(len(numbers), dtype=bool)
    mask = np.zeros(len(numbers), dtype=bool)
    mask[np.argpartition(losses, limit // 4 - 1)[: limit // 4]] = True
    others = np.flatnonzero(~mask)
    mask[others[subsample(numbers[others], limit - limit // 4)]] = True
    return mask


def _hashed(numbers: np.ndarray) -> np.ndarray:
    """Return a fixed pseudo-random number for each: splitmix64 (Steele, Lea, Flood 2014)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


def _merged(before: Results | None, new: Results) -> Results:
    if before is None or not len(before):
        return new
    if not len(new):
        return before
    unchanged = ~np.isin(before.numbers, new.numbers)
    numbers = np.concatenate([before.numbers[unchanged], new.numbers])
    order = np.argsort(numbers, kind="stable")

    def column(name: str) -> np.ndarray:
        parts = [getattr(before, name)[unchanged], getattr(new, name)]
        joined: np.ndarray = np.concatenate(parts)
        return joined[order]

    return Results(*(column(name) for name in Results.__dataclass_fields__))
