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
from tunesvc.execution.ray.dispatch_state import AssignedAttempt, PendingQueue, PollingTimeouts, Recall, WorkerState
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.execution.worker.worker_protocol import CommandKind, PollRequest, PollResponse, WorkerCommand
from tunesvc.util.clock import SystemClock


class WorkerClient:
    """With all attempts that workers were given, by this coordinator or by an earlier one."""

    def __init__(
        self,
        workers: WorkerPool,
        waiting: PendingQueue,
        inbox: EventLoop,
        pace: PollingTimeouts,
        *,
        schedule: Callable[[], None],
    ) -> None:
        """What a worker gives back goes in front of what is `waiting`. `schedule`: called when a worker may be free."""
        self._workers = workers
        self._waiting = waiting
        self._inbox = inbox
        self._pace = pace
        self._schedule = schedule
        self._clock = SystemClock()
        self._running: dict[AttemptId, AssignedAttempt] = {}
        self._ready: list[Event] = []

    # --- who takes part -------------------------------------------------------------------------------

    def live(self, attempt: AttemptId) -> AssignedAttempt | None:
        """An attempt whose outcome was not delivered yet."""
        running = self._running.get(attempt)
        return running if running is not None and not running.over else None

    @property
    def live_count(self) -> int:
        """How many attempts have no outcome yet that was delivered."""
        return sum(not running.over for running in self._running.values())

    @property
    def unmatched(self) -> list[AssignedAttempt]:
        """Those of an earlier coordinator whose worker is looked for."""
        return [running for running in self._running.values() if running.slot is None]

    def expect_adopted(self, cursors: Mapping[AttemptId, int]) -> None:
        """Take in those of an earlier coordinator, of which so much is recorded."""
        for attempt, cursor in cursors.items():
            self._running[attempt] = AssignedAttempt(
                attempt, None, delivered=cursor, acknowledged=cursor, answered=False
            )

    def fail_unmatched(self, reason: str) -> None:
        """No worker has them."""
        for running in self.unmatched:
            del self._running[running.attempt]
            self._deliver(running, running.delivered + 1, Lost(reason, "gone"))

    def resume(self, slot: WorkerState, attempts: Sequence[AttemptId]) -> bool:
        """Go on with those of a worker's attempts that are sought; whether there are any."""
        found = {attempt: self._running.get(attempt) for attempt in attempts}
        sought = [running for running in found.values() if running is not None and running.slot is None]
        if not sought:
            return False
        slot.attempts += sought
        for attempt in found.keys() - {running.attempt for running in sought}:
            slot.tell(WorkerCommand("cancel", attempt))
        for running in sought:
            running.slot, running.answered = slot, True
            running.in_line = running.attempt != attempts[0] and not running.delivered
            for order in running.unsent:
                slot.tell(order)
            if running.killed:
                self._end_process(slot)
        self._schedule_poll(slot)
        return True

    def begin(self, slot: WorkerState, launch: Launch, *, in_line: bool = False) -> None:
        """Give an attempt to a worker."""
        running = AssignedAttempt(launch.attempt, slot, launch, since_s=self._clock.now(), in_line=in_line)
        self._running[launch.attempt] = running
        slot.attempts.append(running)
        self.tell(running, "run", launch)

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next call; free those whose attempt is over."""
        for attempt, cursor in cursors.items():
            if running := self._running.get(attempt):
                running.acknowledged = max(running.acknowledged, cursor)
                if running.is_recorded:
                    self._release(running)

    def end(self) -> None:
        """Hear nothing any more."""
        self._running.clear()

    def _release(self, running: AssignedAttempt) -> None:
        """Have the attempt's worker free for the next one, or end it."""
        self._forget(running)
        if (slot := running.slot) is not None:
            slot.tell(WorkerCommand("forget", running.attempt))
            self._workers.end_if_spent(slot)
        self._schedule()

    def _forget(self, running: AssignedAttempt) -> None:
        del self._running[running.attempt]
        if running.slot is not None:
            running.slot.attempts.remove(running)

    # --- what they say --------------------------------------------------------------------------------

    def take_events(self) -> Sequence[Event]:
        """What is to be delivered, once."""
        ready, self._ready = self._ready, []
        return ready

    def signs_of_life(self) -> list[AttemptId]:
        """Those whose worker has answered since the last call."""
        signs = [running for running in self._running.values() if running.answered and not running.over]
        for running in signs:
            running.answered = False
        return [running.attempt for running in signs]

    def never_began(self, attempt: AttemptId, outcome: Outcome) -> None:
        """The end of an attempt that never said anything, and that no worker has."""
        self._ready.append(Event(attempt, 1, outcome))

    def _deliver(self, running: AssignedAttempt, seq: int, payload: Payload) -> None:
        running.delivered = seq
        self._ready.append(Event(running.attempt, seq, payload))

    def _schedule_poll(self, slot: WorkerState) -> None:
        """Call a worker when all that is to be told by then is known."""
        if not slot.is_due:
            slot.is_due = True
            self._inbox.put(partial(self._call, slot))

    def _call(self, slot: WorkerState) -> None:
        slot.is_due = False
        live = {running.attempt: running for running in slot.live}
        if self._workers.is_closed or not live:
            return
        slot.calls += 1
        # what this executor has not delivered itself must not be forgotten, whoever else has recorded it
        cursors = {a: (one.delivered, min(one.acknowledged, one.delivered)) for a, one in live.items()}
        call = PollRequest(slot.calls, tuple(slot.orders), cursors)
        answer = slot.actor.handle.poll.remote(self._workers.token, call, self._pace.poll_s)
        self._inbox.when_done(answer, partial(self._answered, slot, call.number, live))

    def _answered(
        self,
        slot: WorkerState,
        number: int,
        asked: Mapping[AttemptId, AssignedAttempt],
        reply: PollResponse | None,
        error: BaseException | None,
    ) -> None:
        is_newest = number == slot.calls
        if self._workers.is_closed:
            return
        if isinstance(error, ActorUnavailableError):  # out of reach, not known to be dead: the outboxes keep everything
            if is_newest:
                self._inbox.later(self._pace.retry_s, partial(self._repeat, slot, number))
        elif reply is None:
            self._died(slot, error or RuntimeError("it does not say why"))
        elif reply.is_refused:
            for running in slot.live:
                self._forget(running)
            self._workers.release_worker(slot)
        else:
            slot.confirm(number)
            self._take(slot, asked, reply)
            if is_newest:
                self._schedule_poll(slot)

    def _repeat(self, slot: WorkerState, number: int) -> None:
        """Call again, unless somebody has since."""
        if number == slot.calls:
            self._schedule_poll(slot)

    def _take(self, slot: WorkerState, asked: Mapping[AttemptId, AssignedAttempt], reply: PollResponse) -> None:
        slot.is_spent |= not reply.is_fit
        for running in slot.live:
            running.answered = True
        for attempt, events in reply.said:
            if self.live(attempt) is asked[attempt]:  # an earlier answer may have told its end
                self._hear(asked[attempt], slot, events)
        for attempt in reversed(reply.absent):
            if self.live(attempt) is asked[attempt]:  # or have given it back
                self._requeue(asked[attempt])
        if reply.absent:
            self._schedule()

    def _hear(self, running: AssignedAttempt, slot: WorkerState, events: Sequence[Numbered]) -> None:
        if running.in_line:
            running.in_line, running.since_s = False, self._clock.now()
        for seq, payload in events:
            if seq > running.delivered:
                self._deliver(running, seq, payload)
            if isinstance(payload, OutputLogged) and payload.end:
                slot.heard[payload.stream] = payload.end
        if isinstance(events[-1][1], Outcome):
            running.over = True
            slot.is_spent |= not self._workers.are_reused
        if running.is_recorded:  # by a coordinator whose driver had heard the outcome before this one
            self._release(running)
        elif not running.over:
            self._apply_deferred(running)

    def _died(self, slot: WorkerState, error: BaseException) -> None:
        """Look for what a dead worker has left, before its attempts end."""
        slot.is_spent = True
        if slot.place is None or not any(not running.in_line for running in slot.live):
            self._bury(slot, error, Remains())
        elif slot.death is None:
            slot.death = error
            self._inbox.run_in_thread(partial(self._workers.remains, slot), partial(self._found, slot, error))

    def _found(self, slot: WorkerState, death: BaseException, remains: Remains | None, _: BaseException | None) -> None:
        if not self._workers.is_closed:
            self._bury(slot, death, remains or Remains())

    def _bury(self, slot: WorkerState, error: BaseException, remains: Remains) -> None:
        for running in slot.live:
            if running.in_line:
                self._deliver(running, 1, Lost("its worker died before it began", "gone"))
            else:
                for stream, text in remains.output.items():
                    if text:
                        self._deliver(running, running.delivered + 1, OutputLogged(stream, text))
                outcome = outcome_of_death(error, killed=running.killed, end=remains.end)
                self._deliver(running, running.delivered + 1, outcome)
            self._release(running)

    # --- what they are told ---------------------------------------------------------------------------

    def stop(self, running: AssignedAttempt) -> None:
        """Ask an attempt to stop; one that stands in line is asked for back."""
        if not self.recall(running, "stop"):
            self.tell(running, "stop")

    def kill(self, running: AssignedAttempt) -> None:
        """End an attempt's process, as soon as its worker is found; one that stands in line is asked for back."""
        if running.killed or self.recall(running, "kill"):
            return
        running.killed = True
        if running.slot is not None:
            self._end_process(running.slot)

    def tell(self, running: AssignedAttempt, verb: CommandKind, *values: Any) -> None:
        """Have the attempt's worker told something, as soon as it is found."""
        order = WorkerCommand(verb, running.attempt, values)
        if running.slot is None:
            running.unsent.append(order)
        else:
            running.slot.tell(order)
            self._schedule_poll(running.slot)

    def _end_process(self, slot: WorkerState) -> None:
        slot.is_spent = True
        slot.actor.kill()
        self._inbox.later(self._pace.killed_s, partial(self._give_up, slot))

    def _give_up(self, slot: WorkerState) -> None:
        if not self._workers.is_closed:
            self._died(slot, TimeoutError("Ray does not say"))

    # --- what is taken back ---------------------------------------------------------------------------

    def recall(self, running: AssignedAttempt, why: Recall) -> bool:
        """Ask a worker for an attempt that stands in its line; False when it stands in none."""
        if not running.in_line or running.slot is None:
            return False
        is_asked, running.recall = running.recall is not None, why
        if not is_asked:
            self.tell(running, "cancel")
        return True

    def _apply_deferred(self, running: AssignedAttempt) -> None:
        """What an attempt was asked back for has to be done where it has begun."""
        why, running.recall = running.recall, None
        if why == "stop":
            self.stop(running)
        elif why == "kill":
            self.kill(running)

    def _requeue(self, running: AssignedAttempt) -> None:
        """Of an attempt that never began: have it wait again, or end it."""
        self._forget(running)
        if running.recall == "stop":
            self.never_began(running.attempt, StoppedEarly())
        elif running.recall == "kill":
            self.never_began(running.attempt, Lost("killed before it began"))
        elif running.launch is None:
            self.never_began(running.attempt, Lost("its worker could not begin it", "gone"))
        else:
            self._waiting.launches.appendleft(running.launch)
