"""Whose turn it is to run a study: who runs it now, waiting until nobody does, standing by to take over."""

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
"""How often one looks whether the lease is free."""
BACK_S = 6.0
"""A coordinator that was cut off from the database tries again every 5 s: one that lives is back by then."""


def runner(
    database: Database,
    study_id: int,
    interrupt: threading.Event | None = None,
    *,
    patience_s: float | None = None,
    on_wait: Callable[[LeaseHolder], None] = lambda held: None,
) -> LeaseHolder | None:
    """Who runs a study now, or None when nobody does.

    A coordinator whose lease ran out may have been cut off from the database: it gets `patience_s` to come back.
    """
    interrupt = interrupt or threading.Event()
    deadline_s = time.monotonic() + (BACK_S if patience_s is None else patience_s)
    while not interrupt.is_set():
        held = _holder(database, study_id)
        if held is None or held.released:
            return None
        if held.live:
            return held
        on_wait(held)
        if time.monotonic() >= deadline_s:
            return None
        interrupt.wait(LOOK_S)
    return None


def await_end(database: Database, record: StudyRecord, observer: Observer, interrupt: threading.Event) -> None:
    """Wait until it is certain that nobody runs a study.

    Raises:
        StudyBusy: somebody does: it renews its lease.
    """
    first: LeaseHolder | None = None

    def tell(held: LeaseHolder) -> None:
        nonlocal first
        if first is None:
            first = held
            observer.on_event(ProgressEvent("phase", f"waiting to see whether {held.owner} still runs the study"))

    began_s = time.monotonic()
    while not interrupt.is_set():
        left_s = max(0.0, BACK_S - (time.monotonic() - began_s))
        held = runner(database, record.study_id, interrupt, patience_s=left_s, on_wait=tell)
        if held is None:
            return
        tell(held)
        if held != first:
            raise StudyBusy(lease.busy_message(held.owner))
        interrupt.wait(LOOK_S)


def stand_by(
    database: Database, record: StudyRecord, observer: Observer, interrupt: threading.Event
) -> StudyWriter | None:
    """Wait until nobody runs a study any more, and take its lease; None when it is over by then.

    A study that nobody runs at the start is taken at once, whatever its state. After an outage of the database, which
    leases run out in, whoever ran it gets a while to renew.
    """
    told = ""
    patient_until_s = 0.0
    while not interrupt.is_set():
        try:
            with translate_unavailable(), database.engine.connect() as connection:
                state = study_records.find(connection, record.name).state
                held = lease.holder(connection, record.study_id)
            if told and state not in (StudyState.CREATED, StudyState.RUNNING):
                return None
            is_silent = held is not None and not held.live and not held.released
            if held is None or held.released or (is_silent and time.monotonic() >= patient_until_s):
                return StudyWriter.open(database, record.study_id)
            waiting = f"standing by for {held.owner}, which runs the study now"
        except StudyBusy:
            continue  # another standby was faster
        except DatabaseUnavailable as error:
            waiting = f"standing by; the database is away: {error}"
            patient_until_s = time.monotonic() + BACK_S
        if waiting != told:
            observer.on_event(ProgressEvent("phase", waiting))
            told = waiting
        interrupt.wait(LOOK_S)
    return None


def _holder(database: Database, study_id: int) -> LeaseHolder | None:
    with translate_unavailable(), database.engine.connect() as connection:
        return lease.holder(connection, study_id)
