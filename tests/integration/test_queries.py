"""The read side over rows that a coordinator would have written, in a real Postgres."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)

from tests.support.specs import make_spec
from tunesvc.db import study_records as stored
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import AttemptState
from tunesvc.errors import StudyNotFound
from tunesvc.queries.explain.explored_ranges import count_tried_parts
from tunesvc.queries.export.dataframe import build_dataframe
from tunesvc.queries.rows import Counts, Objective, StudyStatus
from tunesvc.queries.studies import get_study, list_studies
from tunesvc.queries.trials.attempt_events import (
    get_curve,
    get_curves,
    list_decisions,
    list_logs,
)
from tunesvc.queries.trials.trial_results import get_results
from tunesvc.queries.trials.trial_table import get_trial, list_best_trials, list_trials
from tunesvc.space.search_space import place
from tunesvc.spec import StudySpec

LR = FloatDistribution(1e-4, 1.0, log=True)


OPTIMIZER = CategoricalDistribution(["sgd", "adam"])


class Writer:
    """Puts rows into a study, as its coordinator would."""

    def __init__(self, connection: sa.Connection, spec: StudySpec) -> None:
        self.connection = connection
        self.study_id = stored.create(connection, spec).study_id

    def trial(self, number: int, state: str, *values: float, constraints: str | None = None) -> int:
        started, ended = (
            ("now() - interval '10 s'", "now()") if state != "waiting" else ("NULL", "NULL")
        )
        row = {
            "trial_id": trial_id(self.study_id, number),
            "study_id": self.study_id,
            "number": number,
            "state": state,
            "values": list(values) or None,
            "started_at": sa.text(started),
            "ended_at": sa.text("NULL" if state == "running" else ended),
        }
        self.insert(tables.trials, **row)
        if constraints is not None:
            self.attr(number, "system", "constraints", constraints)
        return trial_id(self.study_id, number)

    def param(
        self, number: int, position: int, name: str, value: float, distribution: BaseDistribution
    ) -> None:
        written = distribution_to_json(distribution)
        at = trial_id(self.study_id, number)
        self.insert(
            tables.trial_params,
            trial_id=at,
            name=name,
            position=position,
            value=value,
            distribution=written,
        )

    def attr(self, number: int, kind: str, name: str, value: str) -> None:
        self.insert(
            tables.trial_attrs,
            trial_id=trial_id(self.study_id, number),
            kind=kind,
            name=name,
            value=value,
        )

    def attempt(self, trial: int, number: int, state: str, **columns: object) -> None:
        row = {
            "started_at": sa.text("now() - interval '1 h'"),
            "ended_at": sa.text("now()"),
            **columns,
        }
        self.insert(
            tables.attempts,
            trial_id=trial_id(self.study_id, trial),
            number=number,
            token=1,
            state=state,
            **row,
        )

    def report(
        self, trial: int, attempt: int, step: int, value: float | None, **columns: object
    ) -> None:
        at = trial_id(self.study_id, trial)
        self.insert(tables.reports, trial_id=at, attempt=attempt, step=step, value=value, **columns)

    def log(self, trial: int, attempt: int, seq: int, text: str) -> None:
        at = trial_id(self.study_id, trial)
        self.insert(tables.logs, trial_id=at, attempt=attempt, seq=seq, stream="stdout", text=text)

    def insert(self, table: sa.Table, **row: object) -> None:
        self.connection.execute(sa.insert(table).values(row))


@contextmanager
def writing(database: Database, **spec: object) -> Iterator[Writer]:
    base = {
        "name": "digits",
        "entrypoint": "digits:train",
        "metrics": ({"name": "error"},),
        "parameters": {"lr": {"type": "float", "min": 1e-4, "max": 1.0, "log": True}},
        "budget": {"trials": 10},
    }
    with database.engine.begin() as connection:
        yield Writer(connection, StudySpec.model_validate_json(json.dumps(base | spec)))


TWO_METRICS = ({"name": "error"}, {"name": "speed", "goal": "maximize"})


@pytest.mark.parametrize("log", [False, True])
def test_the_parts_of_a_range_that_were_tried_are_counted_on_its_scale(
    database: Database, log: bool
) -> None:
    kind = FloatDistribution(1e-4, 1.0, log=log)
    tried = [1e-4, 0.0011, 0.0012, 0.05, 0.55, 1.0]
    with writing(database) as w:
        for number, value in enumerate(tried):
            w.trial(number, "complete", 0.5)
            w.param(number, 0, "lr", value, kind)
    places = [place(kind, value) or 0.0 for value in tried]
    assert count_tried_parts(database, w.study_id, "lr", kind, 10) == len(
        {min(9, int(10 * at)) for at in places}
    )
    assert count_tried_parts(database, w.study_id, "other", kind, 10) == 0
    assert count_tried_parts(database, w.study_id, "lr", CategoricalDistribution([1, 2]), 2) == 1


def test_an_empty_database_has_no_studies(database: Database) -> None:
    assert list_studies(database) == ()


def test_the_overview_counts_trials_by_state_and_names_the_best_value(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.trial(1, "complete", 0.2)
        w.trial(2, "pruned", 0.1)
        w.trial(3, "fail")
        w.trial(4, "running")
        w.trial(5, "waiting")
    (row,) = list_studies(database)
    counts = Counts(waiting=1, interrupted=1, complete=2, pruned=1, failed=1)
    assert row.counts == counts, "no coordinator runs it"
    assert [
        trial.number for trial in list_trials(database, row.study_id, states=["interrupted"])
    ] == [4]
    (found, *_) = list_trials(database, row.study_id, after=3, limit=1)
    assert (found.state, found.duration_s) == ("interrupted", None)
    assert get_results(database, row.study_id).of_state("interrupted").sum() == 1
    until = sa.text("now() + interval '20 s'")
    with database.engine.begin() as connection:
        lease = {"study_id": row.study_id, "owner": "box:42", "token": 1, "batch": 0}
        connection.execute(tables.leases.insert().values(**lease, expires_at=until))
    (held,) = list_studies(database)
    assert held.counts == replace(counts, interrupted=0, running=1)
    assert row.best_value == 0.2
    assert row.fraction == pytest.approx(0.4)
    assert row.state is StudyStatus.CREATED
    assert row.created_at.utcoffset() == timedelta(0)


def test_the_overview_sums_gpu_hours_and_names_the_owner_of_the_lease(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.trial(1, "running")
        w.attempt(0, 1, "lost", gpus=0.5)
        w.attempt(0, 2, "finished", gpus=2)
        w.attempt(1, 1, "opened", gpus=4, started_at=None, ended_at=None)
        until = sa.text("now() + interval '20 s'")
        w.insert(
            tables.leases, study_id=w.study_id, owner="box:42", token=1, batch=0, expires_at=until
        )
    (row,) = list_studies(database)
    assert row.gpu_hours == pytest.approx(2.5)
    assert row.coordinator == "box:42"


def test_an_expired_lease_means_that_the_study_has_no_coordinator(database: Database) -> None:
    with writing(database) as w:
        past = sa.text("now() - interval '1 s'")
        w.trial(0, "running")
        w.attempt(0, 1, "running", gpus=1, ended_at=None)
        w.report(0, 1, 0, 1.0, reported_at=sa.text("now() - interval '30 min'"))
        w.insert(
            tables.leases, study_id=w.study_id, owner="box:42", token=1, batch=0, expires_at=past
        )
    (row,) = list_studies(database)
    assert row.coordinator is None
    assert row.gpu_hours == pytest.approx(0.5), "what ran until its last report"


def test_a_study_is_found_by_name_with_its_spec(database: Database) -> None:
    with writing(database):
        pass
    view = get_study(database, "digits")
    assert view.spec is not None
    assert view.spec.metrics[0].name == "error"
    assert view.objectives == (Objective("error", "minimize"),)


def test_an_unknown_study_is_answered_with_the_nearest_name(database: Database) -> None:
    with writing(database):
        pass
    with pytest.raises(StudyNotFound, match="did you mean 'digits'"):
        get_study(database, "digit")


def test_a_study_made_through_optuna_has_no_spec_but_is_shown(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            sa.insert(tables.studies).values(name="plain", directions=["maximize", "minimize"])
        )
    view = get_study(database, "plain")
    assert view.spec is None
    assert [o.name for o in view.objectives] == ["value_0", "value_1"]
    assert view.fraction == 0.0


def test_names_set_through_optuna_are_those_of_the_objectives(database: Database) -> None:
    directions = ["minimize", "maximize"]
    study = optuna.create_study(
        study_name="named", storage=PgStorage(database), directions=directions
    )
    study.set_metric_names(["loss", "speed"])
    view = get_study(database, "named")
    assert [objective.name for objective in view.objectives] == ["loss", "speed"]
    assert [row.objectives for row in list_studies(database)] == [view.objectives]


@pytest.mark.parametrize(
    ("evaluation", "step"),
    [
        (None, "step"),
        ({"folds": 5}, "fold"),
        ({"repeats": 3}, "repeat"),
        ({"repeats": 3, "per_trial": 1}, "step"),
    ],
)
def test_steps_of_a_study_are_named(
    database: Database, evaluation: dict[str, int] | None, step: str
) -> None:
    data = {"source": "people.csv"} if evaluation else None
    spec = make_spec(evaluation=evaluation, data=data)
    with database.engine.begin() as connection:
        stored.create(connection, spec, None, None)
    view = get_study(database, "test")
    assert [objective.step for objective in view.objectives] == [step]


def test_parameters_are_external_values_in_the_order_drawn_and_absent_when_inactive(
    database: Database,
) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.param(0, 0, "optimizer", 1, OPTIMIZER)
        w.param(0, 1, "lr", 0.01, LR)
        w.trial(1, "complete", 0.4)
        w.param(1, 0, "optimizer", 0, OPTIMIZER)
    first, second = list_trials(database, w.study_id)
    assert list(first.params.items()) == [("optimizer", "adam"), ("lr", 0.01)]
    assert second.params == {"optimizer": "sgd"}


def test_trials_are_filtered_paged_and_ordered(database: Database) -> None:
    with writing(database) as w:
        for number, value in enumerate([0.3, 0.1, math.nan, 0.2]):
            w.trial(number, "complete", value)
        w.trial(4, "pruned")

    def numbers(**how: object) -> list[int]:
        return [row.number for row in list_trials(database, w.study_id, **how)]  # type: ignore[arg-type]

    assert numbers() == [0, 1, 2, 3, 4]
    assert numbers(states=["pruned"]) == [4]
    assert numbers(after=1, limit=2) == [2, 3]
    assert numbers(order="newest", after=3, limit=2) == [2, 1]
    assert numbers(order="best") == [1, 3, 0, 2, 4], "NaN after every number, no value last"


def test_a_trial_row_counts_attempts_and_names_the_last_failure_and_report(
    database: Database,
) -> None:
    with writing(database) as w:
        w.trial(0, "fail")
        w.attempt(0, 1, "lost", failure="lost")
        w.attempt(0, 2, "failed", failure="error")
        w.report(0, 1, 7, 0.9)
        w.report(0, 2, 3, 0.8)
    (row,) = list_trials(database, w.study_id)
    assert (row.attempts, row.failure) == (2, "error")
    assert (row.last_step, row.last_value) == (3, 0.8)
    assert row.duration_s == pytest.approx(7200), "of both attempts"


def test_trials_that_were_stopped_are_counted_apart_from_those_that_failed(
    database: Database,
) -> None:
    with writing(database) as w:
        w.trial(0, "fail")
        w.attempt(0, 1, "failed", failure="error")
        w.trial(1, "fail")
        w.attempt(1, 1, "failed", stop_cause="request")
        w.trial(2, "fail")  # as through Optuna's API
        withdrawn = {
            "trial_id": trial_id(w.study_id, 3),
            "study_id": w.study_id,
            "number": 3,
            "state": "fail",
        }
        w.insert(tables.trials, **withdrawn)  # taken back before it started
    (row,) = list_studies(database)
    assert row.counts == Counts(failed=2, stopped=2)
    assert [one.state for one in list_trials(database, row.study_id)] == [
        "failed",
        "stopped",
        "failed",
        "stopped",
    ]
    assert [one.number for one in list_trials(database, row.study_id, states=["stopped"])] == [1, 3]
    assert get_results(database, row.study_id).of_state("stopped").tolist() == [
        False,
        True,
        False,
        True,
    ]


def test_best_is_never_nan_nor_pruned_nor_infeasible(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", math.nan)
        w.trial(1, "pruned", 0.0)
        w.trial(2, "complete", 0.1, constraints="[0.5, -1.0]")
        w.trial(3, "complete", 0.15, constraints="[NaN]")
        w.trial(4, "complete", 0.3, constraints="[0.0, -Infinity]")
        w.trial(5, "complete", 0.4, constraints="[]")
    assert [row.number for row in list_best_trials(database, w.study_id)] == [4]
    assert [row.number for row in list_best_trials(database, w.study_id, limit=5)] == [4, 5]
    assert list_studies(database)[0].best_value == 0.3
    feasible = [row.feasible for row in list_trials(database, w.study_id)]
    assert feasible == [True, True, False, False, True, True]


def test_best_follows_the_goal(database: Database) -> None:
    with writing(database, metrics=({"name": "acc", "goal": "maximize"},)) as w:
        w.trial(0, "complete", 0.1)
        w.trial(1, "complete", 0.9)
    assert [row.number for row in list_best_trials(database, w.study_id)] == [1]
    assert list_studies(database)[0].best_value == 0.9


def test_nothing_finished_means_no_best(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "running")
    assert list_best_trials(database, w.study_id) == ()


def test_several_objectives_have_a_pareto_front(database: Database) -> None:
    with writing(database, metrics=TWO_METRICS) as w:
        w.trial(0, "complete", 0.1, 10.0)
        w.trial(1, "complete", 0.2, 20.0)
        w.trial(2, "complete", 0.2, 15.0)  # dominated by 1
        w.trial(3, "complete", 0.1, 10.0)  # as good as 0
        w.trial(4, "complete", math.nan, 99.0)
        w.trial(5, "complete", 0.05, 99.0, constraints="[1.0]")
    assert [row.number for row in list_best_trials(database, w.study_id)] == [0, 1, 3]
    assert list_studies(database)[0].best_value is None


def test_a_curve_takes_the_newest_attempt_and_leaves_out_what_was_superseded(
    database: Database,
) -> None:
    with writing(database) as w:
        w.trial(0, "running")
        w.report(0, 1, 0, 1.0)
        w.report(0, 1, 1, 0.9)
        w.report(0, 1, 5, 0.1, superseded=True)
        w.report(0, 2, 1, 0.7, metrics={"loss": "NaN", "top": "-Infinity"})
        w.report(0, 2, 2, None, metrics={"loss": 3})
    curve = get_curve(database, w.study_id, 0)
    assert [(p.step, p.value, p.attempt) for p in curve.points] == [
        (0, 1.0, 1),
        (1, 0.7, 2),
        (2, None, 2),
    ]
    assert math.isnan(curve.points[1].metrics["loss"])
    assert curve.points[1].metrics["top"] == -math.inf
    assert curve.points[2].metrics == {"loss": 3.0}


def test_long_curves_are_thinned_out_but_keep_their_last_point(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "running")
        w.trial(1, "running")
        for step in range(101):
            w.report(0, 1, step, float(step))
        w.report(1, 1, 0, 7.0)
    long, short = get_curves(database, w.study_id, max_points=10)
    assert [p.step for p in long.points] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 100]
    assert (long.points[0].step, long.points[-1].step) == (0, 100)
    assert len(short.points) == 1


def test_logs_come_in_order_and_continue_after_a_cursor(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "running")
        w.log(0, 2, 1, "again\n")
        w.log(0, 1, 3, "world\n")
        w.log(0, 1, 1, "hello\n")
    rows = list_logs(database, w.study_id, 0)
    assert [row.text for row in rows] == ["hello\n", "world\n", "again\n"]
    assert [row.text for row in list_logs(database, w.study_id, 0, after=rows[0].cursor)] == [
        "world\n",
        "again\n",
    ]
    assert [row.text for row in list_logs(database, w.study_id, 0, attempt=2)] == ["again\n"]


def test_a_trial_in_detail_has_its_attempts_decisions_and_attributes(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "fail")
        w.attempt(
            0,
            1,
            "failed",
            failure="error",
            message="boom",
            traceback="Traceback ...",
            devices=["0"],
        )
        w.attr(0, "user", "note", '"hi"')
        for number, kind in ((0, "ask"), (None, "sampler"), (0, "fail")):
            w.insert(
                tables.decisions, study_id=w.study_id, trial_number=number, kind=kind, reason="why"
            )
    detail = get_trial(database, w.study_id, 0)
    assert detail is not None
    assert detail.attempts[0].state is AttemptState.FAILED
    assert detail.attempts[0].devices == ("0",)
    assert [d.kind for d in detail.decisions] == ["ask", "fail"]
    assert detail.user_attrs == {"note": "hi"}
    assert get_trial(database, w.study_id, 99) is None
    assert [d.kind for d in list_decisions(database, w.study_id)] == ["ask", "sampler", "fail"]


def test_a_dataframe_has_a_row_per_trial_with_times_in_utc(database: Database) -> None:
    with writing(database) as w:
        w.trial(0, "complete", 0.5)
        w.param(0, 0, "lr", 0.01, LR)
        w.attr(0, "user", "auc", "0.75")
        w.attr(0, "system", "constraints:auc.max", "0.25")
        w.trial(1, "waiting")
    frame = build_dataframe(database, get_study(database, "digits"))
    assert frame.loc[0, "metrics.auc"] == 0.75
    assert frame.loc[0, "constraints.auc.max"] == 0.25
    assert not frame.loc[0, "feasible"]
    assert list(frame.columns[:4]) == ["number", "state", "value", "metrics.auc"]
    assert frame.loc[0, "params.lr"] == 0.01
    assert str(frame["started_at"].dt.tz) == "UTC"
    assert frame["started_at"].isna().tolist() == [False, True]


def test_a_dataframe_of_several_objectives_names_each(database: Database) -> None:
    with writing(database, metrics=TWO_METRICS) as w:
        w.trial(0, "complete", 0.1, 10.0)
        w.trial(1, "running")
    frame = build_dataframe(database, get_study(database, "digits"))
    assert frame.loc[0, "values.speed"] == 10.0


def test_an_empty_dataframe_still_has_its_columns(database: Database) -> None:
    with writing(database):
        pass
    frame = build_dataframe(database, get_study(database, "digits"))
    assert len(frame) == 0
    assert {"number", "state", "value", "started_at"} <= set(frame.columns)
