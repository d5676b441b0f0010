"""Polls workers: sends commands for assigned attempts and receives their events.

Each worker with attempts has one open poll, whose response arrives in the event loop. New commands
make another poll, upon which the worker returns the previous one. So the cost is per batch, of many
attempts or of many events of one. A worker keeps an outcome until it is recorded, because until
then no other process has it. Knows nothing of which worker gets which attempt. Imports Ray for the
error of an unreachable worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ray.exceptions import ActorUnavailableError

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import (
    AttemptId,
    Launch,
    Lost,
    Outcome,
    OutputLogged,
    StoppedEarly,
)
from tunesvc.execution.output.spool import Remains
from tunesvc.execution.ray.dispatch_state import (
    Assignment,
    CancelReason,
    DispatchState,
    PollingTimeouts,
    WorkerState,
)
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.execution.worker.outbox import Numbered
from tunesvc.execution.worker.worker_protocol import (
    CommandKind,
    PollRequest,
    PollResponse,
    WorkerCommand,
)
from tunesvc.util.clock import SystemClock
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)


class WorkerClient:
    """Client of all workers."""

    def __init__(
        self,
        pool: WorkerPool,
        state: DispatchState,
        event_loop: EventLoop,
        timeouts: PollingTimeouts,
    ) -> None:
        """Make a client without attempts.

        Args:
            pool: the workers.
            state: the attempts. Those that a worker gives back are the next to begin.
            event_loop: receives the workers' responses.
            timeouts: intervals of polls and retries.
        """
        self._pool = pool
        self._state = state
        self._event_loop = event_loop
        self._timeouts = timeouts
        self._clock = SystemClock()

    # --- assigned attempts ------------------------------------------------------------------------

    def expect_adopted(self, cursors: Mapping[AttemptId, int]) -> None:
        """Expect attempts of an earlier coordinator. Their cursors are the last recorded events."""
        for attempt, cursor in cursors.items():
            self._state.assigned[attempt] = Assignment(
                attempt,
                worker=None,
                delivered=cursor,
                acknowledged=cursor,
                has_answered=False,
            )

    def fail_unmatched(self, reason: str) -> None:
        """Report all unmatched attempts as lost."""
        for assigned in self._state.unmatched:
            del self._state.assigned[assigned.attempt]
            self._state.deliver(assigned, assigned.delivered + 1, Lost(reason, "gone"))

    def resume(self, worker: WorkerState, attempts: Sequence[AttemptId]) -> bool:
        """Match a worker's attempts with the unmatched ones.

        Return True if there are any, and poll the worker.
        """
        unmatched = {assigned.attempt: assigned for assigned in self._state.unmatched}
        adopted = [unmatched[attempt] for attempt in attempts if attempt in unmatched]
        if not adopted:
            return False
        worker.attempts += adopted
        for attempt in attempts:
            if attempt not in unmatched:
                worker.send(WorkerCommand("cancel", attempt))
        for assigned in adopted:
            assigned.worker, assigned.has_answered = worker, True
            assigned.in_backlog = assigned.attempt != attempts[0] and not assigned.delivered
            for command in assigned.deferred_commands:
                worker.send(command)
            if assigned.is_killed:
                self._end_process(worker)
        self._schedule_poll(worker)
        return True

    def begin(
        self,
        worker: WorkerState,
        launch: Launch,
        *,
        in_backlog: bool = False,
    ) -> None:
        """Assign an attempt to a worker."""
        now = self._clock.now()
        assigned = Assignment(
            launch.attempt,
            worker,
            launch,
            since_s=now,
            in_backlog=in_backlog,
        )
        self._state.assigned[launch.attempt] = assigned
        fields = {"trial": launch.trial_number, "attempt": str(launch.attempt)}
        _logger.debug(
            "to %s",
            worker.node or "a worker",
            extra={**self._pool.fields, **fields},
        )
        worker.attempts.append(assigned)
        self.send(assigned, "run", launch)

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let workers forget recorded events with the next poll, and release finished attempts."""
        for attempt, cursor in cursors.items():
            if assigned := self._state.assigned.get(attempt):
                assigned.acknowledged = max(assigned.acknowledged, cursor)
                if assigned.is_recorded:
                    self._release(assigned)

    def _release(self, assigned: Assignment) -> None:
        """Release a recorded attempt. Its worker is free for the next one, or ends."""
        self._forget(assigned)
        if (worker := assigned.worker) is not None:
            worker.send(WorkerCommand("forget", assigned.attempt))
            self._pool.end_if_retiring(worker)
        self._state.schedule()

    def _forget(self, assigned: Assignment) -> None:
        del self._state.assigned[assigned.attempt]
        if assigned.worker is not None:
            assigned.worker.attempts.remove(assigned)

    # --- events -----------------------------------------------------------------------------------

    def take_heartbeats(self) -> list[AttemptId]:
        """Return the unfinished attempts whose worker has answered since the last call."""
        live = [assigned for assigned in self._state.assigned.values() if not assigned.is_finished]
        answered = [assigned for assigned in live if assigned.has_answered]
        for assigned in answered:
            assigned.has_answered = False
        return [assigned.attempt for assigned in answered]

    def _schedule_poll(self, worker: WorkerState) -> None:
        """Poll a worker soon, after the actions that are already queued: they may add commands."""
        if not worker.is_poll_scheduled:
            worker.is_poll_scheduled = True
            self._event_loop.call_soon(partial(self._poll, worker))

    def _poll(self, worker: WorkerState) -> None:
        worker.is_poll_scheduled = False
        live = {assigned.attempt: assigned for assigned in worker.live}
        if self._pool.is_closed or not live:
            return
        worker.poll_count += 1
        cursors = {}
        for attempt, assigned in live.items():
            # The worker must keep events that this executor has not delivered itself, even if they
            # are recorded.
            acknowledged = min(assigned.acknowledged, assigned.delivered)
            cursors[attempt] = assigned.delivered, acknowledged
        request = PollRequest(
            worker.poll_count,
            tuple(worker.pending_commands),
            cursors,
        )
        answer = worker.handle.actor.poll.remote(
            self._pool.token,
            request,
            self._timeouts.poll_s,
        )
        self._event_loop.on_result(
            answer,
            partial(self._on_response, worker, request.number, live),
        )

    def _on_response(
        self,
        worker: WorkerState,
        number: int,
        polled: Mapping[AttemptId, Assignment],
        response: PollResponse | None,
        error: BaseException | None,
    ) -> None:
        is_newest = number == worker.poll_count
        if self._pool.is_closed:
            return
        if isinstance(error, ActorUnavailableError):
            # Unreachable, but maybe alive: its outboxes keep all events.
            if is_newest:
                retry = partial(self._poll_again, worker, number)
                self._event_loop.call_later(self._timeouts.retry_s, retry)
        elif response is None:
            self._on_death(worker, error or RuntimeError("it does not say why"))
        elif response.is_refused:
            for assigned in worker.live:
                self._forget(assigned)
            self._pool.release_worker(worker)
        else:
            worker.confirm(number)
            self._handle_response(worker, polled, response)
            if is_newest:
                self._schedule_poll(worker)

    def _poll_again(self, worker: WorkerState, number: int) -> None:
        """Repeat a poll, unless a newer one was sent meanwhile."""
        if number == worker.poll_count:
            self._schedule_poll(worker)

    def _handle_response(
        self,
        worker: WorkerState,
        polled: Mapping[AttemptId, Assignment],
        response: PollResponse,
    ) -> None:
        worker.is_retiring |= not response.is_reusable
        for assigned in worker.live:
            assigned.has_answered = True
        # An earlier response may have finished an attempt or given it back: hence the checks.
        for attempt, events in response.events:
            if self._state.live(attempt) is polled[attempt]:
                self._receive(polled[attempt], worker, events)
        for attempt in reversed(response.absent):
            if self._state.live(attempt) is polled[attempt]:
                self._requeue(polled[attempt])
        if response.absent:
            # It may have given back all that it had, after its last outcome was recorded.
            self._pool.end_if_retiring(worker)
            self._state.schedule()

    def _receive(
        self,
        assigned: Assignment,
        worker: WorkerState,
        events: Sequence[Numbered],
    ) -> None:
        if assigned.in_backlog:
            assigned.in_backlog, assigned.since_s = False, self._clock.now()
        for seq, payload in events:
            if seq > assigned.delivered:
                self._state.deliver(assigned, seq, payload)
            if isinstance(payload, OutputLogged) and payload.end:
                worker.output_positions[payload.stream] = payload.end
        if isinstance(events[-1][1], Outcome):
            assigned.is_finished = True
        # by a coordinator that received the outcome through an earlier driver
        if assigned.is_recorded:
            self._release(assigned)
        elif not assigned.is_finished:
            self._apply_deferred(assigned)

    def _on_death(self, worker: WorkerState, error: BaseException) -> None:
        """Read a dead worker's unread output, then fail its attempts."""
        worker.is_retiring = True
        has_begun = any(not assigned.in_backlog for assigned in worker.live)
        if worker.info is None or not has_begun:
            self._fail_attempts(worker, error, Remains())
        elif worker.death is None:
            worker.death = error
            read = partial(self._pool.remains, worker)
            self._event_loop.run_in_thread(read, partial(self._on_remains, worker, error))

    def _on_remains(
        self,
        worker: WorkerState,
        death: BaseException,
        remains: Remains | None,
        _: BaseException | None,
    ) -> None:
        if not self._pool.is_closed:
            self._fail_attempts(worker, death, remains or Remains())

    def _fail_attempts(
        self,
        worker: WorkerState,
        error: BaseException,
        remains: Remains,
    ) -> None:
        for assigned in worker.live:
            if assigned.in_backlog:
                self._state.deliver(
                    assigned,
                    1,
                    Lost("its worker died before it began", "gone"),
                )
            else:
                self._fail(assigned, error, remains)
            self._release(assigned)

    def _fail(
        self,
        assigned: Assignment,
        error: BaseException,
        remains: Remains,
    ) -> None:
        fields = {**self._pool.fields, "attempt": str(assigned.attempt)}
        _logger.warning("a worker died: %s", remains.end or error, extra=fields)
        for stream, text in remains.output.items():
            if text:
                self._state.deliver(
                    assigned,
                    assigned.delivered + 1,
                    OutputLogged(stream, text),
                )
        outcome = outcome_of_death(error, killed=assigned.is_killed, end=remains.end)
        self._state.deliver(assigned, assigned.delivered + 1, outcome)

    # --- commands ---------------------------------------------------------------------------------

    def stop(self, assigned: Assignment) -> None:
        """Ask an attempt to stop, or cancel it if it is in a backlog."""
        if not self.cancel(assigned, "stop"):
            self.send(assigned, "stop")

    def kill(self, assigned: Assignment) -> None:
        """Kill an attempt's process once its worker is found. Cancel it in a backlog."""
        if assigned.is_killed or self.cancel(assigned, "kill"):
            return
        assigned.is_killed = True
        if assigned.worker is not None:
            self._end_process(assigned.worker)

    def send(self, assigned: Assignment, kind: CommandKind, *values: Any) -> None:
        """Send a command to the attempt's worker, as soon as that is found."""
        command = WorkerCommand(kind, assigned.attempt, values)
        if assigned.worker is None:
            assigned.deferred_commands.append(command)
        else:
            assigned.worker.send(command)
            self._schedule_poll(assigned.worker)

    def _end_process(self, worker: WorkerState) -> None:
        worker.is_retiring = True
        worker.handle.kill()
        self._event_loop.call_later(
            self._timeouts.killed_s,
            partial(self._on_kill_timeout, worker),
        )

    def _on_kill_timeout(self, worker: WorkerState) -> None:
        if not self._pool.is_closed:
            self._on_death(worker, TimeoutError("Ray does not say"))

    # --- cancellation -----------------------------------------------------------------------------

    def cancel(self, assigned: Assignment, reason: CancelReason) -> bool:
        """Ask a worker to give back an attempt of its backlog. Return False if it is in none."""
        if not assigned.in_backlog or assigned.worker is None:
            return False
        is_requested = assigned.cancel_reason is not None
        assigned.cancel_reason = reason
        if not is_requested:
            self.send(assigned, "cancel")
        return True

    def _apply_deferred(self, assigned: Assignment) -> None:
        """Stop or kill an attempt that began before it could be canceled."""
        reason, assigned.cancel_reason = assigned.cancel_reason, None
        if reason == "stop":
            self.stop(assigned)
        elif reason == "kill":
            self.kill(assigned)

    def _requeue(self, assigned: Assignment) -> None:
        """Queue an attempt that its worker gave back, or finish it if it was to end."""
        self._forget(assigned)
        if assigned.cancel_reason == "stop":
            self._state.finish_unstarted(assigned.attempt, StoppedEarly())
        elif assigned.cancel_reason == "kill":
            self._state.finish_unstarted(assigned.attempt, Lost("killed before it began"))
        elif assigned.launch is None:
            self._state.finish_unstarted(
                assigned.attempt,
                Lost("its worker could not begin it", "gone"),
            )
        else:
            self._state.launches.appendleft(assigned.launch)
