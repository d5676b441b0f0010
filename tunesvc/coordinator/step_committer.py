"""Writes the steps of a study: commits a step's batch, however many tries that takes, and only then acts on it.

While the database is away the one batch that could not be committed waits here; trials run on, and what they report
waits in their outboxes. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures

from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import DatabaseUnavailable
from tunesvc.execution.executor import Executor
from tunesvc.search.optimizer import Optimizer
from tunesvc.util.clock import Clock

DELAYS_S = (0.05, 0.2, 1.0, 3.0, 5.0)
"""How long to wait before each further try; the last one again and again."""


class UnitOfWork:
    """The changes of the step that is under way: the coordinator, its parts and the search add to the same ones."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.changes = StudyChanges()
        self.changes.add(optimizer.recorded)  # by the start of the search
        optimizer.record_into(self.changes)

    def take(self) -> StudyChanges:
        """Return the changes of the step, and begin the next one."""
        changes, self.changes = self.changes, StudyChanges()
        self._optimizer.record_into(self.changes)
        return changes


class StepCommitter:
    """The way from a decided step to the database and to the executor."""

    def __init__(
        self,
        ledger: StudyWriter,
        executor: Executor,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        observer: Observer,
        beside: futures.Executor | None = None,
    ) -> None:
        """`beside`: a thread of its own to commit in, while the caller has something to do meanwhile."""
        self._ledger = ledger
        self._executor = executor
        self._clock = clock
        self._sleep = sleep
        self._observer = observer
        self._beside = beside
        self._waiting: tuple[StudyChanges, PostCommitActions] | None = None
        self._tries = 0
        self._next_try_s = self._away_since_s = 0.0
        self._stalled: Sequence[tuple[int, int]] = ()
        self.trouble = ""
        """Why the database takes nothing for now; empty when it does."""

    @property
    def is_behind(self) -> bool:
        """Whether a step waits to be committed; nothing else may be decided before it is."""
        return self._waiting is not None

    def write(
        self, batch: StudyChanges, effects: PostCommitActions, meanwhile: Callable[[], bool] | None = None
    ) -> bool:
        """Commit and act; False when the database is away, and `try_again` has to follow.

        Args:
            meanwhile: is called again and again while the database works, until it returns False. It must change
                nothing that the batch or the effects hold.

        Raises:
            LeaseLost: another coordinator took over; nothing was written or done.
        """
        self._waiting = batch, effects
        return self.try_again(0.0, meanwhile)

    def try_again(self, wait_s: float, meanwhile: Callable[[], bool] | None = None) -> bool:
        """Commit and act as soon as the next try is due; waits for that for at most `wait_s`."""
        if self._waiting is None:
            return True
        if (left_s := self._next_try_s - self._clock.now()) > 0:
            self._sleep(min(left_s, wait_s))
            if left_s > wait_s:
                return False
        down = self._ledger.ensure_running() if self.trouble else ""
        began_s = self._clock.now()
        try:
            stalled = self._commit(self._waiting[0], meanwhile)
        except DatabaseUnavailable as error:
            self._schedule_retry(down or str(error))
            return False
        if not self._tries:  # else the leases that this batch renews are those of the time before the outage
            self._stalled = [*self._stalled, *stalled]
        self._on_recovered()
        effects = self._waiting[1]
        if self._clock.now() - began_s > self._ledger.ttl_s:
            # This process was frozen and may have been replaced meanwhile: ask before acting.
            return self.write(StudyChanges(), effects)
        self._waiting = None
        effects.perform(self._executor)
        return True

    def pop_expired(self) -> Sequence[tuple[int, int]]:
        """(trial number, attempt) of those whose own lease has run out, each told once."""
        stalled, self._stalled = self._stalled, ()
        return stalled

    def _commit(self, batch: StudyChanges, meanwhile: Callable[[], bool] | None) -> Sequence[tuple[int, int]]:
        if self._beside is None or meanwhile is None:
            return self._ledger.commit(batch)
        committed = self._beside.submit(self._ledger.commit, batch)
        try:
            while not committed.done() and meanwhile():
                pass
        finally:  # whatever happens, nobody else writes to the ledger at the same time
            futures.wait([committed])
        return committed.result()

    def _schedule_retry(self, reason: str) -> None:
        now = self._clock.now()
        if not self.trouble:
            self._away_since_s = now
            text = f"the database is away: {reason}. Trials run on, and what they report waits in their workers"
            self._observer.on_event(ProgressEvent("warning", text))
        self.trouble = reason
        self._next_try_s = now + DELAYS_S[min(self._tries, len(DELAYS_S) - 1)]
        self._tries += 1

    def _on_recovered(self) -> None:
        if self.trouble:
            away_s = self._clock.now() - self._away_since_s
            self._observer.on_event(ProgressEvent("study", f"the database is back after {away_s:.1f} s"))
        self.trouble = ""
        self._tries = 0
        self._next_try_s = 0.0
