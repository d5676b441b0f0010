"""Trials on their way to trackers: each report once, each end once, whatever breaks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from tests.support import stored_studies
from tests.support.logger_senders import sender
from tests.support.recording_logger import RecordingLogger
from tunesvc.coordinator.progress_events import ProgressEvent, SilentObserver
from tunesvc.db import logger_records, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.integrations.loggers.logger_thread import LoggerThread
from tunesvc.integrations.loggers.trial_sender import TrialsNotSent
from tunesvc.runtime import logger_process
from tunesvc.runtime.logger_process import LoggerProcess, SendingOrder, logged
from tunesvc.spec.sections.components import Logger


@pytest.fixture
def study(database: Database) -> optuna.Study:
    """A study of this process, whose trials run as the test says."""
    return optuna.create_study(study_name="live", storage=PgStorage(database))


@pytest.fixture
def recorder(tmp_path: Path) -> RecordingLogger:
    return RecordingLogger(str(tmp_path / "recorded"))


def left(database: Database, place: str, name: str = "live") -> int:
    with database.engine.begin() as connection:
        study_id = study_records.find(connection, name).study_id
        return logger_records.count_unsent(connection, study_id, place)


# --- each once ------------------------------------------------------------------------------------


def test_a_running_trial_is_sent_as_it_reports_and_ends_once(
    database: Database, study: optuna.Study, recorder: RecordingLogger
) -> None:
    sending = sender(database, recorder)
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.0, 1.0)})
    trial.report(1.0, 1)
    sending.send_new()
    assert recorder.steps(0) == [1]
    trial.report(0.5, 3)
    trial.report(0.6, 2)  # late, but new
    sending.send_new()
    sending.send_new()
    assert recorder.steps(0) == [1, 2, 3]
    study.tell(trial, 0.25)
    for _ in range(3):
        sending.send_new()
    assert [line["state"] for line in recorder.lines(0) if "state" in line][-1] == "complete"
    assert recorder.lines(0)[-1]["result/value"] == 0.25
    assert recorder.steps(0) == [1, 2, 3]
    assert left(database, recorder.place) == 0


def test_another_process_continues_where_the_last_one_died(
    database: Database, study: optuna.Study, recorder: RecordingLogger
) -> None:
    trial = study.ask()
    trial.report(1.0, 1)
    sender(database, recorder).send_new()
    trial.report(0.5, 2)
    sender(database, recorder).send_new()
    study.tell(trial, 0.5)
    sender(database, recorder).send_new()
    sender(database, recorder).send_new()
    assert recorder.steps(0) == [1, 2]
    assert sum("opened" in line for line in recorder.lines(0)) == 1
    assert sum(line.get("state") == "complete" for line in recorder.lines(0)) == 1


def test_what_arrived_although_the_answer_was_lost_is_not_sent_again(
    database: Database, study: optuna.Study, recorder: RecordingLogger
) -> None:
    sending = sender(database, recorder)
    trial = study.ask()
    trial.report(1.0, 1)
    recorder.lose_answers = True
    with pytest.raises(TrialsNotSent, match="ConnectionError: the answer was lost"):
        sending.send_new()
    recorder.lose_answers = False
    trial.report(0.5, 2)
    sending.send_new()
    assert recorder.steps(0) == [1, 2]
    assert sum("opened" in line for line in recorder.lines(0)) == 1


def test_a_step_that_a_later_attempt_repeats_is_sent_once(
    database: Database, recorder: RecordingLogger
) -> None:
    """The checkpoint was at step 3; steps 4 and 5 come again, from the second attempt."""
    study_id = stored_studies.fill(database, 1, running=1, name="live")
    sending = sender(database, recorder)
    sending.send_new()
    assert recorder.steps(0) == [0, 1, 2, 3, 4, 5]
    with database.engine.begin() as connection:
        for text in (
            "UPDATE attempts SET state = 'lost' WHERE trial_id = :trial",
            "UPDATE reports SET superseded = true WHERE trial_id = :trial AND step > 3",
            "INSERT INTO attempts (trial_id, number, token, state) VALUES (:trial, 2, 1, 'running')",
            "INSERT INTO reports (trial_id, attempt, step, value) "
            "SELECT :trial, 2, step, 0.1 FROM generate_series(4, 7) step",
        ):
            connection.execute(sa.text(text), {"trial": study_id << 32})
    sending.send_new()
    sender(database, recorder).send_new()
    assert recorder.steps(0) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_refused_trial_does_not_keep_others_back(
    database: Database, study: optuna.Study, recorder: RecordingLogger
) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    recorder.refused = {1, 3}
    sending = sender(database, recorder)
    with pytest.raises(TrialsNotSent, match="trial 1 is refused"):
        sending.send_new()
    assert (sending.sent, left(database, recorder.place)) == (4, 2)
    recorder.refused = set()
    sending.send_new()
    assert left(database, recorder.place) == 0


def test_a_tracker_that_is_away_is_not_asked_for_every_trial(
    database: Database, study: optuna.Study, recorder: RecordingLogger
) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=20)
    sending = sender(database, recorder)
    calls: list[int] = []

    def refuse(*_: Any) -> str:
        calls.append(1)
        raise ConnectionError("away")

    recorder.send = refuse  # type: ignore[method-assign]
    with pytest.raises(TrialsNotSent):
        sending.send_new()
    assert len(calls) == 3


def test_a_failed_and_a_pruned_trial_have_their_reasons(
    database: Database, recorder: RecordingLogger
) -> None:
    study_id = stored_studies.fill(database, 20, running=0, name="live", tags=["mine"])
    with database.engine.begin() as connection:
        failing = {"trial": (study_id << 32) + 1}
        connection.execute(
            sa.text(
                """UPDATE trials SET state = 'fail', "values" = NULL WHERE trial_id = :trial"""
            ),
            failing,
        )
        connection.execute(
            sa.text(
                "UPDATE attempts SET state = 'failed', failure = 'gpu_oom', message = 'CUDA' "
                "WHERE trial_id = :trial"
            ),
            failing,
        )
        connection.execute(
            sa.text(
                "INSERT INTO decisions (study_id, trial_number, kind, reason) "
                "VALUES (:study, 19, 'prune', 'worse than half')"
            ),
            {"study": study_id},
        )
    sender(database, recorder).send_new()
    failed, pruned = recorder.lines(1)[-1], recorder.lines(19)[-1]
    assert (failed["state"], failed["tunesvc.failure"], failed["tunesvc.reason"]) == (
        "failed",
        "gpu_oom",
        "CUDA",
    )
    assert (pruned["state"], pruned["tunesvc.reason"]) == ("pruned", "worse than half")
    assert recorder.lines(0)[0]["opened"].keys() == {"x", "n"}


def test_a_place_gets_trials_from_one_process_at_a_time(database: Database) -> None:
    study_id = stored_studies.fill(database, 1)
    with database.engine.begin() as connection:
        first = logger_records.claim(connection, study_id, "here", "box:1")
        assert logger_records.claim(connection, study_id, "here", "box:2") is None
        assert logger_records.claim(connection, study_id, "here", "box:1") == first
        assert logger_records.claim(connection, study_id, "here", "box:2", "box:1") == first
        logger_records.release(connection, study_id, "here", "box:1")
        assert logger_records.claim(connection, study_id, "here", "box:1") is None
        logger_records.release(connection, study_id, "here", "box:2")
        assert logger_records.claim(connection, study_id, "here", "box:1") == first


# --- a tracker that is away -----------------------------------------------------------------------


@pytest.fixture
def following(
    database: Database, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[LoggerThread, list[str], threading.Event]]]:
    """Starts the thread that follows the study for the recorder in `tmp_path`."""
    monkeypatch.setattr("tunesvc.integrations.loggers.logger_thread.LOOK_S", 0.02)
    ending = threading.Event()
    entry = Logger.model_validate(
        {
            "name": "tests.support.recording_logger:RecordingLogger",
            "folder": str(tmp_path / "recorded"),
        }
    )

    def start() -> tuple[LoggerThread, list[str], threading.Event]:
        said: list[str] = []
        with database.engine.begin() as connection:
            study_id = study_records.find(connection, "live").study_id
        thread = LoggerThread(database, study_id, entry, said.append, ending)
        thread.start()
        return thread, said, ending

    yield start
    ending.set()


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come true")


def test_one_of_two_loggers_with_the_same_place_sends(
    database: Database,
    study: optuna.Study,
    recorder: RecordingLogger,
    following: Callable[[], tuple[LoggerThread, list[str], threading.Event]],
) -> None:
    """Different options may mean the same place."""
    first, _, _ = following()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    _until(lambda: first.sent == 1)
    second, said, _ = following()
    _until(lambda: bool(said))
    assert "another process or logger sends this study's trials there" in said[0]
    study.add_trial(optuna.trial.create_trial(value=2.0))
    _until(lambda: first.sent == 2)
    assert second.sent == 0
    assert [sum("opened" in line for line in recorder.lines(number)) for number in (0, 1)] == [1, 1]


def test_an_outage_is_said_once_and_what_was_missed_follows(
    study: optuna.Study,
    recorder: RecordingLogger,
    following: Callable[[], tuple[LoggerThread, list[str], threading.Event]],
) -> None:
    """The tracker is down from the start, comes up, and goes down in the middle."""
    recorder.folder.mkdir()
    down = recorder.folder / "down"
    trial = study.ask()
    trial.report(1.0, 1)
    recorder.refused = set()
    down.touch()
    thread, said, ending = following()
    _until(lambda: bool(said))
    trial.report(0.9, 2)
    down.unlink()
    _until(lambda: recorder.steps(0) == [1, 2])
    _until(lambda: len(said) == 2)
    down.touch()
    trial.report(0.8, 3)
    study.tell(trial, 0.8)
    _until(lambda: len(said) == 3)
    down.unlink()
    ending.set()
    _until(lambda: thread.is_done)
    assert recorder.steps(0) == [1, 2, 3]
    title = "tests.support.recording_logger:RecordingLogger at recorder"
    away, back = f"{title}: ConnectionError: connection refused", f"{title}: sending works again"
    assert said == [away, back, away, back]


# --- the process ----------------------------------------------------------------------------------


PROGRESS: Any = None
"""Recorders here look at no snapshot."""


class _Notes(SilentObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_event(self, event: ProgressEvent) -> None:
        self.notes += [event.text] if event.kind == "warning" else []


def test_a_run_sends_what_is_left_at_its_end(database: Database, tmp_path: Path) -> None:
    study_id = stored_studies.fill(database, 5, running=0, name="live")
    with database.engine.begin() as connection:
        record = study_records.get(connection, study_id)
    notes = _Notes()
    loggers = [Logger(name="tensorboard", logdir=str(tmp_path))]  # type: ignore[call-arg]
    with logged(database, record, loggers, notes, threading.Event()) as observer:
        observer.progress(PROGRESS)
    assert len(list((tmp_path / "live").iterdir())) == 5
    assert notes.notes == []


def _with_a_tracker_that_hangs(
    database: Database, recorder: RecordingLogger
) -> tuple[StudyRecord, Logger]:
    study_id = stored_studies.fill(database, 5, running=0, name="live")
    recorder.folder.mkdir()
    (recorder.folder / "hang").touch()
    entry = {
        "name": "tests.support.recording_logger:RecordingLogger",
        "folder": str(recorder.folder),
    }
    with database.engine.begin() as connection:
        return study_records.get(connection, study_id), Logger.model_validate(entry)


@pytest.mark.slow
def test_an_interrupted_run_does_not_wait_for_a_tracker_that_hangs(
    database: Database, tmp_path: Path, recorder: RecordingLogger
) -> None:
    """Every call hangs."""
    record, logger = _with_a_tracker_that_hangs(database, recorder)
    notes, interrupt = _Notes(), threading.Event()
    interrupt.set()
    with logged(database, record, [logger], notes, interrupt) as run:
        run.progress(PROGRESS)
        time.sleep(5)
        began = time.monotonic()
    assert time.monotonic() - began < sum(logger_process.INTERRUPTED_S) + 5
    assert "5 finished trials are not there yet; `tune send live` sends" in notes.notes[-1]
    (recorder.folder / "hang").unlink()
    order = SendingOrder.of(database, record, [logger], is_command=True)
    said: list[str] = []
    assert LoggerProcess(order, said.append).end(math.inf, 60)
    assert said[-1].endswith("5 finished trials sent, nothing is missing")
    assert [len(recorder.steps(number)) for number in range(5)] == [6] * 5


@pytest.mark.slow
def test_ctrl_c_while_trials_are_sent_at_the_end_shortens_the_wait(
    database: Database, tmp_path: Path, recorder: RecordingLogger
) -> None:
    record, logger = _with_a_tracker_that_hangs(database, recorder)
    notes, interrupt = _Notes(), threading.Event()
    with logged(database, record, [logger], notes, interrupt) as run:
        run.progress(PROGRESS)
        time.sleep(5)
        threading.Timer(1.0, interrupt.set).start()
        began = time.monotonic()
    assert time.monotonic() - began < min(logger_process.DRAIN_S) - 5
    assert "5 finished trials are not there yet; `tune send live` sends" in notes.notes[-1]


def test_a_process_that_dies_is_said(database: Database, tmp_path: Path) -> None:
    study_id = stored_studies.fill(database, 1, running=0, name="live")
    with database.engine.begin() as connection:
        record = study_records.get(connection, study_id)
    said: list[str] = []
    process = LoggerProcess(SendingOrder.of(database, record, []), said.append)
    process._process.kill()
    process._process.wait()
    assert process.has_ended
    assert not process.end(1, 1)
    assert said == ["loggers: their process has died; `tune send live` sends what is missing"]
