"""Final runs of studies: `NAME:test` and `NAME:apply`, and how often a test part was used.

A use of a test part is a complete trial of a final run: it is recorded with its value, or not at
all. Uses are found by the data's version, so that other studies on it see them, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import stdev
from typing import Any, Literal

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tunesvc.data.prepared_data import TEST
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import from_optuna_time
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.tables import study_attrs
from tunesvc.evaluation.judging import FINAL_SCORES
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.spec.goals import Goal
from tunesvc.util.formatting import number

Kind = Literal["test", "apply"]
FINAL = "tunesvc:final"
"""System attribute of a study that is a final run: the fields of `FinalRun`."""
OF_TRIAL = "of_trial"
"""User attribute of its trials: the number of the trial whose parameters they have."""
BY = "by"
"""User attribute of its trials: the user that started it."""
_TWO_SIDED_95 = 1.96


@dataclass(frozen=True, slots=True)
class FinalRun:
    """What a study is the final run of."""

    kind: Kind
    study_id: int
    """The study that was searched."""
    study: str
    """Its name."""
    version: str
    """Version of its data; empty without data."""
    folds: int | None = None
    """Number of its folds."""


@dataclass(frozen=True, slots=True)
class TestUse:
    """One evaluation on a test part."""

    study: str
    trial: int
    """Number of the trial whose parameters were evaluated."""
    kind: Kind
    value: float
    at: datetime
    by: str


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
    """Standard error of test minus validation, from predictions per row; None without `scoring`."""
    scores: Mapping[str, float]
    """Other metrics on the test part."""
    version: str
    """Version of the data."""
    at: datetime
    by: str
    uses: tuple[TestUse, ...]
    """All uses of this test part until now, by any study, this one included."""

    @property
    def optimism(self) -> float:
        """How much worse the test value is than validation promised; negative if it is better."""
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


def get_final_run(database: Database, study_id: int) -> FinalRun | None:
    """Return what a study is the final run of; None if it is none."""
    return dict(_final_runs(database, study_id)).get(study_id)


def find_final_study(database: Database, study_id: int, kind: Kind) -> int | None:
    """Return the id of a study's final run; None if there is none."""
    for found, run in _final_runs(database):
        if run.study_id == study_id and run.kind == kind:
            return found
    return None


def list_test_uses(database: Database, version: str) -> tuple[TestUse, ...]:
    """Return all uses of the test part of a version, the first one first."""
    uses: list[TestUse] = []
    for study_id, run in _final_runs(database):
        if run.version == version and _has_test_part(database, study_id):
            uses += [_use(run, trial) for trial in complete_trials(database, study_id)]
    return tuple(sorted(uses, key=lambda use: use.at))


def get_test_result(database: Database, study_id: int) -> TestResult | None:
    """Return the newest result of `tune best --test`; None if it was never used."""
    final_id = find_final_study(database, study_id, "test")
    trials = [] if final_id is None else complete_trials(database, final_id)
    if final_id is None or not trials:
        return None
    view = get_study_by_id(database, study_id)
    newest = trials[-1]
    original = newest.user_attrs[OF_TRIAL]
    use = _use(FinalRun("test", study_id, view.name, ""), newest)
    run, data = get_final_run(database, final_id), get_data(database, final_id)
    (searched,) = rows_of(database, study_id, [original])
    objective = view.objectives[0]
    error = _error(newest, objective.name)
    if run is not None and run.folds is not None:
        error = _error(newest, objective.name, _error_of_folds(database, study_id, original))
    return TestResult(
        view.name,
        original,
        objective.name,
        objective.goal,
        math.nan if searched.value is None else searched.value,
        use.value,
        0 if data is None else data.rows[TEST],
        error,
        other_scores(newest),
        run.version if run else "",
        use.at,
        use.by,
        list_test_uses(database, run.version if run else ""),
    )


def complete_trials(database: Database, study_id: int) -> list[FrozenTrial]:
    """Return the trials of a final run that have a value, the oldest first."""
    states = (TrialState.COMPLETE,)
    found = PgStorage(database).get_all_trials(study_id, deepcopy=False, states=states)
    return [trial for trial in found if OF_TRIAL in trial.user_attrs]


def other_scores(trial: FrozenTrial) -> dict[str, float]:
    """Return the metrics of a trial of a final run beside its objectives."""
    attrs = {name: value for name, value in trial.user_attrs.items() if name != OF_TRIAL}
    return {name: value for name, value in attrs.items() if isinstance(value, float | int)}


def _final_runs(database: Database, study_id: int | None = None) -> list[tuple[int, FinalRun]]:
    query = (
        sa.select(study_attrs.c.study_id, study_attrs.c.value)
        .where(study_attrs.c.kind == "system", study_attrs.c.name == FINAL)
        .order_by(study_attrs.c.study_id)
    )
    if study_id is not None:
        query = query.where(study_attrs.c.study_id == study_id)
    return [(row.study_id, FinalRun(**json.loads(row.value))) for row in database.rows(query)]


def _has_test_part(database: Database, study_id: int) -> bool:
    data = get_data(database, study_id)
    return data is not None and TEST in data.rows


def _use(run: FinalRun, trial: FrozenTrial) -> TestUse:
    ended = from_optuna_time(trial.datetime_complete)
    if ended is None:
        raise ValueError(f"trial {trial.number} is complete, and has no time of its end")
    attrs: Mapping[str, Any] = trial.user_attrs
    by = str(attrs.get(BY, ""))
    return TestUse(run.study, attrs[OF_TRIAL], run.kind, trial.values[0], ended, by)


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


def _error_of_folds(database: Database, study_id: int, trial: int) -> float:
    """Return the standard error of a mean of folds; not a number for one fold alone."""
    (curve,) = get_curves(database, study_id, numbers=[trial])
    values = [point.value for point in curve.points if point.value is not None]
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _signed(value: float) -> str:
    if value == 0:
        return "as promised"
    return f"{abs(value):.3g} {'worse' if value > 0 else 'better'}"
