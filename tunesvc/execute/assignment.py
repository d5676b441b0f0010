"""Which worker gets what waits, who stands in whose line, and when one more worker is wanted.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
What waits while all workers that there may be are busy stands in line in one of them, which begins it by itself; if
another one is done sooner, that gets it. Imports no Ray itself.
"""

from __future__ import annotations

from tunesvc.clock import SystemClock
from tunesvc.execute.conversation import Conversation
from tunesvc.execute.deaths import outcome_of_death
from tunesvc.execute.dispatch import Pace, Running, Slot, Waiting
from tunesvc.execute.executor import Launch
from tunesvc.execute.inbox import Inbox
from tunesvc.execute.workers import Workers


class Assignment:
    """Gives what waits to workers, as many at a time as may run."""

    def __init__(
        self, workers: Workers, waiting: Waiting, conversation: Conversation, inbox: Inbox, pace: Pace
    ) -> None:
        self._workers = workers
        self._waiting = waiting
        self._conversation = conversation
        self._inbox = inbox
        self._pace = pace
        self._clock = SystemClock()
        self._parallelism: int | None = None
        self._looks_at_lines = False

    def add(self, launch: Launch) -> None:
        """Have one more attempt wait, and others give way to it if need be."""
        self._waiting.launches.append(launch)
        self._parallelism = launch.parallelism
        self.go_on()
        self._workers.ask_for_room()

    def go_on(self) -> None:
        """Give what waits to workers that are free, and start as many more as there is room for."""
        if not self._workers.are_usable:
            return
        self._give_way()
        for slot in [slot for slot in self._workers.slots if slot.is_free]:
            if self._waiting.launches and self._may_begin > 0 and not self._workers.gives_way(slot):
                self._conversation.begin(slot, self._waiting.launches.popleft())
        free = sum(slot.is_free for slot in self._workers.slots)
        could_begin = min(len(self._waiting.launches) + len(self._in_line), self._may_begin)
        if (wanted := could_begin - free - self._workers.coming) > 0:
            self._workers.start(wanted)
        self._line_up()
        self._even_out()

    @property
    def attempts(self) -> int:
        """How many run or wait, or as many of them as may run at a time."""
        attempts = self._conversation.live_count + len(self._waiting.launches)
        return attempts if self._parallelism is None else min(attempts, self._parallelism)

    def lose_first(self, error: BaseException) -> None:
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
    def _in_line(self) -> list[Running]:
        """Those that could begin on another worker."""
        return [
            running for slot in self._workers.slots for running in slot.live[1:] if running.in_line and running.launch
        ]

    def _give_way(self) -> None:
        """Let go of workers whose room another job lacks: those that run nothing, once all of it is recorded."""
        self._workers.declare()
        for slot in [slot for slot in self._workers.slots if self._workers.gives_way(slot)]:
            for running in [running for running in slot.live[1:] if running.recall is None]:
                self._conversation.recall(running, "other worker")
            if not slot.attempts and self._workers.gives_way(slot):  # one less may be enough
                self._workers.end(slot)

    def _line_up(self) -> None:
        """Have what no worker can begin stand in line where it will probably begin first.

        Only a trial's first attempt: one that ended its worker before must be seen to do so again.
        """
        coming = self._workers.coming
        over = len(self._waiting.launches) - coming
        if over <= 0 or not self._workers.are_reused:
            return
        kept = [slot for slot in self._workers.slots if slot.has_line and not self._workers.gives_way(slot)]
        for slot in sorted(kept, key=_began_s)[:over]:
            if launch := self._waiting.take_fresh(coming):
                self._conversation.begin(slot, launch, in_line=True)

    def _even_out(self) -> None:
        """A worker that has nothing to do gets what has stood in another's line for a while."""
        is_any_free = any(slot.is_free for slot in self._workers.slots)
        if self._waiting.launches or self._may_begin <= 0 or not is_any_free:
            return
        first = min(self._in_line, key=lambda running: running.since_s, default=None)
        if first is None or first.recall is not None:
            return
        wait_s = first.since_s + self._pace.line_s - self._clock.now()
        if wait_s <= 0:
            self._conversation.recall(first, "other worker")
        elif not self._looks_at_lines:
            self._looks_at_lines = True
            self._inbox.later(wait_s, self._look_at_lines)

    def _look_at_lines(self) -> None:
        self._looks_at_lines = False
        self.go_on()


def _began_s(slot: Slot) -> float:
    """When the attempt began that a worker runs."""
    live = slot.live
    return live[0].since_s if live else 0.0
