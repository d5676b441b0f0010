"""Ray and agents as one executor: a launch goes where a slot is free.

Launches wait here until one has a free slot, so that none waits in the queue of an executor while
another one is idle. Belongs to one thread, as the executors do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.agents.agent_executor import AgentExecutor
from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Event,
    Executor,
    Launch,
    Lost,
    Outcome,
    StoppedEarly,
)
from tunesvc.spec import ParamValue
from tunesvc.util.clock import SystemClock

SLOTS_S = 1.0
"""Interval of counting the executors' slots."""
SLICE_S = 0.05
"""Longest wait for the events of one executor before a look at the other."""


class CompositeExecutor:
    """Runs the attempts of one job on agents, and on another executor. See `Executor`."""

    def __init__(self, other: Executor, agents: AgentExecutor) -> None:
        """`other` gets a launch first, if both have a free slot."""
        self._agents = agents
        self._executors: tuple[Executor, ...] = (other, agents)
        self.handover_s = max(executor.handover_s for executor in self._executors)
        self._clock = SystemClock()
        self._waiting: deque[Launch] = deque()
        self._homes: dict[AttemptId, Executor] = {}
        """Executors of the attempts that are not recorded yet."""
        self._running: dict[AttemptId, Executor] = {}
        """The same of the unfinished ones."""
        self._ends: dict[AttemptId, int] = {}
        """Number of the outcome of each finished attempt that is not recorded yet."""
        self._ready: list[Event] = []
        self._parallelism: int | None = None
        self._slots: Sequence[int] = ()
        self._slots_s = -math.inf

    def capacity(self) -> Capacity:
        """Return the total resources of both."""
        parts = [executor.capacity() for executor in self._executors]
        custom: dict[str, float] = {}
        for part in parts:
            for name, amount in part.custom.items():
                custom[name] = custom.get(name, 0.0) + amount
        return Capacity(
            nodes=sum(part.nodes for part in parts),
            cpu=sum(part.cpu for part in parts),
            gpu=sum(part.gpu for part in parts),
            memory=sum(part.memory for part in parts),
            custom=custom,
            by_node=tuple(node for part in parts for node in part.by_node),
        )

    def slots(self) -> int:
        """Return how many attempts may run at a time.

        Raises:
            UnsatisfiableRequest: neither can ever run one.
        """
        self._slots, refusals = self._count_slots()
        self._slots_s = self._clock.now()
        if len(refusals) == len(self._executors):
            raise refusals[0]
        return max(1, sum(self._slots))

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Have each executor adopt its attempts. See `Executor.adopt`."""
        offered = self._agents.offered(cursors)
        for executor in self._executors:
            own = {
                attempt: cursor
                for attempt, cursor in cursors.items()
                if (attempt in offered) == (executor is self._agents)
            }
            self._homes |= dict.fromkeys(own, executor)
            self._running |= dict.fromkeys(own, executor)
            executor.adopt(token, own)

    def heartbeats(self) -> Collection[AttemptId]:
        """Return the attempts with a heartbeat, and those that wait."""
        waiting = [launch.attempt for launch in self._waiting]
        return [*waiting, *(one for executor in self._executors for one in executor.heartbeats())]

    def health_error(self) -> str:
        """Return why one of both cannot launch, if neither can; empty if one is healthy."""
        errors = [executor.health_error() for executor in self._executors]
        return errors[0] if all(errors) else ""

    def launch(self, launch: Launch) -> None:
        """Start an attempt where a slot is free, as soon as there is one."""
        self._parallelism = launch.parallelism
        self._waiting.append(replace(launch, parallelism=None, backlog_max=0))
        self._dispatch()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events not delivered yet. Waits up to `timeout_s` for the first."""
        deadline_s = self._clock.now() + timeout_s
        while True:
            self._dispatch()
            wait_s = 0.0 if self._ready else max(0.0, deadline_s - self._clock.now())
            other, agents = self._executors
            self._take(agents.events(0.0))
            self._take(other.events(0.0 if self._ready else min(wait_s, SLICE_S)))
            if self._ready or self._clock.now() >= deadline_s:
                ready, self._ready = self._ready, []
                return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Confirm that events are recorded."""
        for executor in self._executors:
            own = {
                attempt: cursor
                for attempt, cursor in cursors.items()
                if self._homes.get(attempt) is executor
            }
            if own:
                executor.acknowledge(own)
        for attempt, cursor in cursors.items():
            if cursor >= self._ends.get(attempt, cursor + 1):
                del self._ends[attempt]
                self._homes.pop(attempt, None)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value that an attempt has asked for."""
        if executor := self._homes.get(attempt):
            executor.answer(attempt, name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop. One that waits ends at once."""
        if self._cancel(attempt):
            self._ready.append(Event(attempt, 1, StoppedEarly()))
        elif executor := self._homes.get(attempt):
            executor.stop(attempt)

    def kill(self, attempt: AttemptId) -> None:
        """Kill the attempt's process. One that waits ends at once."""
        if self._cancel(attempt):
            self._ready.append(Event(attempt, 1, Lost("killed before a slot was free")))
        elif executor := self._homes.get(attempt):
            executor.kill(attempt)

    def limit_workers(self, most: int | None) -> None:
        """Limit the workers of each executor."""
        for executor in self._executors:
            executor.limit_workers(most)

    def close(self) -> None:
        """End all attempts. Repeatable."""
        self._waiting.clear()
        for executor in self._executors:
            executor.close()

    def leave(self) -> None:
        """Let attempts run on that can outlive this process."""
        self._waiting.clear()
        for executor in self._executors:
            executor.leave()

    def _count_slots(self) -> tuple[list[int], list[UnsatisfiableRequest]]:
        slots, refusals = [], []
        for executor in self._executors:
            try:
                slots.append(executor.slots())
            except UnsatisfiableRequest as error:
                slots.append(0)
                refusals.append(error)
        return slots, refusals

    def _dispatch(self) -> None:
        """Launch what waits, while an executor has a free slot."""
        if not self._waiting:
            return
        if self._clock.now() - self._slots_s >= SLOTS_S:
            self._slots, _ = self._count_slots()
            self._slots_s = self._clock.now()
        while self._waiting and (executor := self._free_executor()):
            launch = self._waiting.popleft()
            self._homes[launch.attempt] = self._running[launch.attempt] = executor
            executor.launch(launch)

    def _free_executor(self) -> Executor | None:
        if self._parallelism is not None and len(self._running) >= self._parallelism:
            return None
        for executor, slots in zip(self._executors, self._slots, strict=True):
            busy = sum(home is executor for home in self._running.values())
            if busy < slots and not executor.health_error():
                return executor
        return None

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event.payload, Outcome):
                self._running.pop(event.attempt, None)
                self._ends[event.attempt] = event.seq
            self._ready.append(event)

    def _cancel(self, attempt: AttemptId) -> bool:
        for launch in self._waiting:
            if launch.attempt == attempt:
                self._waiting.remove(launch)
                return True
        return False
