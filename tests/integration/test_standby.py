"""Two processes that want the same study: one waits, takes over, or is refused because the study
is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from tests.support.simulation import Recorder, quadratic
from tests.support.specs import make_spec
from tunesvc import api
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db import lease, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import DatabaseUnavailable, ExecutorError, StudyBusy
from tunesvc.execution.executor import Executor, Job
from tunesvc.runtime import takeover
from tunesvc.runtime.run_study import StudySource, build_coordinator, end_workers, run_study
from tunesvc.runtime.takeover import stand_by
from tunesvc.spec import StudySpec
from tunesvc.testing.simulated_executor import SimulatedExecutor, VirtualClock


@pytest.fixture
def record(database: Database) -> StudyRecord:
    with database.engine.begin() as connection:
        return study_records.create(connection, make_spec(budget={"trials": 5}))


def simulated(_job: Job, _spec: StudySpec) -> Executor:
    return SimulatedExecutor(quadratic, clock=VirtualClock(), slots=2)


def run(
    database: Database,
    record: StudyRecord,
    recorder: Recorder | None = None,
    *,
    standby: bool = False,
) -> Shutdown:
    return run_study(
        database, record, StudySource(), make_executor=simulated, observer=recorder, standby=standby
    )


@contextmanager
def held_by_another(
    database: Database, record: StudyRecord, last_batch: StudyChanges | None = None
) -> Iterator[StudyWriter]:
    """Renew the study's lease as another process would, until the block ends without releasing
    it."""
    study_writer, over = (
        StudyWriter.open(database, record.study_id, owner="elsewhere:1", ttl_s=1.5),
        threading.Event(),
    )
    study_writer.commit(StudyChanges(study_state=(StudyState.RUNNING, "")))

    def renew() -> None:
        while not over.wait(0.1):
            study_writer.commit(StudyChanges())
        if last_batch is not None:
            study_writer.commit(last_batch)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield study_writer
    finally:
        over.set()
        thread.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a silent owner one second to come back."""
    monkeypatch.setattr(takeover, "BACK_S", 1.0)


def cut_off(database: Database, record: StudyRecord) -> StudyWriter:
    """A coordinator whose lease ran out while it could not reach the database."""
    study_writer = StudyWriter.open(database, record.study_id, owner="elsewhere:1")
    study_writer.commit(StudyChanges(study_state=(StudyState.RUNNING, "")))
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET expires_at = now() - interval '1 hour'"))
    return study_writer


def finished_trials(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(
            connection.execute(
                sa.text("SELECT count(*) FROM trials WHERE state = 'complete'")
            ).scalar_one()
        )


def test_a_study_with_a_coordinator_is_busy(database: Database, record: StudyRecord) -> None:
    """Fault 11."""
    with (
        held_by_another(database, record),
        pytest.raises(StudyBusy, match=r"elsewhere:1 .* --standby"),
    ):
        run(database, record)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_lease_of_an_owner_that_is_gone_is_waited_for(
    database: Database, record: StudyRecord
) -> None:
    """As after a double Ctrl-C: `tune resume` at once need not be typed twice."""
    with held_by_another(database, record):
        pass
    recorder = Recorder()
    assert run(database, record, recorder).state is StudyState.FINISHED
    assert recorder.texts("phase")[0] == "waiting to see whether elsewhere:1 still runs the study"
    assert finished_trials(database) == 5


def test_a_standby_takes_over_when_the_other_is_gone(
    database: Database, record: StudyRecord
) -> None:
    """Fault 11: it waits as long as necessary, and names the owner."""
    recorder, closings = Recorder(), []
    with held_by_another(database, record):
        thread = threading.Thread(
            target=lambda: closings.append(run(database, record, recorder, standby=True))
        )
        thread.start()
        waited = threading.Event()
        while not any("standing by for elsewhere:1" in text for text in recorder.texts("phase")):
            assert not waited.wait(0.05)
        assert finished_trials(database) == 0
    thread.join()
    assert [closing.state for closing in closings] == [StudyState.FINISHED]
    assert finished_trials(database) == 5


def test_a_standby_has_nothing_to_do_when_the_other_came_to_the_end(
    database: Database, record: StudyRecord
) -> None:
    closings = []
    last = StudyChanges(study_state=(StudyState.FINISHED, "all done"))
    recorder = Recorder()
    with held_by_another(database, record, last):
        thread = threading.Thread(
            target=lambda: closings.append(run(database, record, recorder, standby=True))
        )
        thread.start()
        waited = threading.Event()
        while not any("standing by" in text for text in recorder.texts("phase")):
            assert not waited.wait(0.05)
    thread.join()
    assert [closing.reason for closing in closings] == ["another coordinator brought it to its end"]
    assert finished_trials(database) == 0


@pytest.mark.parametrize("kind", ["stop", "rm", "resume"])
def test_a_coordinator_that_was_cut_off_from_the_database_gets_a_while_to_come_back(
    database: Database,
    record: StudyRecord,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Fault 40: its lease has run out, and it lives."""
    study_writer = cut_off(database, record)
    looked = threading.Event()
    look = takeover._holder

    def come_back(database: Database, study_id: int) -> lease.LeaseHolder | None:
        held = look(database, study_id)
        if not looked.is_set():
            looked.set()
            study_writer.commit(StudyChanges())
        return held

    monkeypatch.setattr(takeover, "_holder", come_back)
    if kind == "stop":
        answer = api.load_study(record.name, database_url=database_url).stop()
        assert answer == f"stop {record.name}: the coordinator elsewhere:1 carries it out"
        assert [command.kind for command in study_writer.commands()] == ["stop"]
    else:
        with pytest.raises(StudyBusy, match="elsewhere:1"):
            api.delete_study(record.name, database_url=database_url) if kind == "rm" else run(
                database, record
            )
    assert looked.is_set()
    study_writer.commit(StudyChanges())


@pytest.mark.usefixtures("quick")
def test_a_coordinator_that_does_not_come_back_is_not_waited_for_long(
    database: Database, record: StudyRecord, database_url: str
) -> None:
    cut_off(database, record)
    assert (
        api.load_study(record.name, database_url=database_url).stop()
        == "stopped; no coordinator was running it"
    )
    assert api.delete_study(record.name, database_url=database_url) == f"deleted {record.name}"


def test_a_standby_leaves_a_study_to_its_coordinator_after_an_outage(
    database: Database, record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come back to a lease that has run out, and the standby looks more often."""
    study_writer = cut_off(database, record)
    outages = [DatabaseUnavailable("gone"), DatabaseUnavailable("gone")]
    find = study_records.find

    def find_unless_away(connection: sa.Connection, name: str) -> StudyRecord:
        if outages:
            raise outages.pop()
        return find(connection, name)

    monkeypatch.setattr(study_records, "find", find_unless_away)
    recorder, over, taken = Recorder(), threading.Event(), []
    thread = threading.Thread(
        target=lambda: taken.append(stand_by(database, record, recorder, over))
    )
    thread.start()
    while "standing by for elsewhere:1, which runs the study now" not in recorder.texts("phase"):
        assert thread.is_alive()
        over.wait(0.01)
    study_writer.commit(StudyChanges())
    over.set()
    thread.join()
    assert taken == [None]


def test_a_stop_that_is_asked_for_while_the_study_is_being_taken_up_is_meant(
    database: Database, record: StudyRecord
) -> None:
    """Requests that waited before were meant for an earlier run; those after the lease was taken
    are meant for this one."""
    with database.engine.begin() as connection:
        study_records.request(connection, record.study_id, "stop", {}, "earlier")
    study_writer = StudyWriter.open(database, record.study_id)
    with database.engine.begin() as connection:
        study_records.request(connection, record.study_id, "stop", {}, "later")
    executor = SimulatedExecutor(quadratic, clock=VirtualClock(), slots=2)
    closing = build_coordinator(database, record.name, study_writer, executor).run()
    assert closing.state is StudyState.STOPPED
    assert finished_trials(database) == 0
    assert list(study_writer.commands()) == []


def test_workers_of_a_coordinator_that_is_gone_are_ended_or_reported(
    database: Database, record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SimulatedExecutor] = []

    def make(_job: Job, _spec: StudySpec) -> Executor:
        made.append(SimulatedExecutor(quadratic, clock=VirtualClock(), slots=2))
        return made[-1]

    def refuse(_job: Job, _spec: StudySpec) -> Executor:
        raise ExecutorError("the Ray cluster at head:6379 cannot be reached")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert end_workers(database, record, 2, make) == ""
    assert not made
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert (
        end_workers(database, record, 2, make)
        == "; what it had left on the cluster at head:6379 is ended"
    )
    answer = end_workers(database, record, 2, refuse)
    assert "could not be ended (the Ray cluster at head:6379 cannot be reached)" in answer
    assert "end by themselves after 3600 s" in answer
