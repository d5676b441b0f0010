"""Summary of a study: best trial, improvement, running trials and recent decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from tunesvc import policy
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import decisions
from tunesvc.queries.cost.outlook import Outlook, get_outlook
from tunesvc.queries.rows import DecisionRow, ReportCurve, StudyView, TrialRow
from tunesvc.queries.sql import DECISION_COLUMNS
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_results import PruningSavings, Results, saving_of
from tunesvc.queries.trials.trial_table import list_trials

_START_MAX = 200
"""First trials that are searched for a start phase."""
_START = 10
"""Number of trials in the start phase of a sampler that records no phases."""
RUNNING = 30
_RECENT_TRIALS = 500
"""Newest trials whose decisions are read. An index finds these, but not a study's newest
decisions."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """Improvement of the search over its start phase, in which trials were random."""

    started: int
    """Number of trials in the start phase."""
    start_best: float
    best: float

    @property
    def amount(self) -> float:
        """Improvement in the metric's units, never negative."""
        return abs(self.best - self.start_best)

    @property
    def share(self) -> float | None:
        """Improvement as a share of the start's best value; None if that is 0."""
        return self.amount / abs(self.start_best) if self.start_best else None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """Key figures of a study; None for those that it lacks."""

    best: int | None
    """Number of the trial with the best observed value; None with several objectives."""
    best_value: float | None
    since: int
    """Number of later trials with a result."""
    gain: Improvement | None
    saved: PruningSavings | None
    forecast: policy.ImprovementForecast | None
    outlook: Outlook | None = None
    """Cost and gain of further trials; None before the first finished trial."""


def get_summary(database: Database, view: StudyView, results: Results) -> StudySummary:
    """Return the key figures of a study."""
    objective = view.objectives[0]
    single = len(view.objectives) == 1
    number = results.best(objective) if single else None
    saved = None if view.has_population else saving_of(results)
    if number is None:
        return StudySummary(None, None, 0, None, saved, None)
    row = int(np.searchsorted(results.numbers, number))
    best_value = float(results.values[row, 0])
    has_result = results.of_state("complete") | results.of_state("pruned")
    return StudySummary(
        best=number,
        best_value=best_value,
        since=int(has_result[row + 1 :].sum()),
        gain=_improvement(database, view, results, best_value),
        saved=saved,
        forecast=expected(view, results),
        outlook=get_outlook(view, results),
    )


def expected(view: StudyView, results: Results) -> policy.ImprovementForecast | None:
    """Forecast further improvement; None with several objectives, or with too few trials."""
    if len(view.objectives) > 1 or view.spec is None:
        return None
    objective = view.objectives[0]
    finished = np.flatnonzero(~np.isnan(results.ended_s))
    by_end = finished[np.argsort(results.ended_s[finished], kind="stable")]
    losses = np.where(results.candidates(), results.losses(objective), np.inf)
    best_values = np.minimum.accumulate(losses[by_end]) * objective.orientation
    incumbents = [value if np.isfinite(value) else None for value in best_values.tolist()]
    counts = view.counts
    unfinished = counts.total - counts.done
    usage = policy.Usage(
        counts.total,
        unfinished,
        view.active_s,
        view.gpu_hours,
        view.cost or 0.0,
        "" if view.prices is None else view.prices.currency,
    )
    return policy.forecast(view.spec.budget.stop_when, incumbents, usage)


def list_running(
    database: Database,
    study_id: int,
) -> tuple[tuple[TrialRow, ReportCurve], ...]:
    """Return running and interrupted trials with thinned curves, the newest first."""
    rows = list_trials(
        database,
        study_id,
        states=["running", "interrupted"],
        limit=RUNNING,
        order="newest",
    )
    if not rows:
        return ()
    numbers = [row.number for row in rows]
    curves = get_curves(database, study_id, numbers=numbers, max_points=40)
    by_number = {curve.trial_number: curve for curve in curves}
    return tuple((row, by_number.get(row.number, ReportCurve(row.number, ()))) for row in rows)


def list_queued(database: Database, study_id: int) -> tuple[TrialRow, ...]:
    """Return trials in workers' queues, the oldest first."""
    return list_trials(database, study_id, states=["queued"], limit=RUNNING)


def list_recent_decisions(
    database: Database,
    study_id: int,
    newest: int,
    limit: int = 12,
) -> tuple[DecisionRow, ...]:
    """Return the newest decisions first: about the study, and about trials from `newest` - 500
    on."""
    columns = decisions.c

    def newest_where(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        query = (
            sa.select(*DECISION_COLUMNS)
            .where(columns.study_id == study_id, condition)
            .order_by(columns.decision_id.desc())
            .limit(limit)
        )
        return sa.select(query.subquery())

    of_trials = newest_where(columns.trial_number > newest - _RECENT_TRIALS)
    of_study = newest_where(columns.trial_number.is_(None))
    both = sa.union_all(of_trials, of_study).subquery()
    query = sa.select(both).order_by(both.c.decision_id.desc()).limit(limit)
    return tuple(DecisionRow(*row) for row in database.rows(query))


def _improvement(
    database: Database,
    view: StudyView,
    results: Results,
    best: float,
) -> Improvement | None:
    start = _start_phase(database, view.study_id)
    in_start = np.isin(results.numbers, start) if start else results.numbers < _START
    losses = results.losses(view.objectives[0])[in_start & results.candidates()]
    if not len(losses) or in_start.all():
        return None
    start_best = float(losses.min() * view.objectives[0].orientation)
    return Improvement(int(in_start.sum()), start_best, best)


def _start_phase(database: Database, study_id: int) -> Sequence[int]:
    """Return the numbers of the trials that the sampler proposed in its start phase."""
    columns = decisions.c
    query = sa.select(columns.trial_number).where(
        columns.study_id == study_id,
        columns.trial_number < _START_MAX,
        columns.kind == "ask",
        columns.details["phase"].astext == "start",
    )
    return database.scalars(query)
