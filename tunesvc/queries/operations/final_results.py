"""Results on test parts, and how often a test part was used.

A use is a complete trial of a final run, which is recorded with its value, or not at all. Without
`scoring` an objective reports values on the test part, so that a trial of a final run is a use from
its first report. Uses are found by the rows of the test part, for all studies that have these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from tunesvc.data.prepared_data import TEST
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import reports, studies, study_attrs, trial_attrs, trials
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.evaluation.model_scores import FINAL_SCORES
from tunesvc.queries.operations.data_lineage import DATA_USED, get_data
from tunesvc.queries.operations.final_runs import (
    BY,
    FINAL,
    OF_TRIAL,
    FinalRun,
    Kind,
    complete_trials,
    end_of,
    find_final_study,
    get_final_run,
    other_scores,
)
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.search.analysis.samples import standard_error
from tunesvc.spec.goals import Goal
from tunesvc.util.formatting import number

_TWO_SIDED_95 = 1.96


@dataclass(frozen=True, slots=True)
class TestUse:
    """One evaluation on a test part."""

    study: str
    trial: int
    """Number of the trial whose parameters were evaluated."""
    kind: Kind
    value: float
    """The last one that was reported, if the trial is not complete; NaN if that has none."""
    at: datetime
    by: str
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class TestResult:
    """A recommended trial on the test part, and how far its validation value was optimistic."""

    study: str
    trial: int
    """Number of the trial that was recommended."""
    metric: str
    goal: Goal
    validation: float
    """Its value, by which it was chosen."""
    test: float
    rows: int
    """Rows of the test part."""
    error: float | None
    """Standard error of test minus validation, from predictions per row, and for a mean of folds
    from their values, corrected for the training rows that they share; None without `scoring`."""
    scores: Mapping[str, float]
    """Other metrics on the test part."""
    version: str
    """Version of the data."""
    at: datetime
    by: str
    uses: tuple[TestUse, ...]
    """All uses of this test part until now, by any study that the reader may see, this one
    included."""

    @property
    def optimism(self) -> float:
        """The amount by which the test value is worse than validation promised."""
        worse = self.test - self.validation
        return worse if self.goal == "minimize" else -worse

    @property
    def interval(self) -> tuple[float, float] | None:
        """The optimism's 95 % interval; None where its error is not known."""
        if self.error is None or math.isnan(self.error):
            return None
        reach = _TWO_SIDED_95 * self.error
        return self.optimism - reach, self.optimism + reach

    @property
    def is_clean(self) -> bool:
        """True while no other configuration was judged by this test part."""
        return len({(use.study, use.trial) for use in self.uses}) <= 1

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        optimism = self.optimism
        text = f"validation {number(self.validation)}, test {number(self.test)}"
        if optimism == 0:
            text += ": as validation promised"
        else:
            way = "worse" if optimism > 0 else "better"
            text += f": {abs(optimism):.3g} {way} than validation promised"
        if (interval := self.interval) is None:
            return f"{text}. `evaluation: {{scoring: ...}}` would show how exact that is."
        low, high = map(_signed, interval)
        chance = ", no more than chance" if interval[0] <= 0 <= interval[1] else ""
        return f"{text}{chance} (95 %: {low} to {high})."

    @property
    def caution(self) -> str:
        """The reason for which the test value is no clean estimate; empty if it is one."""
        if self.is_clean:
            return ""
        judged = {(use.study, use.trial) for use in self.uses}
        return (
            f"The test part of data {self.version} was used {times(len(self.uses))}, for "
            f"{len(judged)} configurations: a value that others were compared with is no clean "
            "estimate any more. New data gives one."
        )

    def __str__(self) -> str:
        return f"{self.verdict} {self.caution}".rstrip()


def times(count: int) -> str:
    """Return how often, in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def list_test_uses(
    database: Database,
    version: str,
    test_rows: str = "",
    scope: StudyScope = ALL_STUDIES,
) -> tuple[TestUse, ...]:
    """Return all uses of a test part, the first one first.

    Args:
        database: where they are recorded.
        version: a version of data that has the test part.
        test_rows: digest of its rows, by which other versions with the same rows are found.
        scope: the studies that the reader may see.
    """
    runs = _final_runs_on(database, version, test_rows, scope)
    if not runs:
        return ()
    reporting = [study_id for study_id, run in runs.items() if not run.is_scored]
    reported_at = _last_report(reports.c.reported_at)
    is_use = sa.or_(
        trials.c.state == "complete",
        sa.and_(trials.c.study_id.in_(reporting), reported_at.is_not(None)),
    )
    query = sa.select(
        trials.c.study_id,
        trials.c.state,
        trials.c["values"].label("results"),
        _last_report(reports.c.value).label("reported"),
        sa.func.coalesce(trials.c.ended_at, reported_at).label("at"),
        _user_attr(OF_TRIAL).label("of_trial"),
        _user_attr(BY).label("by"),
    ).where(trials.c.study_id.in_(runs), is_use)
    rows = [row for row in database.rows(query) if row.of_trial is not None]
    return tuple(_use(runs[row.study_id], row) for row in sorted(rows, key=lambda row: row.at))


def get_test_result(
    database: Database, study_id: int, scope: StudyScope = ALL_STUDIES
) -> TestResult | None:
    """Return the newest result of `tune best --test`; None if it was never used.

    Args:
        database: where the study is stored.
        study_id: the study that was searched.
        scope: the studies that the reader may see; uses by others are not counted.
    """
    final_id = find_final_study(database, study_id, "test")
    completed = [] if final_id is None else complete_trials(database, final_id)
    run = None if final_id is None else get_final_run(database, final_id)
    if final_id is None or run is None or not completed:
        return None
    view, data = get_study_by_id(database, study_id), get_data(database, final_id)
    newest = completed[-1]
    original = newest.user_attrs[OF_TRIAL]
    (searched,) = rows_of(database, study_id, [original])
    objective = view.objectives[0]
    of_folds = None
    if run.folds is not None and data is not None:
        of_folds = _error_of_folds(database, study_id, original, data.validation_ratio)
    return TestResult(
        view.name,
        original,
        objective.name,
        objective.goal,
        math.nan if searched.value is None else searched.value,
        newest.values[0],
        0 if data is None else data.rows[TEST],
        _error(newest, objective.name, of_folds),
        other_scores(newest),
        run.version,
        end_of(newest),
        str(newest.user_attrs.get(BY, "")),
        list_test_uses(database, run.version, run.test_rows, scope),
    )


def _final_runs_on(
    database: Database, version: str, test_rows: str, scope: StudyScope
) -> dict[int, FinalRun]:
    """Return the final runs that have a test part, by study."""
    keys = filter(None, (version, test_rows))
    named = (study_attrs.c.value.contains(key, autoescape=True) for key in keys)
    used = study_attrs.alias("used")
    query = (
        sa.select(study_attrs.c.study_id, study_attrs.c.value, used.c.value.label("data"))
        .join(studies, studies.c.study_id == study_attrs.c.study_id)
        .join(used, used.c.study_id == study_attrs.c.study_id)
        .where(study_attrs.c.kind == "system", study_attrs.c.name == FINAL)
        .where(used.c.kind == "system", used.c.name == DATA_USED, scope.condition())
        .where(sa.or_(sa.false(), *named))
    )
    runs = {}
    for row in database.rows(query):
        run = FinalRun(**json.loads(row.value))
        if run.is_on(version, test_rows) and TEST in json.loads(row.data)["rows"]:
            runs[row.study_id] = run
    return runs


def _use(run: FinalRun, row: Any) -> TestUse:
    is_complete = row.state == "complete"
    value = row.results[0] if is_complete else row.reported
    return TestUse(
        run.study,
        json.loads(row.of_trial),
        run.kind,
        math.nan if value is None else value,
        row.at.astimezone(),
        json.loads(row.by or '""'),
        is_complete,
    )


def _last_report(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    """Return a column of a trial's newest report."""
    query = sa.select(column).where(reports.c.trial_id == trials.c.trial_id)
    newest = query.order_by(reports.c.reported_at.desc(), reports.c.step.desc()).limit(1)
    return newest.scalar_subquery()


def _user_attr(name: str) -> sa.ScalarSelect[str]:
    query = sa.select(trial_attrs.c.value).where(
        trial_attrs.c.trial_id == trials.c.trial_id,
        trial_attrs.c.kind == "user",
        trial_attrs.c.name == name,
    )
    return query.scalar_subquery()


def _error(
    trial: FrozenTrial,
    metric: str,
    of_folds: float | None = None,
) -> float | None:
    """Return the standard error of test minus validation; that of validation may be of folds."""
    scores = trial.system_attrs.get(FINAL_SCORES)
    if scores is None:
        return None
    of_validation = scores["validation_error"].get(metric) if of_folds is None else of_folds
    errors = (scores["test_error"].get(metric), of_validation)
    return None if any(error is None for error in errors) else math.hypot(*errors)


def _error_of_folds(database: Database, study_id: int, trial: int, ratio: float) -> float:
    """Return the corrected standard error of a mean of folds; NaN where it is not known."""
    (curve,) = get_curves(database, study_id, numbers=[trial])
    values = [point.value for point in curve.points if point.value is not None]
    error = standard_error(values, ratio)
    return math.nan if error is None else error


def _signed(value: float) -> str:
    if value == 0:
        return "as promised"
    return f"{abs(value):.3g} {'worse' if value > 0 else 'better'}"
