"""Takes studies from the queue, and shares out the cluster among those that this server runs.

Several servers look at the same queue. The lease decides which of them runs a study; the others
notice and drop it. So a server records nothing about itself that another one needs.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable
from tunesvc.instrumentation import failpoints
from tunesvc.runtime.takeover import BACK_S
from tunesvc.service.cluster_sharing import ClusterSharing, Sharing
from tunesvc.service.queue_watch import QueueWatch
from tunesvc.service.served_study import ServedStudy
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

STUDIES_MAX = 20
"""Most studies that a server runs at a time, by default."""
LOOK_S = 1.0
"""Interval of looking at the queue without a notification of a change."""
TAKE_S = 0.1
"""The same after a study was taken, as more may wait."""
LOAD_S = 0.05
"""Added for each running study, so that the server with the fewest is mostly the first."""
IDLE_S = 60.0
"""Time without a study after which the server gives its Rays back."""
FROZEN_S = 60.0
"""A step takes no longer, even with a slow database."""


class Serve(Protocol):
    """Makes the run of a study."""

    def __call__(
        self,
        study_id: int,
        *,
        interrupt: threading.Event,
        back_s: float,
    ) -> ServedStudy:
        """Return the run; for the arguments see `ServedStudy`."""
        ...


class StudySupervisor:
    """Takes studies until it is stopped.

    Args:
        database: database of the queue; the caller closes it.
        serve: makes the runs.
        studies_max: most studies at a time.
        on_idle: called when no study has run for `IDLE_S`, once until the next one runs.
    """

    def __init__(
        self,
        database: Database,
        serve: Serve,
        *,
        studies_max: int = STUDIES_MAX,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._serve = serve
        self._studies_max = studies_max
        self._on_idle = on_idle
        self._busy_s: float | None = None
        """Last time that a study ran; None if none has since `on_idle`."""
        self._sharing = ClusterSharing(database)
        self._served: dict[int, ServedStudy] = {}
        self._interrupt = threading.Event()
        self._stepped_s = time.monotonic()
        self._reached_s: float | None = None
        """Time since which the database has answered each step."""
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def running(self) -> int:
        """Number of studies that it runs, or is about to run."""
        return sum(study.is_alive for study in list(self._served.values()))

    @property
    def problem(self) -> str:
        """Reason why it takes no studies; empty if it does."""
        if self._interrupt.is_set():
            return "the server is shutting down"
        if not self._thread.is_alive():
            return "the supervisor has ended"
        silent_s = time.monotonic() - self._stepped_s
        if silent_s > FROZEN_S:
            return f"the supervisor has done nothing for {silent_s:.0f} s"
        return self._problem

    def start(self) -> None:
        """Take studies in a thread, until `stop`."""
        self._thread.start()

    def request_stop(self) -> None:
        """Take no more studies, and interrupt the running ones. Returns at once; repeatable."""
        self._interrupt.set()

    def stop(self) -> None:
        """Stop, and wait until all studies are handed over or have stopped. Repeatable."""
        self.request_stop()
        if self._thread.is_alive():
            self._thread.join()
        for study in self._served.values():
            study.join()

    def step(self) -> bool:
        """Share out the cluster, and take the next study; return False if there was none."""
        sharing = self.share_out()
        if sharing is None or len(self._served) >= self._studies_max:
            return False
        waiting = (id_ for id_ in sharing.startable if id_ not in self._served)
        taken = next(waiting, None)
        if taken is None:
            return False
        failpoints.reach("taking")
        reached_s = self._stepped_s if self._reached_s is None else self._reached_s
        back_s = max(0.0, BACK_S - (time.monotonic() - reached_s))
        self._served[taken] = self._serve(taken, interrupt=self._interrupt, back_s=back_s)
        self._served[taken].start()
        return True

    def share_out(self) -> Sharing | None:
        """Give the running studies their parts of the cluster; None while the database is away."""
        self._stepped_s = time.monotonic()
        self._served = {id_: study for id_, study in self._served.items() if study.is_alive}
        self._look_for_idleness()
        try:
            with translate_unavailable():
                sharing = self._sharing.update(self._served.keys())
        except DatabaseUnavailable as error:
            self._on_outage(error)
            return None
        self._problem = ""
        if self._reached_s is None:
            self._reached_s = self._stepped_s
        for study_id, grant in sharing.grants.items():
            self._served[study_id].apply(grant)
        return sharing

    def _run(self) -> None:
        watch = QueueWatch(self._database, self._interrupt)
        while not self._interrupt.is_set():
            has_taken = self._try(self.step)
            load_s = LOAD_S * len(self._served)
            # Spread, so that servers that started together do not look at the same time.
            spread = random.uniform(0.5, 1.5)  # noqa: S311  # no secret
            if watch.wait(((TAKE_S if has_taken else LOOK_S) + load_s) * spread) and load_s:
                # Trials make room for an urgent study, whichever server takes it.
                self._try(self.share_out)
                self._interrupt.wait(load_s * spread)
        watch.close()

    def _try(self, do: Callable[[], object]) -> bool:
        """Return what `do` returns, as a truth; False after a fault.

        A fault of one step must not end the server; the next one may do better.
        """
        try:
            return bool(do())
        except Exception as error:
            _logger.exception("the queue cannot be looked at")
            self._problem = f"{type(error).__name__}: {error}"
            self._reached_s = None
            return False

    def _look_for_idleness(self) -> None:
        if self._served:
            self._busy_s = self._stepped_s
        elif self._busy_s is not None and self._stepped_s - self._busy_s >= IDLE_S:
            self._busy_s = None
            self._on_idle()

    def _on_outage(self, error: DatabaseUnavailable) -> None:
        if not self._problem:
            _logger.warning("the queue cannot be read: %s", error)
        self._problem = f"the database is away: {error}"
        self._reached_s = None
        # An embedded server that has died is started again.
        self._database.ensure_running()
