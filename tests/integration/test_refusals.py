"""First runs that are refused: the study has failed with the reason, unless another process may run it."""

from __future__ import annotations

import optuna
import pytest
import sqlalchemy as sa

import tunesvc
from tests.support.specs import make_spec
from tunesvc.db import alerts, submissions
from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyWithoutSpec, TuneError, UnsatisfiableRequest
from tunesvc.execution.driver.ray_pool import ExecutorMaker
from tunesvc.execution.executor import Executor, Job
from tunesvc.runtime.run_study import StudySource, create
from tunesvc.spec import StudySpec

SPEC = make_spec(entrypoint=None)


def quadratic(x: float, n: int) -> float:
    return (x - 0.3) ** 2 + n


def refuse_with(reason: str) -> ExecutorMaker:
    def refuse(_job: Job, _spec: StudySpec) -> Executor:
        raise UnsatisfiableRequest(reason)

    return refuse


def run_refused(url: str, reason: str) -> None:
    with pytest.raises(UnsatisfiableRequest, match=reason):
        tunesvc.run(
            SPEC,
            function=quadratic,
            database_url=url,
            enqueue=[{"x": 0.5, "n": 2}],
            make_executor=refuse_with(reason),
            progress=False,
        )


def test_a_refused_study_with_enqueued_trials_does_not_keep_its_name(database_url: str) -> None:
    run_refused(database_url, "99 GPUs")
    study = tunesvc.load_study("test", database_url=database_url)
    assert (study.state, study.reason) == ("failed", "99 GPUs")
    run_refused(database_url, "98 GPUs")
    assert (study.state, study.reason) == ("failed", "98 GPUs")
    assert [trial.state for trial in study.trials] == ["waiting"]


def test_a_refused_study_raises_an_alert_and_its_replacement_has_not_ended(
    database: Database, database_url: str
) -> None:
    record = create(database, SPEC, StudySource())
    with database.engine.begin() as connection:
        alerts.add_target(connection, "ann", "json://example.org", study_id=record.study_id)
    run_refused(database_url, "99 GPUs")
    raised = sa.text("SELECT kind, text FROM alerts")
    with database.engine.begin() as connection:
        alerts.raise_alerts(connection)
        assert [tuple(row) for row in connection.execute(raised)] == [("failed", "99 GPUs")]
    ended: list[object] = []

    def see(_job: Job, _spec: StudySpec) -> Executor:
        with database.engine.connect() as connection:
            ended.append(connection.scalar(sa.text("SELECT ended_at FROM studies")))
        raise UnsatisfiableRequest("98 GPUs")

    with pytest.raises(UnsatisfiableRequest):
        tunesvc.run(SPEC, function=quadratic, database_url=database_url, make_executor=see)
    assert ended == [None]


def test_a_study_that_another_process_may_run_is_left_as_it_is(
    database: Database, database_url: str
) -> None:
    """Servers run what is submitted, Optuna what its API has made, and a notebook its function."""
    submitted = create(database, make_spec(name="submitted", entrypoint=None), StudySource())
    with database.engine.begin() as connection:
        submissions.submit(connection, submitted.study_id)
    spec = make_spec(name="submitted", entrypoint=None, resources={"gpu": 99})
    with pytest.raises(UnsatisfiableRequest):
        tunesvc.run(
            spec,
            function=quadratic,
            database_url=database_url,
            make_executor=refuse_with("99 GPUs"),
            progress=False,
        )
    optuna.create_study(study_name="optunas", storage=tunesvc.storage(database_url))
    create(database, make_spec(name="notebook", entrypoint=None), StudySource())
    problems = {"optunas": StudyWithoutSpec, "notebook": TuneError}
    for name, problem in problems.items():
        with pytest.raises(problem):
            tunesvc.load_study(name, database_url=database_url).resume(progress=False)
    found = [
        tunesvc.load_study(name, database_url=database_url) for name in ("submitted", *problems)
    ]
    assert [study.state for study in found] == ["queued", "created", "created"]
    assert [study.reason for study in found] == ["", "", ""]
