"""Two processes that want the same study: who waits, who takes over, who is told that it is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from tests.simulation import Recorder, quadratic
from tests.specs import make_spec
from tunesvc.assembly import Source, run_study
from tunesvc.coordinator.closing import Closing
from tunesvc.errors import StudyBusy
from tunesvc.execute.executor import Executor, Job
from tunesvc.execute.simulated import SimulatedExecutor, VirtualClock
from tunesvc.spec import StudySpec
from tunesvc.store import studies
from tunesvc.store.batch import Batch
from tunesvc.store.database import Database
from tunesvc.store.ledger import Ledger
from tunesvc.store.states import StudyState
from tunesvc.store.studies import StudyRecord


@pytest.fixture
def record(database: Database) -> StudyRecord:
    with database.engine.begin() as connection:
        return studies.create(connection, make_spec(budget={"trials": 5}), "", "studies")


def simulated(_job: Job, _spec: StudySpec) -> Executor:
    return SimulatedExecutor(quadratic, clock=VirtualClock(), slots=2)


def run(database: Database, record: StudyRecord, recorder: Recorder | None = None, *, standby: bool = False) -> Closing:
    return run_study(database, record, Source(), make_executor=simulated, observer=recorder, standby=standby)


@contextmanager
def held_by_another(database: Database, record: StudyRecord, last_batch: Batch | None = None) -> Iterator[Ledger]:
    """Somebody renews the study's lease, until the block ends: then they are gone without a word."""
    ledger, over = Ledger.open(database, record.study_id, owner="elsewhere:1", ttl_s=1.5), threading.Event()
    ledger.commit(Batch(study_state=(StudyState.RUNNING, "")))

    def renew() -> None:
        while not over.wait(0.1):
            ledger.commit(Batch())
        if last_batch is not None:
            ledger.commit(last_batch)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield ledger
    finally:
        over.set()
        thread.join()


def finished_trials(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM trials WHERE state = 'complete'")).scalar_one())


def test_a_study_that_somebody_runs_is_busy(database: Database, record: StudyRecord) -> None:
    """Fault 11."""
    with held_by_another(database, record), pytest.raises(StudyBusy, match=r"elsewhere:1 .* --standby"):
        run(database, record)


def test_the_lease_of_somebody_who_is_gone_is_waited_for(database: Database, record: StudyRecord) -> None:
    """As after a double Ctrl-C: `tune resume` at once need not be typed twice."""
    with held_by_another(database, record):
        pass
    recorder = Recorder()
    assert run(database, record, recorder).state is StudyState.FINISHED
    assert recorder.texts("phase")[0] == "waiting to see whether elsewhere:1 still runs the study"
    assert finished_trials(database) == 5


def test_a_standby_takes_over_when_the_other_is_gone(database: Database, record: StudyRecord) -> None:
    """Fault 11: it waits as long as it takes, and says for whom."""
    recorder, closings = Recorder(), []
    with held_by_another(database, record):
        thread = threading.Thread(target=lambda: closings.append(run(database, record, recorder, standby=True)))
        thread.start()
        waited = threading.Event()
        while not any("standing by for elsewhere:1" in text for text in recorder.texts("phase")):
            assert not waited.wait(0.05)
        assert finished_trials(database) == 0
    thread.join()
    assert [closing.state for closing in closings] == [StudyState.FINISHED]
    assert finished_trials(database) == 5


def test_a_standby_has_nothing_to_do_when_the_other_came_to_the_end(database: Database, record: StudyRecord) -> None:
    closings = []
    last = Batch(study_state=(StudyState.FINISHED, "all done"))
    recorder = Recorder()
    with held_by_another(database, record, last):
        thread = threading.Thread(target=lambda: closings.append(run(database, record, recorder, standby=True)))
        thread.start()
        waited = threading.Event()
        while not any("standing by" in text for text in recorder.texts("phase")):
            assert not waited.wait(0.05)
    thread.join()
    assert [closing.reason for closing in closings] == ["another coordinator brought it to its end"]
    assert finished_trials(database) == 0
