"""What attempts are told, and what they say: from the moment when a worker is given one until its end is recorded.

Each live attempt has one long-poll under way, whose answer arrives in the inbox, so the cost is per event and not per
worker. A worker keeps an outcome until it is recorded: until then it alone has it. Which worker gets what is decided
elsewhere. Imports Ray for the error of a worker out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ray.exceptions import ActorUnavailableError

from tunesvc.clock import SystemClock
from tunesvc.execute.deaths import outcome_of_death
from tunesvc.execute.dispatch import Pace, Recall, Running, Slot, Waiting
from tunesvc.execute.executor import AttemptId, Event, Launch, Lost, Outcome, Payload, Yielded
from tunesvc.execute.inbox import Inbox
from tunesvc.execute.worker import Reply
from tunesvc.execute.workers import Workers


class Conversation:
    """With all attempts that workers were given, by this coordinator or by an earlier one."""

    def __init__(
        self, workers: Workers, waiting: Waiting, inbox: Inbox, pace: Pace, *, go_on: Callable[[], None]
    ) -> None:
        """What a worker gives back goes in front of what is `waiting`. `go_on`: called when a worker may be free."""
        self._workers = workers
        self._waiting = waiting
        self._inbox = inbox
        self._pace = pace
        self._go_on = go_on
        self._clock = SystemClock()
        self._running: dict[AttemptId, Running] = {}
        self._ready: list[Event] = []

    # --- who takes part -------------------------------------------------------------------------------

    def live(self, attempt: AttemptId) -> Running | None:
        """An attempt whose outcome was not delivered yet."""
        running = self._running.get(attempt)
        return running if running is not None and not running.over else None

    @property
    def live_count(self) -> int:
        """How many attempts have no outcome yet that was delivered."""
        return sum(not running.over for running in self._running.values())

    @property
    def sought(self) -> list[Running]:
        """Those of an earlier coordinator whose worker is looked for."""
        return [running for running in self._running.values() if running.slot is None]

    def seek(self, cursors: Mapping[AttemptId, int]) -> None:
        """Take in those of an earlier coordinator, of which so much is recorded."""
        for attempt, cursor in cursors.items():
            self._running[attempt] = Running(attempt, None, delivered=cursor, acknowledged=cursor, answered=False)

    def lose_those_sought(self, reason: str) -> None:
        """No worker has them."""
        for running in self.sought:
            del self._running[running.attempt]
            self._deliver(running, running.delivered + 1, Lost(reason, "gone"))

    def resume(self, slot: Slot, attempts: Sequence[AttemptId]) -> bool:
        """Go on with those of a worker's attempts that are sought; whether there are any."""
        found = {attempt: self._running.get(attempt) for attempt in attempts}
        sought = [running for running in found.values() if running is not None and running.slot is None]
        if not sought:
            return False
        slot.attempts += sought
        for attempt in found.keys() - {running.attempt for running in sought}:
            slot.actor.handle.withdraw.remote(self._workers.token, attempt)
        for running in sought:
            running.slot, running.answered = slot, True
            running.in_line = running.attempt != attempts[0] and not running.delivered
            self._poll(running)
            if running.killed:
                self._end_process(running, slot)
        return True

    def begin(self, slot: Slot, launch: Launch, *, in_line: bool = False) -> None:
        """Give an attempt to a worker."""
        recorded, slot.recorded = slot.recorded, []
        running = Running(launch.attempt, slot, launch, since_s=self._clock.now(), in_line=in_line)
        self._running[launch.attempt] = running
        slot.attempts.append(running)
        again = launch.attempt in slot.withdrawn
        answer = slot.actor.handle.run.remote(self._workers.token, launch, self._pace.poll_s, recorded, again)
        self._inbox.when_done(answer, partial(self._heard, running, slot))

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next poll; free those whose attempt is over."""
        for attempt, cursor in cursors.items():
            if running := self._running.get(attempt):
                running.acknowledged = max(running.acknowledged, cursor)
                if running.is_recorded:
                    self._release(running)

    def end(self) -> None:
        """Hear nothing any more."""
        self._running.clear()

    def _release(self, running: Running) -> None:
        """Have the attempt's worker free for the next one, or end it."""
        self._forget(running)
        if (slot := running.slot) is not None:
            slot.recorded.append(running.attempt)
            self._workers.end_if_spent(slot)
        self._go_on()

    def _forget(self, running: Running) -> None:
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

    def _deliver(self, running: Running, seq: int, payload: Payload) -> None:
        running.delivered = seq
        self._ready.append(Event(running.attempt, seq, payload))

    def _poll(self, running: Running) -> None:
        slot = running.slot
        if slot is None or self._workers.is_closed or running.over:
            return
        # what this executor has not delivered itself must not be forgotten, whoever else has recorded it
        acknowledged = min(running.acknowledged, running.delivered)
        answer = slot.actor.handle.poll.remote(
            self._workers.token, running.attempt, running.delivered, acknowledged, self._pace.poll_s
        )
        self._inbox.when_done(answer, partial(self._heard, running, slot))

    def _heard(self, running: Running, slot: Slot, reply: Reply | None, error: BaseException | None) -> None:
        if self._running.get(running.attempt) is not running or running.over:
            return  # closed meanwhile, or given up
        if isinstance(error, ActorUnavailableError):  # out of reach, not known to be dead: the outbox keeps everything
            self._inbox.later(self._pace.retry_s, partial(self._poll, running))
        elif reply is not None and reply.is_refused:
            self._forget(running)
            self._workers.give_away(slot)
        elif reply is not None and not reply.is_known and running.recall is not None:
            return  # it was withdrawn before it arrived; that answer is still on its way
        elif reply is None or not reply.is_known:
            self._died(running, error or RuntimeError("the launch did not reach it"))
        else:
            self._take(running, slot, reply)

    def _take(self, running: Running, slot: Slot, reply: Reply) -> None:
        running.answered = running.heard_of = True
        unsent, running.unsent = running.unsent, []
        for method, values in unsent:
            self.tell(running, method, *values)
        if reply.events and running.in_line:
            if slot.live[0] is not running:  # who is before it has ended too, which is still on its way
                running.early = reply
                return
            running.in_line, running.since_s = False, self._clock.now()
        for seq, payload in reply.events:
            self._deliver(running, seq, payload)
        if reply.events and isinstance(reply.events[-1][1], Outcome):
            running.over = True
            self._see_whether_fit(running, slot, reply)
            self._hear_early(slot)
        else:
            self._poll(running)
        if running.is_recorded:  # by a coordinator whose driver had heard the outcome before this one
            self._release(running)

    def _hear_early(self, slot: Slot) -> None:
        for running in slot.live[:1]:
            early, running.early = running.early, None
            if early is not None:
                self._take(running, slot, early)

    def _see_whether_fit(self, ended: Running, slot: Slot, reply: Reply) -> None:
        """A worker that is not begins nothing more, what stands in its line neither."""
        slot.is_spent |= ended.killed or not reply.is_reusable
        if not reply.is_reusable:
            for running in [running for running in slot.live if running.in_line]:
                self._take_back(running, running.recall or "other worker")
            self._go_on()

    def _died(self, running: Running, error: BaseException) -> None:
        if running.slot is not None:
            running.slot.is_spent = True
        if running.in_line:
            self._deliver(running, 1, Lost("its worker died before it began", "gone"))
        else:
            self._deliver(running, running.delivered + 1, outcome_of_death(error, killed=running.killed))
        self._release(running)
        if running.slot is not None:
            self._hear_early(running.slot)

    # --- what they are told ---------------------------------------------------------------------------

    def stop(self, running: Running) -> None:
        """Ask an attempt to stop; one that stands in line is asked for back."""
        if not self.recall(running, "stop"):
            self.tell(running, "stop")

    def kill(self, running: Running) -> None:
        """End an attempt's process, as soon as its worker is found; one that stands in line is asked for back."""
        if running.killed or self.recall(running, "kill"):
            return
        running.killed = True
        if running.slot is not None:
            self._end_process(running, running.slot)

    def tell(self, running: Running, method: str, *values: Any) -> None:
        """Call a method of the attempt's worker, as soon as that is known to have it."""
        if running.heard_of and running.slot is not None:
            told = getattr(running.slot.actor.handle, method).remote(self._workers.token, running.attempt, *values)
            self._inbox.when_done(told, partial(self._told, running, partial(self.tell, running, method, *values)))
        else:
            running.unsent.append((method, values))

    def _told(self, running: Running, repeat: Callable[[], None], _: None, error: BaseException | None) -> None:
        """What a worker out of reach may not have heard is repeated: hearing it twice does no harm."""
        if isinstance(error, ActorUnavailableError):
            self._inbox.later(self._pace.retry_s, partial(self._while_live, running, repeat))

    def _while_live(self, running: Running, action: Callable[[], None]) -> None:
        if self.live(running.attempt) is running:
            action()

    def _end_process(self, running: Running, slot: Slot) -> None:
        slot.actor.kill()
        self._inbox.later(
            self._pace.killed_s, partial(self._heard, running, slot, None, TimeoutError("Ray does not say"))
        )

    # --- what is taken back ---------------------------------------------------------------------------

    def recall(self, running: Running, why: Recall) -> bool:
        """Ask a worker for an attempt that stands in its line; False when it stands in none."""
        if not running.in_line or running.slot is None:
            return False
        is_asked, running.recall = running.recall is not None, why
        if not is_asked:
            self._ask_back(running, running.slot)
        return True

    def _ask_back(self, running: Running, slot: Slot) -> None:
        answer = slot.actor.handle.withdraw.remote(self._workers.token, running.attempt)
        self._inbox.when_done(answer, partial(self._gave_back, running, slot))

    def _gave_back(self, running: Running, slot: Slot, is_withdrawn: bool | None, error: BaseException | None) -> None:
        if self.live(running.attempt) is not running or (why := running.recall) is None:
            return
        if isinstance(error, ActorUnavailableError):
            self._inbox.later(
                self._pace.retry_s, partial(self._while_live, running, partial(self._ask_back, running, slot))
            )
        elif is_withdrawn:
            slot.withdrawn.add(running.attempt)
            self._take_back(running, why)
            self._go_on()
        elif error is None:  # it has begun; of a worker that died its polls tell
            running.in_line, running.recall = False, None
            if why == "stop":
                self.stop(running)
            elif why == "kill":
                self.kill(running)

    def _take_back(self, running: Running, why: Recall) -> None:
        """Of an attempt that never began: have it wait again, or end it."""
        self._forget(running)
        if why == "stop":
            self.never_began(running.attempt, Yielded())
        elif why == "kill":
            self.never_began(running.attempt, Lost("killed before it began"))
        elif running.launch is None:
            self.never_began(running.attempt, Lost("its worker could not begin it", "gone"))
        else:
            self._waiting.launches.appendleft(running.launch)
