"""The Executor on Ray: one warm actor per slot, reused from attempt to attempt of the job.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
Each live attempt has one long-poll under way, whose answer arrives in one inbox, so the cost is per event and not per
worker. A worker is free only when its attempt's outcome is recorded: until then it alone has it. Meant for one thread:
others only put into the inbox, and count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ray.exceptions import ActorUnavailableError

from tunesvc.clock import SystemClock
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.actors import Actors
from tunesvc.execute.cluster import LocalResources, connect
from tunesvc.execute.deaths import outcome_of_death
from tunesvc.execute.dispatch import Pace, Running, Slot, Waiting
from tunesvc.execute.executor import (
    AttemptId,
    Capacity,
    Event,
    Job,
    Launch,
    Lost,
    Outcome,
    Payload,
    Yielded,
)
from tunesvc.execute.fleet import Fleet, WorkerActor
from tunesvc.execute.inbox import Inbox
from tunesvc.execute.requests import capacity_of, slots_on
from tunesvc.execute.worker import Found, Reply
from tunesvc.spec import ParamValue


class RayExecutor:
    """Runs the attempts of one job on Ray. See `Executor`."""

    def __init__(
        self,
        job: Job,
        *,
        address: str | None = None,
        local: LocalResources | None = None,
        pace: Pace | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        With `fleet` the workers come from there.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._fleet = fleet or Actors.join(job, address, local)
        self._job = self._fleet.job
        self._pace = pace or Pace()
        self._clock = SystemClock()
        self._inbox = Inbox()
        self._waiting = Waiting()
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
        """How many attempts the cluster can hold at a time. See `Executor.slots`. Any thread may ask."""
        self._inbox.put(self._look_around)
        return slots_on(self._fleet.nodes(), self._job.resources)

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
        self._go_on()

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
        elif running := self._live(attempt):
            self._tell(running, "stop")

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; `Lost` follows when Ray says that it is dead, or does not say so for long."""
        if self._waiting.remove(attempt):
            self._ready.append(Event(attempt, 1, Lost("killed before a worker was free")))
        elif (running := self._live(attempt)) and not running.killed:
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
            idle = [slot.actor for slot in self._slots if slot.running is None]
            self._part([] if self._superseded else idle)
        else:
            self.close()

    def soon(self, action: Callable[[], None]) -> None:
        """Have the thread that listens to events do something; any thread may ask for that."""
        self._inbox.put(action)

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
        self._fleet.close()

    def warm_up(self) -> None:
        """Start the first worker of a local Ray now, where it need not know yet for which coordinator."""
        if not self._fleet.shared:
            with suppress(UnsatisfiableRequest):  # whoever asks for the slots is told
                self.slots()
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
        sought = self._running.get(found.attempt) if found is not None and found.attempt is not None else None
        if found is not None and found.is_refused:
            self._step_back()
        elif sought is not None and sought.slot is None:
            self._attach(sought, slot)
        else:
            slot.actor.end()
        self._conclude()

    def _attach(self, running: Running, slot: Slot) -> None:
        running.slot, running.answered = slot, True
        slot.running, slot.is_up, slot.is_adopted = running, True, True
        self._slots.append(slot)
        self._poll(running)
        if running.killed:
            self._kill(running, slot)

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

    def _look_around(self) -> None:
        now = self._clock.now()
        if self._searching or self._superseded or self._closed or now - self._looked_s < self._pace.look_s:
            return
        self._looked_s = now
        for slot in self._slots:
            if slot.is_up and (slot.running is None or slot.running.over):  # nobody polls it: it must not feel alone
                self._inbox.when_done(slot.actor.handle.stay.remote(self._token), partial(self._stayed, slot))
        if self._is_owner:
            self._inbox.aside(self._fleet.names, self._saw)

    def _stayed(self, slot: Slot, _: None, error: BaseException | None) -> None:
        """A worker that died idle is not given an attempt."""
        dead = error is not None and not isinstance(error, ActorUnavailableError)
        if dead and slot in self._slots and slot.running is None:
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
        for slot in [slot for slot in self._slots if slot.is_up and slot.running is None]:
            if self._waiting.launches:
                self._begin(slot, self._waiting.launches.popleft())
        coming = sum(not slot.is_up for slot in self._slots)
        wanted = len(self._waiting.launches) - coming
        if wanted > 0:
            for _ in range(min(wanted, self._room())):
                self._start_worker()

    def _room(self) -> int:
        """Ray never grants more than the cluster can hold."""
        taken = len(self._slots) + len(self._asked)
        try:
            return self.slots() - taken
        except UnsatisfiableRequest:  # a node went away meanwhile: one worker waits in Ray until it comes back
            return 1 - taken

    def _start_worker(self) -> None:
        slot = Slot(self._fleet.start(self._token))
        self._slots.append(slot)
        self._inbox.when_done(slot.actor.handle.hello.remote(), partial(self._came_up, slot))

    def _came_up(self, slot: Slot, _place: object, error: BaseException | None) -> None:
        if slot not in self._slots:
            return
        if error is None:
            slot.is_up = True
        else:
            self._end_worker(slot)
            if self._waiting.launches:
                launch = self._waiting.launches.popleft()
                self._ready.append(Event(launch.attempt, 1, outcome_of_death(error, killed=False)))
        self._go_on()

    def _end_worker(self, slot: Slot) -> None:
        self._slots.remove(slot)
        slot.actor.end()

    # --- attempts -------------------------------------------------------------------------------------

    def _live(self, attempt: AttemptId) -> Running | None:
        running = self._running.get(attempt)
        return running if running is not None and not running.over else None

    def _begin(self, slot: Slot, launch: Launch) -> None:
        running = slot.running = self._running[launch.attempt] = Running(launch.attempt, slot)
        answer = slot.actor.handle.run.remote(self._token, launch, self._pace.poll_s)
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
        elif reply is None or not reply.is_known:
            self._died(running, error or RuntimeError("the launch did not reach it"))
        else:
            self._take(running, reply)

    def _take(self, running: Running, reply: Reply) -> None:
        running.answered = running.heard_of = True
        unsent, running.unsent = running.unsent, []
        for method, values in unsent:
            self._tell(running, method, *values)
        for seq, payload in reply.events:
            self._deliver(running, seq, payload)
        if reply.events and isinstance(reply.events[-1][1], Outcome):
            running.over = True
            running.reusable = reply.is_reusable
        else:
            self._poll(running)
        if running.is_recorded:  # by a coordinator whose driver had heard the outcome before this one
            self._release(running)

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
        self._deliver(running, running.delivered + 1, outcome_of_death(error, killed=running.killed))
        self._release(running)

    def _release(self, running: Running) -> None:
        """Have the attempt's worker free for the next one, or end it."""
        del self._running[running.attempt]
        if running.slot is not None:
            running.slot.running = None
            if not self._may_go_on(running, running.slot):
                self._end_worker(running.slot)
        self._go_on()

    def _may_go_on(self, running: Running, slot: Slot) -> bool:
        isolated = self._job.environment.isolation == "process"
        return running.reusable and not (running.killed or slot.is_adopted or isolated)

    def _give_away(self, running: Running, slot: Slot) -> None:
        """Forget an attempt that somebody else has taken over."""
        self._step_back()
        del self._running[running.attempt]
        self._slots.remove(slot)


def join(address: str | None, local: LocalResources | None, source: str | None) -> Callable[[Job], RayExecutor]:
    """Join Ray as `Actors.join` does, for a job that is not known yet; what is returned makes its executor.

    Raises:
        ExecutorError: Ray could not be started or reached.
    """
    connection = connect(address, local, source=source)

    def make_executor(job: Job) -> RayExecutor:
        executor = RayExecutor(job, fleet=Actors(job, connection))
        executor.warm_up()
        return executor

    return make_executor


_SUPERSEDED = (
    "another coordinator has taken over the study's workers on this cluster. If it is gone too, interrupt this one and "
    "say `tune resume`, which goes on with them"
)
