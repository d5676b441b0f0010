"""Workers that others have started: those of an earlier coordinator are found, and taken over or ended.

Whoever has been overtaken may start some even later. They are ended as they turn up; if it is we who have been, we step
back. Imports Ray for the error of a worker out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ray.exceptions import ActorUnavailableError

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.ray.dispatch_state import PollingTimeouts, WorkerState
from tunesvc.execution.ray.worker_backend import WorkerBackend, WorkerHandle
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.execution.worker.worker_protocol import AdoptResponse
from tunesvc.util.clock import SystemClock


class WorkerAdoption:
    """Asks the workers of earlier coordinators what they run, and goes on with what is sought."""

    def __init__(
        self,
        fleet: WorkerBackend,
        workers: WorkerPool,
        conversation: WorkerClient,
        inbox: EventLoop,
        pace: PollingTimeouts,
        *,
        schedule: Callable[[], None],
    ) -> None:
        """`schedule`: called when more is known of which workers there are."""
        self._fleet = fleet
        self._workers = workers
        self._conversation = conversation
        self._inbox = inbox
        self._pace = pace
        self._schedule = schedule
        self._clock = SystemClock()
        self._is_patient = True
        """Whether workers of an earlier coordinator may still take their time."""
        self._strangers: set[str] = set()
        self._looked_s = self._clock.now()

    def begin(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Find the workers of earlier coordinators; those of a local Ray ended with it."""
        self._workers.token = token
        self._conversation.expect_adopted(cursors)
        if self._fleet.shared:
            self._search()
        else:
            self._conversation.fail_unmatched("it ended with its coordinator")

    def conclude(self) -> None:
        """What no worker has is lost as soon as all have answered; who is silent is ended when nothing is sought."""
        if self._workers.are_sought:
            return
        if not self._workers.asked and not self._workers.is_superseded:
            self._conversation.fail_unmatched("no worker has it any more")
        elif not self._is_patient and not self._workers.is_superseded and not self._is_seeking:
            self._end_asked(lambda _: True)
        self._schedule()

    @property
    def _is_seeking(self) -> bool:
        return any(not running.killed for running in self._conversation.unmatched)

    def _search(self) -> None:
        self._workers.are_sought = True
        self._inbox.run_in_thread(self._fleet.find, self._found)

    def _found(self, actors: Sequence[WorkerHandle] | None, _error: BaseException | None) -> None:
        if self._workers.is_closed:
            return
        if actors is None:  # Ray's head is away
            self._inbox.later(self._pace.retry_s, self._search)
            return
        self._workers.are_sought = False
        self._looked_s = self._clock.now()
        self._workers.asked = [WorkerState(actor) for actor in actors]
        for slot in self._workers.asked:
            self._ask(slot)
        self._inbox.later(self._pace.adoption_s, self._look_at_silent)
        self.conclude()

    def _ask(self, slot: WorkerState) -> None:
        self._inbox.when_done(slot.actor.handle.adopt.remote(self._workers.token), partial(self._said, slot))

    def _said(self, slot: WorkerState, found: AdoptResponse | None, error: BaseException | None) -> None:
        if slot not in self._workers.asked or self._workers.is_closed:
            return
        if isinstance(error, ActorUnavailableError):
            self._inbox.later(self._pace.retry_s, partial(self._ask, slot))
            return
        self._workers.asked.remove(slot)
        if found is not None and found.is_refused:
            self._workers.on_superseded()
        elif found is not None and self._conversation.resume(slot, found.attempts):
            self._workers.take_over(slot)
        else:
            slot.actor.end()
        self.conclude()

    # --- who does not answer --------------------------------------------------------------------------

    def _look_at_silent(self) -> None:
        """Workers that never came up are ended; others may be frozen or out of reach with an attempt that is sought."""
        silent = [slot.actor for slot in self._workers.asked]
        self._inbox.run_in_thread(lambda: self._fleet.pending(silent), self._saw_silent)

    def _saw_silent(self, pending: Sequence[WorkerHandle] | None, _error: BaseException | None) -> None:
        self._is_patient = False
        self._end_asked(lambda slot: slot.actor in (pending or ()))

    def _end_asked(self, is_ended: Callable[[WorkerState], bool]) -> None:
        for slot in [slot for slot in self._workers.asked if is_ended(slot)]:
            self._workers.asked.remove(slot)
            slot.actor.end()
        self.conclude()

    # --- who is not known -----------------------------------------------------------------------------

    def look_around(self) -> None:
        """Now and then have idle workers know that we are there, and look for others."""
        now = self._clock.now()
        if not self._workers.are_usable or now - self._looked_s < self._pace.look_s:
            return
        self._looked_s = now
        self._workers.heartbeat()
        if self._workers.is_owner:
            self._inbox.run_in_thread(self._fleet.names, self._saw)

    def _saw(self, names: set[str] | None, _error: BaseException | None) -> None:
        """A coordinator that was frozen while its study was taken over may have started workers afterwards."""
        if names is None or not self._workers.are_usable:
            return
        unknown = names - self._workers.names
        if any(self._fleet.token_of(name) > self._workers.token for name in unknown):
            self._workers.on_superseded()
            return
        for name in unknown & self._strangers:  # the first time it may have been ours, and about to end
            self._fleet.end_named(name)
        self._strangers = unknown
