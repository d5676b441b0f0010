"""Finds the workers of other coordinators of the study, and adopts or ends them.

A superseded coordinator may start workers even later; they are ended when they appear. If this
coordinator is the superseded one, it gives up all workers. Imports Ray for the error of an
unreachable worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ray.exceptions import ActorUnavailableError

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.ray.dispatch_state import DispatchState, PollingTimeouts, WorkerState
from tunesvc.execution.ray.worker_backend import WorkerBackend, WorkerHandle
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.execution.worker.worker_protocol import AdoptResponse
from tunesvc.util.clock import SystemClock


class WorkerAdoption:
    """Adopts expected attempts from the workers of earlier coordinators."""

    def __init__(
        self,
        backend: WorkerBackend,
        pool: WorkerPool,
        client: WorkerClient,
        state: DispatchState,
        event_loop: EventLoop,
        timeouts: PollingTimeouts,
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._client = client
        self._event_loop = event_loop
        self._timeouts = timeouts
        self._state = state
        self._clock = SystemClock()
        self._may_be_starting = True
        """True while workers of an earlier coordinator may still be starting."""
        self._unknown_names: set[str] = set()
        self._checked_s = self._clock.now()

    def begin(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Find the workers of earlier coordinators. On a local Ray they have ended with it."""
        self._pool.token = token
        self._client.expect_adopted(cursors)
        if self._backend.shared:
            self._search()
        else:
            self._client.fail_unmatched("it ended with its coordinator")

    def conclude(self) -> None:
        """Finish the adoption as far as possible.

        If all workers have answered, unmatched attempts are lost. If no attempt is unmatched,
        workers that have not answered are ended.
        """
        if self._pool.is_searching:
            return
        if not self._pool.is_superseded:
            if not self._pool.unconfirmed:
                self._client.fail_unmatched("no worker has it any more")
            elif not self._may_be_starting and not self._has_unmatched:
                self._end_unconfirmed(lambda _: True)
        self._state.schedule()

    @property
    def _has_unmatched(self) -> bool:
        return any(not assigned.is_killed for assigned in self._state.unmatched)

    def _search(self) -> None:
        self._pool.is_searching = True
        self._event_loop.run_in_thread(self._backend.find, self._on_workers_found)

    def _on_workers_found(
        self,
        handles: Sequence[WorkerHandle] | None,
        _error: BaseException | None,
    ) -> None:
        if self._pool.is_closed:
            return
        if handles is None:  # Ray's head is away
            self._event_loop.call_later(self._timeouts.retry_s, self._search)
            return
        self._pool.is_searching = False
        self._checked_s = self._clock.now()
        self._pool.unconfirmed = [WorkerState(handle) for handle in handles]
        for worker in self._pool.unconfirmed:
            self._request_adoption(worker)
        self._event_loop.call_later(self._timeouts.adoption_s, self._check_unresponsive)
        self.conclude()

    def _request_adoption(self, worker: WorkerState) -> None:
        answer = worker.handle.actor.adopt.remote(self._pool.token)
        self._event_loop.on_result(answer, partial(self._on_response, worker))

    def _on_response(
        self,
        worker: WorkerState,
        response: AdoptResponse | None,
        error: BaseException | None,
    ) -> None:
        if worker not in self._pool.unconfirmed or self._pool.is_closed:
            return
        if isinstance(error, ActorUnavailableError):
            retry = partial(self._request_adoption, worker)
            self._event_loop.call_later(self._timeouts.retry_s, retry)
            return
        self._pool.unconfirmed.remove(worker)
        if response is not None and response.is_refused:
            self._pool.on_superseded()
        elif response is not None and self._client.resume(worker, response.attempts):
            self._pool.adopt(worker)
        else:
            worker.handle.end()
        self.conclude()

    # --- unresponsive workers ---------------------------------------------------------------------

    def _check_unresponsive(self) -> None:
        """End workers that never came up.

        Others may be frozen or unreachable, with an expected attempt.
        """
        handles = [worker.handle for worker in self._pool.unconfirmed]
        self._event_loop.run_in_thread(
            partial(self._backend.pending, handles),
            self._on_pending_known,
        )

    def _on_pending_known(
        self,
        pending: Sequence[WorkerHandle] | None,
        _error: BaseException | None,
    ) -> None:
        self._may_be_starting = False
        self._end_unconfirmed(lambda worker: worker.handle in (pending or ()))

    def _end_unconfirmed(self, is_ended: Callable[[WorkerState], bool]) -> None:
        for worker in [worker for worker in self._pool.unconfirmed if is_ended(worker)]:
            self._pool.unconfirmed.remove(worker)
            worker.handle.end()
        self.conclude()

    # --- unknown workers --------------------------------------------------------------------------

    def check_for_others(self) -> None:
        """Send heartbeats to idle workers and search for unknown ones, once every `check_s`."""
        now = self._clock.now()
        if not self._pool.is_usable or now - self._checked_s < self._timeouts.check_s:
            return
        self._checked_s = now
        self._pool.heartbeat()
        if self._pool.is_owner:
            self._event_loop.run_in_thread(self._backend.names, self._on_names)

    def _on_names(self, names: set[str] | None, _error: BaseException | None) -> None:
        """End unknown workers.

        A coordinator that was frozen during a takeover may have started them later.
        """
        if names is None or not self._pool.is_usable:
            return
        unknown = names - self._pool.names
        if any(self._backend.token_of(name) > self._pool.token for name in unknown):
            self._pool.on_superseded()
            return
        # Only those seen twice: at first sight it may be one of ours that is about to end.
        for name in unknown & self._unknown_names:
            self._backend.end_named(name)
        self._unknown_names = unknown
