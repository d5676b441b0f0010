"""A study's answer: the trial that it recommends, and how much more there is to expect."""

from __future__ import annotations

import sqlalchemy as sa

from tunesvc import policy
from tunesvc.insights.rows import StudyView, TrialRow
from tunesvc.insights.sql import is_candidate
from tunesvc.insights.trial_table import best, rows_of
from tunesvc.search.recommend import Recommendation, recommend
from tunesvc.store.database import Database
from tunesvc.store.schema import trials
from tunesvc.store.storage import PgStorage


def recommended(database: Database, view: StudyView) -> Recommendation | None:
    """The trial to take; None with several objectives, or when no trial is complete and feasible."""
    if len(view.objectives) > 1:
        return None
    found = PgStorage(database).get_all_trials(view.study_id, deepcopy=False)
    return recommend(found, view.objectives[0].goal)


def answer_rows(database: Database, view: StudyView, answer: Recommendation | None) -> tuple[TrialRow, ...]:
    """The recommended trial, and after it the one with the best observed value if that is another one.

    With several objectives the Pareto front.
    """
    if len(view.objectives) > 1:
        return best(database, view.study_id)
    if answer is None:
        return ()
    return rows_of(database, view.study_id, list(dict.fromkeys((answer.number, answer.luckiest))))


def forecast(database: Database, view: StudyView) -> str | None:
    """What improvement is expected, in words; None with several objectives, or too early to tell."""
    if len(view.objectives) > 1 or view.spec is None:
        return None
    value = sa.case((sa.and_(*is_candidate([view.study_id])), trials.c["values"][1]))
    query = (
        sa.select(value)
        .where(trials.c.study_id == view.study_id, trials.c.state.in_(["complete", "pruned", "fail"]))
        .order_by(trials.c.ended_at, trials.c.number)
    )
    with database.engine.connect() as connection:
        values = connection.execute(query).scalars().all()
    usage = policy.Usage(view.counts.total, view.counts.total - view.counts.done, view.active_s, view.gpu_hours)
    incumbents = policy.incumbents(values, view.objectives[0].goal)
    expected = policy.forecast(view.spec.budget.stop_when, incumbents, usage)
    return None if expected is None else expected.text
