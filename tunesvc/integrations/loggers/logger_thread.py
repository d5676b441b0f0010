"""The thread that follows a study for one logger, in the process of `logger_main`."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tunesvc.db import logger_records
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.lease import default_owner
from tunesvc.errors import DatabaseUnavailable, StudyNotFound
from tunesvc.integrations.loggers.trial_logger import TrialLogger
from tunesvc.integrations.loggers.trial_sender import (
    TrialSender,
    TrialsNotSent,
    read_study,
    refusals,
)
from tunesvc.queries.change_token import fingerprint
from tunesvc.runtime.named_loggers import make_logger
from tunesvc.spec.sections.components import Logger

LOOK_S = 1.0
"""Interval of looking for changes of the study."""
RETRY_MAX_S = 30.0
"""Longest time until a tracker that was away is tried again."""


class LoggerThread:
    """Sends to one tracker until it should end and everything is sent.

    Args:
        database: where the study is.
        study_id: its id.
        entry: of its spec.
        say: shows a line to the user.
        ending: set when it should end.
        again: send also what the tracker should have.
    """

    def __init__(
        self,
        database: Database,
        study_id: int,
        entry: Logger,
        say: Callable[[str], None],
        ending: threading.Event,
        *,
        again: bool = False,
    ) -> None:
        self._database = database
        self._study_id = study_id
        self._entry = entry
        self._say = say
        self._ending = ending
        self._again = again
        self._owner = f"{default_owner()}/{id(self):x}"  # two may have the same place
        self._logger: TrialLogger | None = None
        self._sender: TrialSender | None = None
        self._seen = ""
        self._looked_at = time.monotonic()
        self.title = entry.name
        """Its name and, once it is known, its place: also what the database knows it by."""
        self.problem = ""
        """The reason that it cannot send now; empty if it can."""
        self.is_done = False
        """True once it should end and everything is sent."""
        self.is_busy = False
        """True while it sends, or waits for an answer."""
        self.has_failed_at_end = False
        """True if the last look, after which it should end, could not send everything."""
        self._thread = threading.Thread(target=self._run, name=entry.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """Time since it last sent something, or began to."""
        moved_at = 0.0 if self._sender is None else self._sender.moved_at
        return time.monotonic() - max(moved_at, self._looked_at)

    @property
    def sent(self) -> int:
        """Finished trials that it has sent."""
        return 0 if self._sender is None else self._sender.sent

    def renew(self) -> None:
        """Keep other processes from sending, also while a call hangs."""
        if self._sender is not None:
            self._claim()

    def count_unsent(self) -> int:
        """Return the number of finished trials that its place lacks."""
        with self._database.engine.connect() as connection:
            return logger_records.count_unsent(connection, self._study_id, self.title)

    def _run(self) -> None:
        wait_s = LOOK_S
        while not self.is_done:
            is_last = self._ending.is_set()  # before the look, which then sees everything
            try:
                self._look(is_last=is_last)
                self._report("")
                self.is_done, wait_s = is_last, LOOK_S
            except StudyNotFound:
                self.is_done = True
            except (TrialsNotSent, DatabaseUnavailable) as error:
                self._report(str(error))
                wait_s = min(RETRY_MAX_S, 2 * wait_s)
            except Exception as error:  # noqa: BLE001 - it is said, and other loggers continue
                self._report(f"{type(error).__name__}: {error}")
                wait_s = min(RETRY_MAX_S, 2 * wait_s)
            self.has_failed_at_end = is_last and not self.is_done
            if is_last:
                time.sleep(0 if self.is_done else LOOK_S)
            else:
                self._ending.wait(wait_s)
        self._close()

    def _look(self, *, is_last: bool) -> None:
        """Send what has changed since the last look, or failed then."""
        with translate_unavailable():
            seen = fingerprint(self._database, self._study_id)
            if seen == self._seen and not self.problem and not is_last:
                return
            sender = self._claimed()
            self._looked_at, self.is_busy = time.monotonic(), True
            try:
                sender.send_new()
            finally:
                self.is_busy = False
            self._seen = seen

    def _claimed(self) -> TrialSender:
        """Return the sender; open its tracker for the first time.

        Raises:
            TrialsNotSent: the tracker cannot be opened, or another process sends to it.
        """
        if self._logger is None:
            self._logger = self._opened()
        logger_id = self._claim()
        if logger_id is None:
            raise TrialsNotSent("another process or logger sends this study's trials there")
        if self._sender is None:
            if self._again:
                with self._database.engine.begin() as connection:
                    logger_records.forget(connection, logger_id)
            self._sender = TrialSender(self._database, self._study_id, self._logger, logger_id)
        return self._sender

    def _opened(self) -> TrialLogger:
        study = read_study(self._database, self._study_id)
        with refusals():
            logger: TrialLogger = make_logger(self._entry, Path.cwd())
            place = logger.open(study)
        self.title = f"{self._entry.name} at {place}"
        return logger

    def _claim(self) -> int | None:
        with self._database.engine.begin() as connection:
            held_by = logger_records.owner_of(connection, self._study_id, self.title)
            dead = held_by if held_by is not None and _has_died(held_by) else None
            return logger_records.claim(connection, self._study_id, self.title, self._owner, dead)

    def _report(self, problem: str) -> None:
        """Say once that a tracker is away, and once that it is back."""
        if problem and not self.problem:
            self._say(f"{self.title}: {problem}")
        if self.problem and not problem:
            self._say(f"{self.title}: sending works again")
        self.problem = problem

    def _close(self) -> None:
        with suppress(Exception):
            if self._logger is not None:
                self._logger.close()
            with self._database.engine.begin() as connection:
                logger_records.release(connection, self._study_id, self.title, self._owner)


def _has_died(owner: str) -> bool:
    """Return True if `host:pid/thread` was a process of this machine and is gone."""
    host, _, pid = owner.partition("/")[0].rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    return False
