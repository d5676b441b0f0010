"""Waiting for a study's lease: find its holder, wait for its end, stand by to take over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.db import lease, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.lease import LeaseHolder
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import DatabaseUnavailable, StudyBusy

LOOK_S = 0.5
"""Interval of looking whether the lease is free."""
BACK_S = 6.0
"""Time within which a live coordinator reconnects to the database: it retries every 5 s."""


def runner(
    database: Database,
    study_id: int,
    interrupt: threading.Event | None = None,
    *,
    timeout_s: float | None = None,
    on_wait: Callable[[LeaseHolder], None] = lambda holder: None,
) -> LeaseHolder | None:
    """Return the holder of a study's lease, or None when no process runs it.

    A coordinator with an expired lease may have lost its connection to the database: it gets
    `timeout_s` to come back.
    """
    interrupt = interrupt or threading.Event()
    deadline_s = time.monotonic() + (BACK_S if timeout_s is None else timeout_s)
    while not interrupt.is_set():
        holder = _holder(database, study_id)
        if holder is None or holder.released:
            return None
        if holder.live:
            return holder
        on_wait(holder)
        if time.monotonic() >= deadline_s:
            return None
        interrupt.wait(LOOK_S)
    return None


def await_end(
    database: Database,
    record: StudyRecord,
    observer: Observer,
    interrupt: threading.Event,
    back_s: float = BACK_S,
) -> None:
    """Wait until it is certain that no process runs a study.

    Args:
        database: where it is stored.
        record: the study.
        observer: is shown what is waited for.
        interrupt: ends the wait.
        back_s: time that a coordinator with an expired lease gets to come back.

    Raises:
        StudyBusy: another process runs it and renews its lease.
    """
    first: LeaseHolder | None = None

    def report(holder: LeaseHolder) -> None:
        nonlocal first
        if first is None:
            first = holder
            text = f"waiting to see whether {holder.owner} still runs the study"
            observer.on_event(ProgressEvent("phase", text))

    began_s = time.monotonic()
    while not interrupt.is_set():
        left_s = max(0.0, back_s - (time.monotonic() - began_s))
        holder = runner(
            database,
            record.study_id,
            interrupt,
            timeout_s=left_s,
            on_wait=report,
        )
        if holder is None:
            return
        report(holder)
        if holder != first:
            raise StudyBusy(lease.busy_message(holder.owner))
        interrupt.wait(LOOK_S)


def stand_by(
    database: Database,
    record: StudyRecord,
    observer: Observer,
    interrupt: threading.Event,
) -> StudyWriter | None:
    """Wait until no process runs a study, and take its lease; None when it has ended by then.

    A study that no process runs at the start is taken at once, in any state. After an outage of the
    database, during which leases run out, the former holder gets time to renew.
    """
    reported = ""
    wait_until_s = 0.0
    while not interrupt.is_set():
        try:
            with translate_unavailable(), database.engine.connect() as connection:
                state = study_records.find(connection, record.name).state
                holder = lease.holder(connection, record.study_id)
            if reported and state not in (StudyState.CREATED, StudyState.RUNNING):
                return None
            if holder is None or holder.released:
                return StudyWriter.open(database, record.study_id)
            if not holder.live and time.monotonic() >= wait_until_s:
                return StudyWriter.open(database, record.study_id)
            text = f"standing by for {holder.owner}, which runs the study now"
        except StudyBusy:
            continue  # Another standby was faster.
        except DatabaseUnavailable as error:
            text = f"standing by; the database is away: {error}"
            wait_until_s = time.monotonic() + BACK_S
        if text != reported:
            observer.on_event(ProgressEvent("phase", text))
            reported = text
        interrupt.wait(LOOK_S)
    return None


def _holder(database: Database, study_id: int) -> LeaseHolder | None:
    with translate_unavailable(), database.engine.connect() as connection:
        return lease.holder(connection, study_id)
