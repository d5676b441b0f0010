"""The queue of studies that servers run, on a real database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db import lease, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority, StudyState
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.operations.shared_demand import get_cluster_demand
from tunesvc.queries.rows import StudyStatus
from tunesvc.queries.studies import get_study, list_queue, list_studies
from tunesvc.runtime import study_requests


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.engine.begin() as connection:
        yield connection


def create(connection: sa.Connection, name: str) -> int:
    return study_records.create(connection, make_spec(name=name)).study_id


def submit(connection: sa.Connection, name: str, priority: Priority = Priority.NORMAL) -> int:
    study = create(connection, name)
    submissions.submit(connection, study, priority=priority, submitted_by="ada")
    # now() is the transaction's start
    connection.execute(
        sa.text("UPDATE submissions SET queued_at = clock_timestamp() WHERE study_id = :study"),
        {"study": study},
    )
    return study


def queue(connection: sa.Connection) -> list[int]:
    """The studies that a server may take, in the order in which they were queued."""
    demanded = get_cluster_demand(connection).studies
    return [one.study_id for one in demanded if not one.is_attended]


def test_the_queue_is_ordered_by_priority_and_then_by_waiting_time(database: Database) -> None:
    with database.engine.begin() as connection:
        create(connection, "of tune run")
        submit(connection, "first")
        submit(connection, "second")
        submit(connection, "low", Priority.LOW)
        submit(connection, "urgent", Priority.URGENT)
    queued = [row.name for row in list_queue(database)]
    assert queued == ["urgent", "first", "second", "low"]


def test_a_study_waits_while_it_should_run_and_no_coordinator_holds_it(
    connection: sa.Connection,
) -> None:
    study = submit(connection, "a")
    taken = lease.acquire(connection, study, "server:1")
    assert queue(connection) == []
    lease.release(connection, taken)
    assert queue(connection) == [study]
    for state in StudyState:
        connection.execute(
            sa.text("UPDATE studies SET state = :state, ended_at = now()"), {"state": state}
        )
        should_run = state in (StudyState.CREATED, StudyState.RUNNING)
        assert queue(connection) == ([study] if should_run else [])


def test_a_study_that_is_queued_again_runs_again(connection: sa.Connection) -> None:
    study, other = submit(connection, "a"), create(connection, "of tune run")
    connection.execute(sa.text("UPDATE studies SET state = 'finished', ended_at = now()"))
    assert submissions.requeue(connection, study)
    assert queue(connection) == [study]
    assert study_records.get(connection, study).state is StudyState.RUNNING
    assert not submissions.requeue(connection, other)
    assert study_records.get(connection, other).state is StudyState.FINISHED


def test_a_study_that_cannot_start_is_tried_again_each_time_less_soon(
    connection: sa.Connection,
) -> None:
    study = submit(connection, "a")
    waits = []
    for _ in range(9):
        submissions.fail(connection, study, "there is no folder /x")
        assert queue(connection) == []
        waits.append(
            connection.scalar(
                sa.text("SELECT extract(epoch FROM retry_at - now())::int FROM submissions")
            )
        )
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    found = submissions.get(connection, study)
    assert found is not None
    assert found.problem == "there is no folder /x"
    submissions.succeed(connection, study)
    found = submissions.get(connection, study)
    assert found is not None
    assert (found.problem, found.retry_at) == ("", None)
    submissions.fail(connection, study, "again")
    submissions.requeue(connection, study)
    assert queue(connection) == [study]


def test_a_study_that_is_submitted_again_gets_the_new_values(connection: sa.Connection) -> None:
    study = submit(connection, "a")
    provenance = {"commit": "abc", "dirty": False}
    submissions.submit(
        connection, study, priority=Priority.HIGH, submitted_by="bob", provenance=provenance
    )
    found = submissions.get(connection, study)
    assert found is not None
    assert (found.priority, found.submitted_by, found.provenance) == ("high", "bob", provenance)
    assert submissions.get(connection, study + 1) is None


def test_a_study_that_waits_already_keeps_its_place(connection: sa.Connection) -> None:
    first, second = submit(connection, "first"), submit(connection, "second")
    submissions.requeue(connection, first)
    assert queue(connection) == [first, second]


def test_a_submission_goes_with_its_study(connection: sa.Connection) -> None:
    study = submit(connection, "a")
    study_records.remove(connection, study, "ada")
    assert submissions.get(connection, study) is None


def test_a_waiting_study_is_shown_as_queued_with_its_place_and_reason(database: Database) -> None:
    with database.engine.begin() as connection:
        first, second = submit(connection, "first"), submit(connection, "second")
        create(connection, "of tune run")
    queue = list_queue(database)
    assert [(row.name, row.state, row.queued and row.queued.position) for row in queue] == [
        ("first", StudyStatus.QUEUED, 1),
        ("second", StudyStatus.QUEUED, 2),
    ]
    assert list_queue(database, among=StudyScope(frozenset())) == ()
    assert get_study(database, "of tune run").submission is None
    with database.engine.begin() as connection:
        lease.acquire(connection, first, "server:1")
        submissions.fail(connection, second, "there is no folder /x")
    assert get_study(database, "first").queued is None
    queued = get_study(database, "second").queued
    assert queued is not None
    assert queued.position == 1
    assert queued.reason.startswith("it could not be started: there is no folder /x; next try ")
    assert [row.name for row in list_studies(database, states=[StudyStatus.QUEUED])] == ["second"]


def test_a_study_whose_server_died_is_queued_with_that_reason(database: Database) -> None:
    with database.engine.begin() as connection:
        study = submit(connection, "a")
        lease.acquire(connection, study, "server:1", ttl_s=-1.0)
    queued = get_study(database, "a").queued
    assert queued is not None
    assert queued.reason == "server:1 gives no sign of life: another server takes it"


@pytest.mark.parametrize(
    ("state", "kind", "is_queued"),
    [
        (StudyState.FINISHED, "resume", True),
        (StudyState.FINISHED, "extend", True),
        (StudyState.FAILED, "enqueue", True),
        (StudyState.PAUSED, "resume", True),
        (StudyState.PAUSED, "extend", False),
        (StudyState.FINISHED, "parallelism", False),
    ],
)
def test_requests_queue_a_submitted_study_again(
    database: Database, state: StudyState, kind: str, *, is_queued: bool
) -> None:
    with database.engine.begin() as connection:
        study = submit(connection, "a")
        connection.execute(
            sa.text("UPDATE studies SET state = :state, ended_at = now()"), {"state": state}
        )
    payload = {
        "resume": {},
        "extend": {"trials": 5},
        "parallelism": {"trials": 2},
        "enqueue": {"params": {"x": 0.5, "n": 2}, "origin": "by hand"},
    }
    answer = study_requests.request(database, study, kind, payload[kind], "ada")
    assert ("queued" in answer) == is_queued
    assert (get_study(database, "a").queued is not None) == is_queued
