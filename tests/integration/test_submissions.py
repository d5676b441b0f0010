"""The queue of studies that servers run, on a real database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db import lease, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority, StudyState


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
    return [submission.study_id for submission in submissions.queued(connection, 10)]


def test_the_queue_is_ordered_by_priority_and_then_by_waiting_time(
    connection: sa.Connection,
) -> None:
    create(connection, "of tune run")
    first, second = submit(connection, "first"), submit(connection, "second")
    low, urgent = submit(connection, "l", Priority.LOW), submit(connection, "u", Priority.URGENT)
    assert queue(connection) == [urgent, first, second, low]
    assert [one.study_id for one in submissions.queued(connection, 1)] == [urgent]


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


def test_a_submission_goes_with_its_study(connection: sa.Connection) -> None:
    study = submit(connection, "a")
    study_records.remove(connection, study, "ada")
    assert submissions.get(connection, study) is None
