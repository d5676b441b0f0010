"""Leases and batches on the real database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db import lease, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.notifications import Listener
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_changes import LaunchRecord, Report, StartRecord, StudyChanges
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Attr, Decision, NewTrial, TrialEnd
from tunesvc.errors import BadName, LeaseLost, StudyBusy, StudyExists, StudyNotFound
from tunesvc.util.characters import storable


@pytest.fixture
def record(database: Database) -> StudyRecord:
    with database.engine.begin() as connection:
        return study_records.create(connection, make_spec(), "name: test", "studies")


def count(database: Database, table: str) -> int:
    with database.engine.connect() as connection:
        return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())


def expire(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET expires_at = now() - interval '1 second'"))


def one_trial() -> StudyChanges:
    return StudyChanges(
        trials=[NewTrial(0, "running")],
        opened=[LaunchRecord(0, 1, 1.0, 0.0, -1, 60.0)],
        decisions=[Decision(0, "ask", "because", {"loss": float("nan")})],
    )


def test_a_study_is_stored_with_its_spec_and_source(
    database: Database, record: StudyRecord
) -> None:
    assert record.spec == make_spec()
    assert (record.source_text, record.source_dir, record.state) == (
        "name: test",
        "studies",
        StudyState.CREATED,
    )


def test_a_name_is_taken_once(database: Database, record: StudyRecord) -> None:
    with database.engine.begin() as connection:
        with pytest.raises(StudyExists, match="test"):
            study_records.create(connection, make_spec())
        assert study_records.find(connection, "test").study_id == record.study_id


def test_a_study_that_is_not_there_is_named_with_the_nearest_one(
    database: Database, record: StudyRecord
) -> None:
    with (
        database.engine.connect() as connection,
        pytest.raises(StudyNotFound, match="did you mean 'test'"),
    ):
        study_records.find(connection, "tset")


def test_a_lease_is_held_by_one_and_its_token_grows_with_every_change_of_hands(
    database: Database, record: StudyRecord
) -> None:
    first = StudyWriter.open(database, record.study_id, owner="alice:1")
    with pytest.raises(StudyBusy, match="alice:1"):
        StudyWriter.open(database, record.study_id, owner="bob:2")
    first.release()
    second = StudyWriter.open(database, record.study_id, owner="bob:2")
    assert second.token == first.token + 1


def test_a_listener_hears_that_a_lease_was_released(
    database: Database, record: StudyRecord
) -> None:
    study_writer = StudyWriter.open(database, record.study_id)
    listener = Listener(database)
    study_writer.release()
    assert listener.wait(60.0) == {record.study_id}
    listener.close()


def test_an_expired_lease_can_be_taken_and_its_holder_writes_no_more(
    database: Database, record: StudyRecord
) -> None:
    frozen = StudyWriter.open(database, record.study_id, owner="frozen")
    expire(database)
    StudyWriter.open(database, record.study_id, owner="heir")
    with pytest.raises(LeaseLost):
        frozen.commit(one_trial())
    assert count(database, "trials") == 0


def test_an_expired_lease_that_was_not_taken_is_renewed_by_writing(
    database: Database, record: StudyRecord
) -> None:
    study_writer = StudyWriter.open(database, record.study_id)
    expire(database)
    study_writer.commit(one_trial())
    with database.engine.connect() as connection:
        held = lease.holder(connection, record.study_id)
    assert held is not None
    assert held.live


def test_a_batch_whose_answer_was_lost_is_not_written_twice(
    database: Database, record: StudyRecord
) -> None:
    """Fault 6: the retry finds that its batch number has been committed."""
    with database.engine.begin() as connection:
        taken = lease.acquire(connection, record.study_id, "me")
    StudyWriter(database, taken).commit(one_trial())
    StudyWriter(database, taken).commit(one_trial())
    assert (count(database, "trials"), count(database, "decisions")) == (1, 1)


def test_a_batch_is_written_whole_or_not_at_all(database: Database, record: StudyRecord) -> None:
    study_writer = StudyWriter.open(database, record.study_id)
    study_writer.commit(one_trial())
    batch = StudyChanges(trials=[NewTrial(1, "running")], finished=[TrialEnd(7, "complete", [1.0])])
    with pytest.raises(LeaseLost, match="7"):
        study_writer.commit(batch)
    assert count(database, "trials") == 1


def test_a_trial_reaches_one_terminal_state(database: Database, record: StudyRecord) -> None:
    study_writer = StudyWriter.open(database, record.study_id)
    study_writer.commit(one_trial())
    study_writer.commit(StudyChanges(finished=[TrialEnd(0, "complete", [0.5])]))
    with pytest.raises(LeaseLost):
        study_writer.commit(StudyChanges(finished=[TrialEnd(0, "fail", None)]))


def test_reports_are_taken_from_live_attempts_only_and_once(
    database: Database, record: StudyRecord
) -> None:
    study_writer = StudyWriter.open(database, record.study_id)
    study_writer.commit(one_trial())
    report = Report(0, 1, 3, 0.5, {"acc": float("inf")})
    study_writer.commit(
        StudyChanges(
            started=[StartRecord(0, 1, "node", 7, ("0", "1"), "abc")], reports=[report, report]
        )
    )
    study_writer.commit(
        StudyChanges(reports=[report, Report(0, 2, 4, 0.1, {}), Report(9, 1, 4, 0.1, {})])
    )
    with database.engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT attempt, step, value, metrics->>'acc' FROM reports")
        ).all()
        devices = connection.execute(sa.text("SELECT devices FROM attempts")).scalar_one()
    assert rows == [(1, 3, 0.5, "Infinity")]
    assert devices == ["0", "1"]


@pytest.mark.parametrize(
    "text",
    ["'; DROP TABLE trials; --", "%s %(x)s :study", "a\x00b", "名前 \u202e", "x" * 600, "\ud800"],
)
def test_any_text_is_stored_inert(database: Database, record: StudyRecord, text: str) -> None:
    """Faults 36 and 39."""
    study_writer = StudyWriter.open(database, record.study_id)
    batch = one_trial()
    batch.decisions.append(Decision(None, "stop", text, {text: text}))
    batch.attrs.append(Attr(None, "user", storable(text), "1"))
    study_writer.commit(batch)
    with database.engine.connect() as connection:
        reason = connection.execute(
            sa.text("SELECT reason FROM decisions WHERE kind = 'stop'")
        ).scalar_one()
    assert reason == storable(text)


def test_an_unanswered_transaction_is_retried(database: Database, record: StudyRecord) -> None:
    """Fault 4: the connection is dropped under a study writer, between two batches."""
    study_writer = StudyWriter.open(database, record.study_id)
    study_writer.commit(one_trial())
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()""")
        )
    study_writer.commit(StudyChanges(finished=[TrialEnd(0, "complete", [0.5])]))
    assert count(database, "trials WHERE state = 'complete'") == 1


def test_a_name_that_postgres_cannot_store_is_refused_in_words(database: Database) -> None:
    """Fault 39."""
    with database.engine.connect() as connection, pytest.raises(BadName, match="NUL"):
        study_records.find(connection, "a\x00b")
