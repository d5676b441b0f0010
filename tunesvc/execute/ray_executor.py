"""The Executor on Ray: one warm actor per slot, reused from attempt to attempt of the job.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
What waits while all workers that there may be are busy stands in line in one of them, which begins it by itself; if
another one is done sooner, that gets it. Each live attempt has one long-poll under way, whose answer arrives in one
inbox, so the cost is per event and not per worker. A worker keeps an outcome until it is recorded: until then it alone
has it. Meant for one thread: others only put into the inbox, and count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ray.exceptions import ActorUnavailableError

from tunesvc.clock import SystemClock
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.actors import Actors, living_nodes
from tunesvc.execute.attempt import Place
from tunesvc.execute.cluster import LocalResources, connect
from tunesvc.execute.deaths import outcome_of_death
from tunesvc.execute.dispatch import HANDOVER_S, Pace, Recall, Running, Slot, Waiting
from tunesvc.execute.executor import (
    AttemptId,
    Capacity,
    Event,
    Job,
    Launch,
    Lost,
    Node,
    Outcome,
    Payload,
    Yielded,
)
from tunesvc.execute.fleet import Fleet, WorkerActor
from tunesvc.execute.inbox import Inbox
from tunesvc.execute.requests import capacity_of, slots_on
from tunesvc.execute.shares import Member, Shares
from tunesvc.execute.worker import Found, Reply
from tunesvc.spec import ParamValue

FRESH_S = 0.2
"""What Ray said that it has is asked for anew after so long."""


class RayExecutor:
    """Runs the attempts of one job on Ray. See `Executor`."""

    handover_s = HANDOVER_S

    def __init__(
        self,
        job: Job,
        *,
        address: str | None = None,
        local: LocalResources | None = None,
        pace: Pace | None = None,
        fleet: Fleet | None = None,
        inbox: Inbox | None = None,
        shares: Shares | None = None,
    ) -> None:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        With `fleet` the workers come from there. Several in one thread have one inbox and share what there is.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._fleet = fleet or Actors.join(job, address, local)
        self._job = self._fleet.job
        self._pace = pace or Pace()
        self._clock = SystemClock()
        self._inbox = inbox or Inbox()
        self._shares = shares or Shares()
        self._member = Member(self._job.resources, partial(self._inbox.put, self._go_on))
        self._waiting = Waiting()
        self._parallelism: int | None = None
        self._looks_at_lines = False
        self._running: dict[AttemptId, Running] = {}
        self._slots: list[Slot] = []
        self._asked: list[Slot] = []
        """Workers of an earlier coordinator that have not said yet what they run."""
        self._ready: list[Event] = []
        self._token = 0
        self._searching = False
        self._is_patient = True
        """Whether workers of an earlier coordinator may still take their time."""
        self._superseded = False
        self._strangers: set[str] = set()
        self._looked_s = self._clock.now()
        self._closed = False

    # --- the protocol -----------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """What the cluster's living nodes have in all. Any thread may ask."""
        return capacity_of(self._fleet.nodes())

    def slots(self) -> int:
        """How many attempts may be under way at a time. See `Executor.slots`. Any thread may ask."""
        self._inbox.put(self._look_around)
        return self._shares.slots(self._member, self._slots_alone())

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Find the workers of earlier coordinators; those of a local Ray ended with it."""
        self._token = token
        for attempt, cursor in cursors.items():
            self._running[attempt] = Running(attempt, None, delivered=cursor, acknowledged=cursor, answered=False)
        if self._fleet.shared:
            self._search()
        else:
            self._lose_those_sought("it ended with its coordinator")

    def alive(self) -> Collection[AttemptId]:
        """Those whose worker has answered since the last call, and those that wait for one."""
        signs = [running for running in self._running.values() if running.answered and not running.over]
        for running in signs:
            running.answered = False
        return [*(running.attempt for running in signs), *(launch.attempt for launch in self._waiting.launches)]

    def trouble(self) -> str:
        """Nothing that this process would survive, but for being too late."""
        return _SUPERSEDED if self._superseded else ""

    def launch(self, launch: Launch) -> None:
        """Queue the attempt for the next free worker; starts one more worker if none is idle."""
        self._waiting.launches.append(launch)
        self._parallelism = launch.parallelism
        self._go_on()
        if self._member.lacks:
            self._shares.tell_others(self._member)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet; waits up to `timeout_s` for the first."""
        deadline = self._clock.now() + timeout_s
        self._inbox.take_in(0.0)
        while not self._ready and (left_s := deadline - self._clock.now()) > 0:
            self._inbox.take_in(left_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next poll; free those whose attempt is over."""
        for attempt, cursor in cursors.items():
            if running := self._running.get(attempt):
                running.acknowledged = max(running.acknowledged, cursor)
                if running.is_recorded:
                    self._release(running)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        """Send the value of a parameter that an attempt asked for."""
        if running := self._live(attempt):
            self._tell(running, "answer", name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop; one that no worker has taken yet ends at once."""
        if self._waiting.remove(attempt):
            self._ready.append(Event(attempt, 1, Yielded()))
        elif (running := self._live(attempt)) and not self._recall(running, "stop"):
            self._tell(running, "stop")

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; `Lost` follows when Ray says that it is dead, or does not say so for long."""
        if self._waiting.remove(attempt):
            self._ready.append(Event(attempt, 1, Lost("killed before a worker was free")))
        elif (running := self._live(attempt)) and not running.killed and not self._recall(running, "kill"):
            running.killed = True
            if running.slot is not None:
                self._kill(running, running.slot)
            elif not self._searching:
                self._conclude()

    def close(self) -> None:
        """End all workers, and Ray if it is our own. Repeatable."""
        self._part([] if self._superseded or self._closed else self._all())

    def leave(self) -> None:
        """Leave the cluster and what runs on it; whatever runs nothing is ended. On a local Ray as `close`."""
        if self._fleet.shared:
            idle = [slot.actor for slot in self._slots if not slot.attempts]
            self._part([] if self._superseded else idle)
        else:
            self.close()

    def _all(self) -> Sequence[WorkerActor]:
        """The workers that we know, and others that bear the job's key, such as those that have not answered yet."""
        if self._is_owner:
            with suppress(Exception):  # Ray's head is away: workers that nobody speaks to end by themselves
                actors = self._fleet.find()
                newer = any(self._fleet.token_of(actor.name) > self._token for actor in actors)
                return [] if newer else actors
        return [slot.actor for slot in self._slots]

    def _part(self, ended: Sequence[WorkerActor]) -> None:
        if self._closed:
            return
        self._closed = True
        self._waiting.launches.clear()
        self._running.clear()
        self._slots.clear()
        for actor in ended:
            actor.end()
        self._shares.leave(self._member)
        self._fleet.close()

    def warm_up(self) -> None:
        """Take part with the other jobs, and start the first worker of a local Ray now, where it need not know yet for
        which coordinator."""
        with suppress(UnsatisfiableRequest):  # whoever asks for the slots is told
            self._member.alone = self._slots_alone()
            self._shares.join(self._member)
            if not self._fleet.shared and self._shares.may_start(self._member):
                self._start_worker()

    # --- adoption -------------------------------------------------------------------------------------

    def _search(self) -> None:
        self._searching = True
        self._inbox.aside(self._fleet.find, self._found)

    def _found(self, actors: Sequence[WorkerActor] | None, _error: BaseException | None) -> None:
        if self._closed:
            return
        if actors is None:  # Ray's head is away
            self._inbox.later(self._pace.retry_s, self._search)
            return
        self._searching = False
        self._looked_s = self._clock.now()
        self._asked = [Slot(actor) for actor in actors]
        for slot in self._asked:
            self._ask(slot)
        self._inbox.later(self._pace.adoption_s, self._look_at_silent)
        self._conclude()

    def _ask(self, slot: Slot) -> None:
        self._inbox.when_done(slot.actor.handle.adopt.remote(self._token), partial(self._said, slot))

    def _said(self, slot: Slot, found: Found | None, error: BaseException | None) -> None:
        if slot not in self._asked or self._closed:
            return
        if isinstance(error, ActorUnavailableError):
            self._inbox.later(self._pace.retry_s, partial(self._ask, slot))
            return
        self._asked.remove(slot)
        if found is not None and found.is_refused:
            self._step_back()
        elif found is None or not self._attach(slot, found.attempts):
            slot.actor.end()
        self._conclude()

    def _attach(self, slot: Slot, attempts: Sequence[AttemptId]) -> bool:
        """Go on with those of a worker's attempts that are sought; whether there are any."""
        found = {attempt: self._running.get(attempt) for attempt in attempts}
        sought = [running for running in found.values() if running is not None and running.slot is None]
        if not sought:
            return False
        slot.is_up = slot.is_spent = True
        slot.attempts += sought
        self._slots.append(slot)
        for attempt in found.keys() - {running.attempt for running in sought}:
            slot.actor.handle.withdraw.remote(self._token, attempt)
        for running in sought:
            running.slot, running.answered = slot, True
            running.in_line = running.attempt != attempts[0] and not running.delivered
            self._poll(running)
            if running.killed:
                self._kill(running, slot)
        return True

    def _look_at_silent(self) -> None:
        """Workers that never came up are ended; others may be frozen or out of reach with an attempt that is sought."""
        silent = [slot.actor for slot in self._asked]
        self._inbox.aside(lambda: self._fleet.pending(silent), self._saw_silent)

    def _saw_silent(self, pending: Sequence[WorkerActor] | None, _error: BaseException | None) -> None:
        self._is_patient = False
        self._end_asked(lambda slot: slot.actor in (pending or ()))

    def _end_asked(self, is_ended: Callable[[Slot], bool]) -> None:
        for slot in [slot for slot in self._asked if is_ended(slot)]:
            self._asked.remove(slot)
            slot.actor.end()
        self._conclude()

    def _conclude(self) -> None:
        """What no worker has is lost as soon as all have answered; who is silent is ended when nothing is sought."""
        if not self._asked and not self._superseded:
            self._lose_those_sought("no worker has it any more")
        elif not self._is_patient and not self._superseded and not self._is_seeking:
            self._end_asked(lambda _: True)
        self._go_on()

    @property
    def _is_seeking(self) -> bool:
        return any(running.slot is None and not running.killed for running in self._running.values())

    def _lose_those_sought(self, reason: str) -> None:
        for running in [running for running in self._running.values() if running.slot is None]:
            del self._running[running.attempt]
            self._deliver(running, running.delivered + 1, Lost(reason, "gone"))

    # --- others ---------------------------------------------------------------------------------------

    @property
    def _is_owner(self) -> bool:
        """Whether all workers that bear the job's key are ours to end."""
        return self._fleet.shared and self._token > 0 and not self._superseded

    def _step_back(self) -> None:
        """A coordinator with a higher token has the workers now: touch nothing any more."""
        self._superseded = True
        self._shares.leave(self._member)

    def _look_around(self) -> None:
        self._go_on()  # there may be more nodes than before
        now = self._clock.now()
        if self._searching or self._superseded or self._closed or now - self._looked_s < self._pace.look_s:
            return
        self._looked_s = now
        for slot in self._slots:
            if slot.is_up and not slot.live:  # nobody polls it: it must not feel alone
                self._inbox.when_done(slot.actor.handle.stay.remote(self._token), partial(self._stayed, slot))
        if self._is_owner:
            self._inbox.aside(self._fleet.names, self._saw)

    def _stayed(self, slot: Slot, _: None, error: BaseException | None) -> None:
        """A worker that died idle is not given an attempt."""
        dead = error is not None and not isinstance(error, ActorUnavailableError)
        if dead and slot in self._slots and not slot.attempts:
            self._end_worker(slot)

    def _saw(self, names: set[str] | None, _error: BaseException | None) -> None:
        """A coordinator that was frozen while its study was taken over may have started workers afterwards."""
        if names is None or self._superseded or self._closed:
            return
        unknown = names - {slot.actor.name for slot in (*self._slots, *self._asked)}
        if any(self._fleet.token_of(name) > self._token for name in unknown):
            self._step_back()
            return
        for name in unknown & self._strangers:  # the first time it may have been ours, and about to end
            self._fleet.end_named(name)
        self._strangers = unknown

    # --- workers --------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Give what waits to workers that are free, and start as many more as there is room for."""
        if self._searching or self._superseded or self._closed:
            return
        self._give_way()
        for slot in [slot for slot in self._slots if slot.is_free]:
            if self._waiting.launches and self._may_begin and not self._gives_way(slot):
                self._begin(slot, self._waiting.launches.popleft())
        free = sum(slot.is_free for slot in self._slots)
        wanted = min(len(self._waiting.launches) + len(self._in_line), self._may_begin) - free - self._coming
        if wanted > 0:
            self._start_workers(min(wanted, self._room()))
        self._line_up()
        self._even_out()

    def _start_workers(self, count: int) -> None:
        started = 0
        while started < count and self._shares.may_start(self._member):
            self._start_worker()
            started += 1
        if started and self._member.lacks:
            self._shares.tell_others(self._member)

    def _give_way(self) -> None:
        """Let go of workers whose room another job lacks: those that run nothing, once all of it is recorded."""
        self._declare()
        for slot in [slot for slot in self._slots if self._gives_way(slot)]:
            for running in [running for running in slot.live[1:] if running.recall is None]:
                self._recall(running, "other worker")
            if not slot.attempts and self._gives_way(slot):  # one less may be enough
                self._end_worker(slot)

    def _gives_way(self, slot: Slot) -> bool:
        return self._shares.gives_way(self._member, slot.node)

    def _declare(self) -> None:
        """Say what this job has and wants, where there are others."""
        if self._shares.is_alone:
            return
        attempts = sum(not running.over for running in self._running.values()) + len(self._waiting.launches)
        self._member.workers = Counter(slot.node for slot in (*self._slots, *self._asked))
        self._member.attempts = attempts if self._parallelism is None else min(attempts, self._parallelism)
        self._member.has_begun |= attempts > 0
        self._shares.update()

    def _slots_alone(self) -> int:
        nodes = self._fleet.nodes()
        self._shares.saw(nodes)
        try:
            alone = slots_on(nodes, self._job.resources)
        except UnsatisfiableRequest:
            self._member.can_run = False
            raise
        self._member.can_run = True
        return alone

    def _line_up(self) -> None:
        """Have what no worker can begin stand in line where it will probably begin first.

        Only a trial's first attempt: one that ended its worker before must be seen to do so again.
        """
        coming = self._coming
        over = len(self._waiting.launches) - coming
        if over <= 0 or self._job.environment.isolation == "process":
            return
        kept = [slot for slot in self._slots if slot.has_line and not self._gives_way(slot)]
        for slot in sorted(kept, key=_began_s)[:over]:
            if launch := self._waiting.take_fresh(coming):
                self._begin(slot, launch, in_line=True)

    def _even_out(self) -> None:
        """A worker that has nothing to do gets what has stood in another's line for a while."""
        if self._waiting.launches or self._may_begin <= 0 or not any(slot.is_free for slot in self._slots):
            return
        first = min(self._in_line, key=lambda running: running.since_s, default=None)
        if first is None or first.recall is not None:
            return
        wait_s = first.since_s + self._pace.line_s - self._clock.now()
        if wait_s <= 0:
            self._recall(first, "other worker")
        elif not self._looks_at_lines:
            self._looks_at_lines = True
            self._inbox.later(wait_s, self._look_at_lines)

    def _look_at_lines(self) -> None:
        self._looks_at_lines = False
        self._go_on()

    @property
    def _may_begin(self) -> int:
        """How many more attempts may run at a time than do."""
        if self._parallelism is None:
            return len(self._waiting.launches) + 1
        return self._parallelism - sum(bool(slot.live) for slot in self._slots)

    @property
    def _in_line(self) -> list[Running]:
        """Those that could begin on another worker."""
        return [running for slot in self._slots for running in slot.live[1:] if running.in_line and running.launch]

    @property
    def _coming(self) -> int:
        return sum(not slot.is_up for slot in self._slots)

    def _room(self) -> int:
        """Ray never grants more than the cluster can hold."""
        taken = len(self._slots) + len(self._asked)
        try:
            return self._slots_alone() - taken
        except UnsatisfiableRequest:  # a node went away meanwhile: one worker waits in Ray until it comes back
            return 1 - taken

    def _start_worker(self) -> None:
        slot = Slot(self._fleet.start(self._token))
        self._slots.append(slot)
        self._declare()
        self._inbox.when_done(slot.actor.handle.hello.remote(), partial(self._came_up, slot))

    def _came_up(self, slot: Slot, place: Place | None, error: BaseException | None) -> None:
        if slot not in self._slots:
            return
        if error is None:
            slot.is_up = True
            slot.node = "" if place is None else place.node
        else:
            self._end_worker(slot)
            if self._waiting.launches:
                launch = self._waiting.launches.popleft()
                self._ready.append(Event(launch.attempt, 1, outcome_of_death(error, killed=False)))
        self._go_on()

    def _end_worker(self, slot: Slot) -> None:
        self._slots.remove(slot)
        slot.actor.end()
        self._declare()
        self._shares.tell_others(self._member)

    # --- attempts -------------------------------------------------------------------------------------

    def _live(self, attempt: AttemptId) -> Running | None:
        running = self._running.get(attempt)
        return running if running is not None and not running.over else None

    def _begin(self, slot: Slot, launch: Launch, *, in_line: bool = False) -> None:
        recorded, slot.recorded = slot.recorded, []
        running = Running(launch.attempt, slot, launch, since_s=self._clock.now(), in_line=in_line)
        self._running[launch.attempt] = running
        slot.attempts.append(running)
        again = launch.attempt in slot.withdrawn
        answer = slot.actor.handle.run.remote(self._token, launch, self._pace.poll_s, recorded, again)
        self._inbox.when_done(answer, partial(self._heard, running, slot))

    def _poll(self, running: Running) -> None:
        slot = running.slot
        if slot is None or self._closed or running.over:
            return
        # what this executor has not delivered itself must not be forgotten, whoever else has recorded it
        acknowledged = min(running.acknowledged, running.delivered)
        answer = slot.actor.handle.poll.remote(
            self._token, running.attempt, running.delivered, acknowledged, self._pace.poll_s
        )
        self._inbox.when_done(answer, partial(self._heard, running, slot))

    def _heard(self, running: Running, slot: Slot, reply: Reply | None, error: BaseException | None) -> None:
        if self._running.get(running.attempt) is not running or running.over:
            return  # closed meanwhile, or given up
        if isinstance(error, ActorUnavailableError):  # out of reach, not known to be dead: the outbox keeps everything
            self._inbox.later(self._pace.retry_s, partial(self._poll, running))
        elif reply is not None and reply.is_refused:
            self._give_away(running, slot)
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
            self._tell(running, method, *values)
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

    def _tell(self, running: Running, method: str, *values: Any) -> None:
        if running.heard_of and running.slot is not None:
            told = getattr(running.slot.actor.handle, method).remote(self._token, running.attempt, *values)
            self._inbox.when_done(told, partial(self._told, running, partial(self._tell, running, method, *values)))
        else:
            running.unsent.append((method, values))

    def _told(self, running: Running, repeat: Callable[[], None], _: None, error: BaseException | None) -> None:
        """What a worker out of reach may not have heard is repeated: hearing it twice does no harm."""
        if isinstance(error, ActorUnavailableError):
            self._inbox.later(self._pace.retry_s, partial(self._while_live, running, repeat))

    def _while_live(self, running: Running, action: Callable[[], None]) -> None:
        if self._live(running.attempt) is running:
            action()

    def _deliver(self, running: Running, seq: int, payload: Payload) -> None:
        running.delivered = seq
        self._ready.append(Event(running.attempt, seq, payload))

    def _kill(self, running: Running, slot: Slot) -> None:
        slot.actor.kill()
        self._inbox.later(
            self._pace.killed_s, partial(self._heard, running, slot, None, TimeoutError("Ray does not say"))
        )

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

    def _see_whether_fit(self, ended: Running, slot: Slot, reply: Reply) -> None:
        """A worker that is not begins nothing more, what stands in its line neither."""
        slot.is_spent |= ended.killed or not reply.is_reusable
        if not reply.is_reusable:
            for running in [running for running in slot.live if running.in_line]:
                self._take_back(running, running.recall or "other worker")
            self._go_on()

    def _release(self, running: Running) -> None:
        """Have the attempt's worker free for the next one, or end it."""
        self._forget(running)
        slot = running.slot
        if slot is not None:
            slot.recorded.append(running.attempt)
        is_spent = slot is not None and (slot.is_spent or self._job.environment.isolation == "process")
        if slot in self._slots and is_spent and not slot.attempts:
            self._end_worker(slot)
        self._go_on()

    def _forget(self, running: Running) -> None:
        del self._running[running.attempt]
        if running.slot is not None:
            running.slot.attempts.remove(running)

    # --- lines ----------------------------------------------------------------------------------------

    def _recall(self, running: Running, why: Recall) -> bool:
        """Ask a worker for an attempt that stands in its line; False when it stands in none."""
        if not running.in_line or running.slot is None:
            return False
        is_asked, running.recall = running.recall is not None, why
        if not is_asked:
            self._ask_back(running, running.slot)
        return True

    def _ask_back(self, running: Running, slot: Slot) -> None:
        answer = slot.actor.handle.withdraw.remote(self._token, running.attempt)
        self._inbox.when_done(answer, partial(self._gave_back, running, slot))

    def _gave_back(self, running: Running, slot: Slot, is_withdrawn: bool | None, error: BaseException | None) -> None:
        if self._live(running.attempt) is not running or (why := running.recall) is None:
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
                self.stop(running.attempt)
            elif why == "kill":
                self.kill(running.attempt)

    def _take_back(self, running: Running, why: Recall) -> None:
        """Of an attempt that never began: have it wait again, or end it."""
        self._forget(running)
        if why == "stop":
            self._ready.append(Event(running.attempt, 1, Yielded()))
        elif why == "kill":
            self._ready.append(Event(running.attempt, 1, Lost("killed before it began")))
        elif running.launch is None:
            self._ready.append(Event(running.attempt, 1, Lost("its worker could not begin it", "gone")))
        else:
            self._waiting.launches.appendleft(running.launch)

    def _give_away(self, running: Running, slot: Slot) -> None:
        """Forget an attempt that somebody else has taken over."""
        self._step_back()
        self._forget(running)
        if slot in self._slots:
            self._slots.remove(slot)


class Joined:
    """A Ray that was joined or started, and the jobs that share it. See `driver.Joined`."""

    def __init__(self, address: str | None, local: LocalResources | None, source: str | None, inbox: Inbox) -> None:
        """Join or start it as `cluster.connect` does.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._connection = connect(address, local, source=source)
        self._inbox = inbox
        self._shares = Shares()
        self._clock = SystemClock()
        self._nodes: list[Node] = []
        self._looked_s = -FRESH_S

    def executor(self, job: Job) -> RayExecutor:
        """Run a job's attempts; closing this does not end Ray."""
        fleet = Actors(job, replace(self._connection, owned=False), nodes=self._glance)
        executor = RayExecutor(job, fleet=fleet, inbox=self._inbox, shares=self._shares)
        self._inbox.put(executor.warm_up)
        return executor

    def close(self) -> None:
        """Leave Ray, and end it if it is our own."""
        self._connection.close()

    def _glance(self) -> list[Node]:
        """The nodes as they are or just were: many jobs ask for them."""
        now = self._clock.now()
        if now - self._looked_s >= FRESH_S:
            self._nodes, self._looked_s = living_nodes(), now
        return self._nodes


def _began_s(slot: Slot) -> float:
    """When the attempt began that a worker runs."""
    live = slot.live
    return live[0].since_s if live else 0.0


_SUPERSEDED = (
    "another coordinator has taken over the study's workers on this cluster. If it is gone too, interrupt this one and "
    "say `tune resume`, which goes on with them"
)
