"""Which worker gets what waits, who stands in whose line, and when one more worker is wanted.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
What waits while all workers that there may be are busy stands in line in one of them, which begins it by itself; if
another one is done sooner, that gets it. Nobody but the next one stands behind a long attempt. Imports no Ray itself.
"""

from __future__ import annotations

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Launch
from tunesvc.execution.ray.dispatch_state import AssignedAttempt, PendingQueue, PollingTimeouts, WorkerState
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.util.clock import SystemClock


class Scheduler:
    """Gives what waits to workers, as many at a time as may run."""

    def __init__(
        self,
        workers: WorkerPool,
        waiting: PendingQueue,
        conversation: WorkerClient,
        inbox: EventLoop,
        pace: PollingTimeouts,
    ) -> None:
        self._workers = workers
        self._waiting = waiting
        self._conversation = conversation
        self._inbox = inbox
        self._pace = pace
        self._clock = SystemClock()
        self._parallelism: int | None = None
        self._line = 1
        self._looks_at_lines = False

    def add(self, launch: Launch) -> None:
        """Have one more attempt wait, and others give way to it if need be."""
        self._waiting.launches.append(launch)
        self._parallelism, self._line = launch.parallelism, launch.line
        self.schedule()
        self._workers.request_capacity()

    def schedule(self) -> None:
        """Give what waits to workers that are free, and start as many more as there is room for."""
        if not self._workers.are_usable:
            return
        self._give_way()
        for slot in [slot for slot in self._workers.slots if slot.is_free]:
            if self._waiting.launches and self._may_begin > 0 and not self._workers.should_release(slot):
                self._conversation.begin(slot, self._waiting.launches.popleft())
        free = sum(slot.is_free for slot in self._workers.slots)
        could_begin = min(len(self._waiting.launches) + len(self._in_line), self._may_begin)
        if (wanted := could_begin - free - self._workers.coming) > 0:
            self._workers.start(wanted)
        self._fill_backlogs()
        self._trim_backlogs()
        self._rebalance()

    @property
    def attempts(self) -> int:
        """How many run or wait, or as many of them as may run at a time."""
        attempts = self._conversation.live_count + len(self._waiting.launches)
        return attempts if self._parallelism is None else min(attempts, self._parallelism)

    def fail_first(self, error: BaseException) -> None:
        """A worker that cannot come up takes an attempt along: else one would be started after another, uncounted."""
        if self._waiting.launches:
            launch = self._waiting.launches.popleft()
            self._conversation.never_began(launch.attempt, outcome_of_death(error, killed=False))

    @property
    def _may_begin(self) -> int:
        """How many more attempts may run at a time than do."""
        if self._parallelism is None:
            return len(self._waiting.launches) + 1
        return self._parallelism - sum(bool(slot.live) for slot in self._workers.slots)

    @property
    def _in_line(self) -> list[AssignedAttempt]:
        """Those that could begin on another worker."""
        return [
            running for slot in self._workers.slots for running in slot.live[1:] if running.in_line and running.launch
        ]

    def _give_way(self) -> None:
        """Let go of workers whose room another job lacks: those that run nothing, once all of it is recorded."""
        self._workers.publish_demand()
        for slot in [slot for slot in self._workers.slots if self._workers.should_release(slot)]:
            for running in slot.live[1:]:
                self._recall(running)
            if not slot.attempts and self._workers.should_release(slot):  # one less may be enough
                self._workers.end(slot)

    def _fill_backlogs(self) -> None:
        """Have what no worker can begin stand in line where it will probably begin first.

        Only a trial's first attempt: one that ended its worker before must be seen to do so again.
        """
        coming = self._workers.coming
        if len(self._waiting.launches) <= coming or not self._workers.are_reused:
            return
        kept = [slot for slot in self._workers.slots if not self._workers.should_release(slot)]
        while open_slots := [slot for slot in kept if slot.has_room_in_line(self._line_of(slot))]:
            launch = self._waiting.take_fresh(coming)
            if launch is None:
                return
            self._conversation.begin(min(open_slots, key=_begins_s), launch, in_line=True)

    def _line_of(self, slot: WorkerState) -> int:
        """How many may stand in a worker's line."""
        return 1 if self._clock.now() - _began_s(slot) > self._pace.long_s else self._line

    def _trim_backlogs(self) -> None:
        """Nobody but the next one stands behind an attempt that turns out to be long."""
        for slot in self._workers.slots:
            for running in slot.live[1 + self._line_of(slot) :]:
                if running.launch:
                    self._recall(running)

    def _rebalance(self) -> None:
        """Workers that have nothing to do get what has stood in others' lines for a while."""
        free = sum(slot.is_free for slot in self._workers.slots)
        count = 0 if self._waiting.launches else max(0, min(free, self._may_begin))
        for first in sorted(self._in_line, key=lambda running: running.since_s)[:count]:
            wait_s = first.since_s + self._pace.line_s - self._clock.now()
            if wait_s > 0:
                self._look_later(wait_s)
                break
            self._recall(first)

    def _recall(self, running: AssignedAttempt) -> None:
        if running.recall is None:
            self._conversation.recall(running, "other worker")

    def _look_later(self, wait_s: float) -> None:
        if not self._looks_at_lines:
            self._looks_at_lines = True
            self._inbox.later(wait_s, self._look_at_lines)

    def _look_at_lines(self) -> None:
        self._looks_at_lines = False
        self.schedule()


def _began_s(slot: WorkerState) -> float:
    """When the attempt began that a worker runs."""
    live = slot.live
    return live[0].since_s if live else 0.0


def _begins_s(slot: WorkerState) -> tuple[int, float]:
    """By how much stands in its line, then by how long it has run what it runs."""
    return len(slot.live), _began_s(slot)
