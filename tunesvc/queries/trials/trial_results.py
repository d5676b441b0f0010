"""A study's trials as columns: what charts of everything need, at a small part of what whole rows cost.

Finished trials do not change any more, so a later look reads only what can be new: `results(..., before=earlier)`.
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
from tunesvc.queries.sql import in_study, is_feasible, state_shown

_CODES = {state: code for code, state in enumerate(STATES_SHOWN)}
_UNFINISHED = tuple(_CODES[state] for state in UNFINISHED)


@dataclass(frozen=True, slots=True)
class Results:
    """All trials by number, one entry each in every column."""

    numbers: np.ndarray
    states: np.ndarray
    """Places in `STATES_SHOWN`."""
    values: np.ndarray
    """Shape (trials, objectives); NaN where there is none."""
    feasible: np.ndarray
    steps: np.ndarray
    """How many were trained up to the newest report; NaN without one."""
    ended_s: np.ndarray
    """Seconds since 1970; NaN while it is not over."""

    def __len__(self) -> int:
        return len(self.numbers)

    def of_state(self, state: str) -> np.ndarray:
        """Which trials are in a state."""
        found: np.ndarray = self.states == _CODES[state]
        return found

    def in_states(self, states: Collection[str]) -> np.ndarray:
        """Which trials are in one of these states; all without them."""
        found: np.ndarray = np.isin(
            self.states,
            [_CODES[state] for state in states or _CODES],
        )
        return found

    def done(self, index: int = 0) -> np.ndarray:
        """Which trials are complete with a value of this objective that can be drawn."""
        found: np.ndarray = self.of_state("complete") & np.isfinite(self.values[:, index])
        return found

    def drawable(self, index: int = 0, states: Collection[str] = ()) -> np.ndarray:
        """Which trials of these states, of any without them, have a value of this objective that can be drawn."""
        found: np.ndarray = self.in_states(states) & np.isfinite(self.values[:, index])
        return found

    def candidates(self) -> np.ndarray:
        """Which trials may be best: complete, all values numbers, and feasible."""
        found: np.ndarray = self.of_state("complete") & self.feasible & ~np.isnan(self.values).any(axis=1)
        return found

    def losses(self, objective: Objective, index: int = 0) -> np.ndarray:
        """One objective's values such that small is good."""
        column: np.ndarray = self.values[:, index]
        return -column if objective.maximize else column

    def best(self, objective: Objective, index: int = 0) -> int | None:
        """Number of the candidate with the best value; of equal ones the first."""
        places = np.flatnonzero(self.candidates())
        return int(self.numbers[places[np.argmin(self.losses(objective, index)[places])]]) if len(places) else None


@dataclass(frozen=True, slots=True)
class PruningSavings:
    """What stopping trials early has saved."""

    pruned: int
    whole: int
    """Trials that reported and came to their end."""
    full_steps: float
    """What a complete trial takes, the median."""
    steps: float
    """That were not trained, about."""
    share: float
    """Of what it would have taken otherwise."""


def get_results(
    database: Database,
    study_id: int,
    before: Results | None = None,
) -> Results:
    """All trials as columns.

    Args:
        database: where to read.
        study_id: whose trials.
        before: an earlier answer for the same study; only what can have changed since is read.
    """
    is_open = None if before is None or not len(before) else before.numbers[np.isin(before.states, _UNFINISHED)]
    condition = trials.c.study_id == study_id
    if before is not None and is_open is not None:
        ids = sa.cast(
            [trial_id(study_id, int(number)) for number in is_open],
            pg.ARRAY(sa.BigInteger),
        )
        is_new = sa.or_(
            trials.c.number > int(before.numbers[-1]),
            trials.c.trial_id == sa.any_(ids),
        )
        condition = sa.and_(condition, is_new)
    feasible = is_feasible([study_id]) if is_open is None else is_feasible()
    with database.engine.connect() as connection:
        width = connection.execute(_OBJECTIVES, {"study": study_id}).scalar() or 1
        packed = connection.execute(_packed(study_id, condition, feasible, width)).scalar()
    return _joined(before, _unpacked(packed, width))


_OBJECTIVES = sa.text("SELECT cardinality(directions) FROM studies WHERE study_id = :study")


def _packed(
    study_id: int,
    condition: sa.ColumnElement[bool],
    feasible: sa.ColumnElement[bool],
    width: int,
) -> sa.Select[Any]:
    """All rows as one string of doubles: as rows, 100,000 trials would take Python a second of work."""
    last_step = (
        sa.select(reports.c.step)
        .where(reports.c.trial_id == trials.c.trial_id, ~reports.c.superseded)
        .order_by(reports.c.attempt.desc(), reports.c.step.desc())
        .limit(1)
        .correlate(trials)
        .scalar_subquery()
    )
    state = (
        sa.func.array_position(
            sa.cast(list(STATES_SHOWN), pg.ARRAY(sa.Text)),
            state_shown(),
        )
        - 1
    )
    columns: list[Any] = [
        trials.c.number,
        state,
        sa.cast(feasible, sa.Integer),
        last_step + _is_counted_from_0(study_id),
        sa.extract("epoch", trials.c.ended_at),
        *(trials.c["values"][i + 1] for i in range(width)),
    ]
    nan: Any = sa.literal_column("'NaN'::float8")
    doubles: list[Any] = [sa.func.float8send(sa.func.coalesce(sa.cast(one, sa.Double), nan)) for one in columns]
    row = reduce(lambda left, right: left.op("||")(right), doubles)
    rows: Any = pg.aggregate_order_by(sa.literal_column("''::bytea"), trials.c.number)
    return sa.select(sa.func.string_agg(row, rows)).where(condition)


def _is_counted_from_0(study_id: int) -> sa.ColumnElement[int]:
    """Return 1 where the study's first report is of step 0, so that one step more is trained than its number says."""
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
    """What it has saved; None while no trial was stopped early, or none has come to its end.

    Args:
        pruned: steps of trials that were stopped early.
        complete: steps of those that came to their end.
        every: steps of all trials.
    """
    pruned, complete, every = (steps[~np.isnan(steps)] for steps in (pruned, complete, every))
    if not len(pruned) or not len(complete):
        return None
    full = float(median(complete.tolist()))
    steps = float(np.maximum(0.0, full - pruned).sum())
    trained = float(every.sum())
    return PruningSavings(
        len(pruned),
        len(complete),
        full,
        steps,
        steps / (steps + trained),
    )


def saving_of(found: Results) -> PruningSavings | None:
    """`saved_by_pruning` of a study."""
    steps = found.steps
    return saved_by_pruning(
        steps[found.of_state("pruned")],
        steps[found.of_state("complete")],
        steps,
    )


def subsample(numbers: np.ndarray, limit: int) -> np.ndarray:
    """A fixed even choice of at most so many: a study that grows replaces few of them. Mask of `numbers`."""
    if len(numbers) <= limit:
        return np.ones(len(numbers), dtype=bool)
    keys = _scrambled(numbers)
    kept = np.zeros(len(numbers), dtype=bool)
    kept[np.argpartition(keys, limit - 1)[:limit]] = True
    return kept


def subsample_best(costs: np.ndarray, numbers: np.ndarray, limit: int) -> np.ndarray:
    """At most so many trials: the best quarter of them the best there are, the others an even choice. Mask."""
    if len(numbers) <= limit:
        return np.ones(len(numbers), dtype=bool)
    kept = np.zeros(len(numbers), dtype=bool)
    kept[np.argpartition(costs, limit // 4 - 1)[: limit // 4]] = True
    others = np.flatnonzero(~kept)
    kept[others[subsample(numbers[others], limit - limit // 4)]] = True
    return kept


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    """A fixed pseudo-random number for each: splitmix64 (Steele, Lea, Flood 2014)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


def _joined(before: Results | None, news: Results) -> Results:
    if before is None or not len(before):
        return news
    if not len(news):
        return before
    kept = ~np.isin(before.numbers, news.numbers)
    order = np.argsort(np.concatenate([before.numbers[kept], news.numbers]), kind="stable")

    def column(name: str) -> np.ndarray:
        out: np.ndarray = np.concatenate(
            [getattr(before, name)[kept], getattr(news, name)],
        )[order]
        return out

    return Results(*(column(name) for name in Results.__dataclass_fields__))
