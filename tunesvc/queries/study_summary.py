"""Where a study stands at a glance: its best, what the search has gained, what runs now and what happened lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from tunesvc import policy
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import decisions
from tunesvc.queries.rows import DecisionRow, ReportCurve, StudyView, TrialRow
from tunesvc.queries.sql import DECISION_COLUMNS
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_results import PruningSavings, Results, saving_of
from tunesvc.queries.trials.trial_table import list_trials

_START_MAX = 200
"""Trials that a start phase is looked for in."""
_START = 10
"""The first so many count as the start of a search that does not say which were drawn blindly."""
RUNNING = 30
_NEWS_OF = 500
"""Newest trials whose decisions are looked at; an index finds those, not the newest decisions of a study."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """How much better the search is than its start, when it drew blindly."""

    started: int
    """Trials of the start."""
    start_best: float
    best: float

    @property
    def amount(self) -> float:
        """In the metric's units, never negative."""
        return abs(self.best - self.start_best)

    @property
    def share(self) -> float | None:
        """Of the start's best value; None where that is 0."""
        return self.amount / abs(self.start_best) if self.start_best else None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study of one objective in a few figures; what there is nothing to say of is None."""

    best: int | None
    """The trial with the best observed value."""
    best_value: float | None
    since: int
    """Trials that have come to a result after it."""
    gain: Improvement | None
    saved: PruningSavings | None
    forecast: policy.ImprovementForecast | None


def get_headline(database: Database, view: StudyView, results: Results) -> StudySummary:
    """The study's figures."""
    objective = view.objectives[0]
    single = len(view.objectives) == 1
    number = results.best(objective) if single else None
    if number is None:
        return StudySummary(None, None, 0, None, saving_of(results), None)
    place = int(np.searchsorted(results.numbers, number))
    resulted = results.of_state("complete") | results.of_state("pruned")
    return StudySummary(
        best=number,
        best_value=float(results.values[place, 0]),
        since=int(resulted[place + 1 :].sum()),
        gain=_gain(database, view, results, float(results.values[place, 0])),
        saved=saving_of(results),
        forecast=expected(view, results),
    )


def expected(view: StudyView, results: Results) -> policy.ImprovementForecast | None:
    """What improvement is to be expected; None with several objectives, or too early to tell."""
    if len(view.objectives) > 1 or view.spec is None:
        return None
    objective = view.objectives[0]
    ended = np.flatnonzero(~np.isnan(results.ended_s))
    ended = ended[np.argsort(results.ended_s[ended], kind="stable")]
    costs = np.where(results.candidates(), results.losses(objective), np.inf)[ended]
    best = np.minimum.accumulate(costs) if len(costs) else costs
    incumbents = [value if np.isfinite(value) else None for value in (-best if objective.maximize else best).tolist()]
    counts = view.counts
    usage = policy.Usage(
        counts.total,
        counts.total - counts.done,
        view.active_s,
        view.gpu_hours,
    )
    return policy.forecast(view.spec.budget.stop_when, incumbents, usage)


def list_running(
    database: Database,
    study_id: int,
    limit: int = RUNNING,
) -> tuple[tuple[TrialRow, ReportCurve], ...]:
    """Trials that run or were interrupted, the newest first, each with its curve in few points."""
    rows = list_trials(
        database,
        study_id,
        states=["running", "interrupted"],
        limit=limit,
        order="newest",
    )
    found = get_curves(database, study_id, numbers=[row.number for row in rows], max_points=40) if rows else ()
    drawn = {curve.trial_number: curve for curve in found}
    return tuple((row, drawn.get(row.number, ReportCurve(row.number, ()))) for row in rows)


def list_queued(
    database: Database,
    study_id: int,
    limit: int = RUNNING,
) -> tuple[TrialRow, ...]:
    """Trials that a worker holds and has not begun, the first ones first."""
    return list_trials(database, study_id, states=["queued"], limit=limit)


def list_recent_decisions(
    database: Database,
    study_id: int,
    newest: int,
    limit: int = 12,
) -> tuple[DecisionRow, ...]:
    """The last decisions, newest first: those about the study, and about its trials from `newest` - 500 on."""
    table = decisions
    about = (table.c.trial_number > newest - _NEWS_OF, table.c.trial_number.is_(None))
    parts = [
        sa.select(*DECISION_COLUMNS)
        .where(table.c.study_id == study_id, one)
        .order_by(table.c.decision_id.desc())
        .limit(limit)
        .subquery()
        for one in about
    ]
    both = sa.union_all(*(sa.select(part) for part in parts)).subquery()
    query = sa.select(both).order_by(both.c.decision_id.desc()).limit(limit)
    with database.engine.connect() as connection:
        return tuple(DecisionRow(*row) for row in connection.execute(query))


def _gain(
    database: Database,
    view: StudyView,
    results: Results,
    best: float,
) -> Improvement | None:
    start = _start(database, view.study_id)
    of_start = np.isin(results.numbers, start) if start else results.numbers < _START
    costs = results.losses(view.objectives[0])[of_start & results.candidates()]
    if not len(costs) or of_start.all():
        return None
    return Improvement(
        int(of_start.sum()),
        float(-costs.min() if view.objectives[0].maximize else costs.min()),
        best,
    )


def _start(database: Database, study_id: int) -> Sequence[int]:
    """Numbers of the trials that were drawn before the search had learned anything."""
    table = decisions
    query = sa.select(table.c.trial_number).where(
        table.c.study_id == study_id,
        table.c.trial_number < _START_MAX,
        table.c.kind == "ask",
        table.c.details["phase"].astext == "start",
    )
    with database.engine.connect() as connection:
        return [int(number) for number in connection.execute(query).scalars()]
