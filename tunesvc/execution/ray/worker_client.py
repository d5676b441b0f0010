"""What attempts are told, and what they say: from the moment when a worker is given one until its end is recorded.

Each worker that has any has one call open, whose answer arrives in the inbox. Who has more to tell it calls once more,
and the call before comes back; so the cost is per bunch, be it many attempts or many events of one. A worker keeps an
outcome until it is recorded: until then it alone has it. Which worker gets what is decided elsewhere. Imports Ray for
the error of a worker out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ray.exceptions import ActorUnavailableError

from tunesvc.execution.attempt.outbox import Numbered
from tunesvc.execution.attempt.spool import Remains
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import AttemptId, Event, Launch, Lost, Outcome, OutputLogged, Payload, StoppedEarly
from tunesvc.execution.ray.dispatch_state import (
    AssignedAttempt,
    CancelReason,
    PendingQueue,
    PollingTimeouts,
    WorkerState,
)
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.execution.worker.worker_protocol import CommandKind, PollRequest, PollResponse, WorkerCommand
from tunesvc.util.clock import SystemClock


class WorkerClient:
    """With all attempts that workers were given, by this coordinator or by an earlier one."""

    def __init__(
        self,
        pool: WorkerPool,
        queue: PendingQueue,
        event_loop: EventLoop,
        timeouts: PollingTimeouts,
        *,
        schedule: Callable[[], None],
    ) -> None:
        """What a worker gives back goes in front of what is `waiting`. `schedule`: called when a worker may be free."""
        self._pool = pool
        self._queue = queue
        self._event_loop = event_loop
        self._timeouts = timeouts
        self._schedule = schedule
        self._clock = SystemClock()
        self._assigned: dict[AttemptId, AssignedAttempt] = {}
        self._ready: list[Event] = []

    # --- who takes part -------------------------------------------------------------------------------

    def live(self, attempt: AttemptId) -> AssignedAttempt | None:
        """An attempt whose outcome was not delivered yet."""
        assigned = self._assigned.get(attempt)
        return assigned if assigned is not None and not assigned.is_finished else None

    @property
    def live_count(self) -> int:
        """How many attempts have no outcome yet that was delivered."""
        return sum(not assigned.is_finished for assigned in self._assigned.values())

    @property
    def unmatched(self) -> list[AssignedAttempt]:
        """Those of an earlier coordinator whose worker is looked for."""
        return [assigned for assigned in self._assigned.values() if assigned.worker is None]

    def expect_adopted(self, cursors: Mapping[AttemptId, int]) -> None:
        """Take in those of an earlier coordinator, of which so much is recorded."""
        for attempt, cursor in cursors.items():
            self._assigned[attempt] = AssignedAttempt(
                attempt, None, delivered=cursor, acknowledged=cursor, has_answered=False
            )

    def fail_unmatched(self, reason: str) -> None:
        """No worker has them."""
        for assigned in self.unmatched:
            del self._assigned[assigned.attempt]
            self._deliver(assigned, assigned.delivered + 1, Lost(reason, "gone"))

    def resume(self, worker: WorkerState, attempts: Sequence[AttemptId]) -> bool:
        """Go on with those of a worker's attempts that are sought; whether there are any."""
        found = {attempt: self._assigned.get(attempt) for attempt in attempts}
        adopted = [assigned for assigned in found.values() if assigned is not None and assigned.worker is None]
        if not adopted:
            return False
        worker.attempts += adopted
        for attempt in found.keys() - {assigned.attempt for assigned in adopted}:
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

    def begin(self, worker: WorkerState, launch: Launch, *, in_backlog: bool = False) -> None:
        """Give an attempt to a worker."""
        assigned = AssignedAttempt(launch.attempt, worker, launch, since_s=self._clock.now(), in_backlog=in_backlog)
        self._assigned[launch.attempt] = assigned
        worker.attempts.append(assigned)
        self.send(assigned, "run", launch)

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next call; free those whose attempt is over."""
        for attempt, cursor in cursors.items():
            if assigned := self._assigned.get(attempt):
                assigned.acknowledged = max(assigned.acknowledged, cursor)
                if assigned.is_recorded:
                    self._release(assigned)

    def clear(self) -> None:
        """Hear nothing any more."""
        self._assigned.clear()

    def _release(self, assigned: AssignedAttempt) -> None:
        """Have the attempt's worker free for the next one, or end it."""
        self._forget(assigned)
        if (worker := assigned.worker) is not None:
            worker.send(WorkerCommand("forget", assigned.attempt))
            self._pool.end_if_retiring(worker)
        self._schedule()

    def _forget(self, assigned: AssignedAttempt) -> None:
        del self._assigned[assigned.attempt]
        if assigned.worker is not None:
            assigned.worker.attempts.remove(assigned)

    # --- what they say --------------------------------------------------------------------------------

    def take_events(self) -> Sequence[Event]:
        """What is to be delivered, once."""
        ready, self._ready = self._ready, []
        return ready

    def take_heartbeats(self) -> list[AttemptId]:
        """Those whose worker has answered since the last call."""
        answered = [
            assigned for assigned in self._assigned.values() if assigned.has_answered and not assigned.is_finished
        ]
        for assigned in answered:
            assigned.has_answered = False
        return [assigned.attempt for assigned in answered]

    def finish_unstarted(self, attempt: AttemptId, outcome: Outcome) -> None:
        """The end of an attempt that never said anything, and that no worker has."""
        self._ready.append(Event(attempt, 1, outcome))

    def _deliver(self, assigned: AssignedAttempt, seq: int, payload: Payload) -> None:
        assigned.delivered = seq
        self._ready.append(Event(assigned.attempt, seq, payload))

    def _schedule_poll(self, worker: WorkerState) -> None:
        """Call a worker when all that is to be told by then is known."""
        if not worker.is_poll_scheduled:
            worker.is_poll_scheduled = True
            self._event_loop.call_soon(partial(self._poll, worker))

    def _poll(self, worker: WorkerState) -> None:
        worker.is_poll_scheduled = False
        live = {assigned.attempt: assigned for assigned in worker.live}
        if self._pool.is_closed or not live:
            return
        worker.poll_count += 1
        # what this executor has not delivered itself must not be forgotten, whoever else has recorded it
        cursors = {a: (one.delivered, min(one.acknowledged, one.delivered)) for a, one in live.items()}
        request = PollRequest(worker.poll_count, tuple(worker.pending_commands), cursors)
        answer = worker.handle.actor.poll.remote(self._pool.token, request, self._timeouts.poll_s)
        self._event_loop.on_result(answer, partial(self._on_response, worker, request.number, live))

    def _on_response(
        self,
        worker: WorkerState,
        number: int,
        polled: Mapping[AttemptId, AssignedAttempt],
        response: PollResponse | None,
        error: BaseException | None,
    ) -> None:
        is_newest = number == worker.poll_count
        if self._pool.is_closed:
            return
        if isinstance(error, ActorUnavailableError):  # out of reach, not known to be dead: the outboxes keep everything
            if is_newest:
                self._event_loop.call_later(self._timeouts.retry_s, partial(self._poll_again, worker, number))
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
        """Call again, unless somebody has since."""
        if number == worker.poll_count:
            self._schedule_poll(worker)

    def _handle_response(
        self, worker: WorkerState, polled: Mapping[AttemptId, AssignedAttempt], response: PollResponse
    ) -> None:
        worker.is_retiring |= not response.is_reusable
        for assigned in worker.live:
            assigned.has_answered = True
        for attempt, events in response.events:
            if self.live(attempt) is polled[attempt]:  # an earlier answer may have told its end
                self._receive(polled[attempt], worker, events)
        for attempt in reversed(response.absent):
            if self.live(attempt) is polled[attempt]:  # or have given it back
                self._requeue(polled[attempt])
        if response.absent:
            self._schedule()

    def _receive(self, assigned: AssignedAttempt, worker: WorkerState, events: Sequence[Numbered]) -> None:
        if assigned.in_backlog:
            assigned.in_backlog, assigned.since_s = False, self._clock.now()
        for seq, payload in events:
            if seq > assigned.delivered:
                self._deliver(assigned, seq, payload)
            if isinstance(payload, OutputLogged) and payload.end:
                worker.output_positions[payload.stream] = payload.end
        if isinstance(events[-1][1], Outcome):
            assigned.is_finished = True
            worker.is_retiring |= not self._pool.reuses_workers
        if assigned.is_recorded:  # by a coordinator whose driver had heard the outcome before this one
            self._release(assigned)
        elif not assigned.is_finished:
            self._apply_deferred(assigned)

    def _on_death(self, worker: WorkerState, error: BaseException) -> None:
        """Look for what a dead worker has left, before its attempts end."""
        worker.is_retiring = True
        if worker.info is None or not any(not assigned.in_backlog for assigned in worker.live):
            self._fail_attempts(worker, error, Remains())
        elif worker.death is None:
            worker.death = error
            self._event_loop.run_in_thread(
                partial(self._pool.remains, worker), partial(self._on_remains, worker, error)
            )

    def _on_remains(
        self, worker: WorkerState, death: BaseException, remains: Remains | None, _: BaseException | None
    ) -> None:
        if not self._pool.is_closed:
            self._fail_attempts(worker, death, remains or Remains())

    def _fail_attempts(self, worker: WorkerState, error: BaseException, remains: Remains) -> None:
        for assigned in worker.live:
            if assigned.in_backlog:
                self._deliver(assigned, 1, Lost("its worker died before it began", "gone"))
            else:
                for stream, text in remains.output.items():
                    if text:
                        self._deliver(assigned, assigned.delivered + 1, OutputLogged(stream, text))
                outcome = outcome_of_death(error, killed=assigned.is_killed, end=remains.end)
                self._deliver(assigned, assigned.delivered + 1, outcome)
            self._release(assigned)

    # --- what they are told ---------------------------------------------------------------------------

    def stop(self, assigned: AssignedAttempt) -> None:
        """Ask an attempt to stop; one that stands in line is asked for back."""
        if not self.cancel(assigned, "stop"):
            self.send(assigned, "stop")

    def kill(self, assigned: AssignedAttempt) -> None:
        """End an attempt's process, as soon as its worker is found; one that stands in line is asked for back."""
        if assigned.is_killed or self.cancel(assigned, "kill"):
            return
        assigned.is_killed = True
        if assigned.worker is not None:
            self._end_process(assigned.worker)

    def send(self, assigned: AssignedAttempt, kind: CommandKind, *values: Any) -> None:
        """Have the attempt's worker told something, as soon as it is found."""
        command = WorkerCommand(kind, assigned.attempt, values)
        if assigned.worker is None:
            assigned.deferred_commands.append(command)
        else:
            assigned.worker.send(command)
            self._schedule_poll(assigned.worker)

    def _end_process(self, worker: WorkerState) -> None:
        worker.is_retiring = True
        worker.handle.kill()
        self._event_loop.call_later(self._timeouts.killed_s, partial(self._on_kill_timeout, worker))

    def _on_kill_timeout(self, worker: WorkerState) -> None:
        if not self._pool.is_closed:
            self._on_death(worker, TimeoutError("Ray does not say"))

    # --- what is taken back ---------------------------------------------------------------------------

    def cancel(self, assigned: AssignedAttempt, reason: CancelReason) -> bool:
        """Ask a worker for an attempt that stands in its line; False when it stands in none."""
        if not assigned.in_backlog or assigned.worker is None:
            return False
        is_requested, assigned.cancel_reason = assigned.cancel_reason is not None, reason
        if not is_requested:
            self.send(assigned, "cancel")
        return True

    def _apply_deferred(self, assigned: AssignedAttempt) -> None:
        """What an attempt was asked back for has to be done where it has begun."""
        reason, assigned.cancel_reason = assigned.cancel_reason, None
        if reason == "stop":
            self.stop(assigned)
        elif reason == "kill":
            self.kill(assigned)

    def _requeue(self, assigned: AssignedAttempt) -> None:
        """Of an attempt that never began: have it wait again, or end it."""
        self._forget(assigned)
        if assigned.cancel_reason == "stop":
            self.finish_unstarted(assigned.attempt, StoppedEarly())
        elif assigned.cancel_reason == "kill":
            self.finish_unstarted(assigned.attempt, Lost("killed before it began"))
        elif assigned.launch is None:
            self.finish_unstarted(assigned.attempt, Lost("its worker could not begin it", "gone"))
        else:
            self._queue.launches.appendleft(assigned.launch)
