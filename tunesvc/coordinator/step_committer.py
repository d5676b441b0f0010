"""Commits a step's changes, retrying while the database is away, and then performs its actions.

While the database is away, the one step that could not be committed waits here. Trials keep
running, and their reports wait in their outboxes. This module decides nothing.
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
"""Delays before each retry; the last one repeats."""
_MEANWHILE = "Trials run on, and what they report waits in their workers"


class UnitOfWork:
    """The changes of the current step, to which coordinator and search add."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.changes = StudyChanges()
        # Changes that the search recorded when it started.
        self.changes.add(optimizer.recorded)
        optimizer.record_into(self.changes)

    def take(self) -> StudyChanges:
        """Return the changes of the step, and begin the next step."""
        changes, self.changes = self.changes, StudyChanges()
        self._optimizer.record_into(self.changes)
        return changes


class StepCommitter:
    """Brings a decided step to the database, and then to the executor."""

    def __init__(
        self,
        study_writer: StudyWriter,
        executor: Executor,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        observer: Observer,
        commit_thread: futures.Executor | None = None,
    ) -> None:
        """`commit_thread`: commits there while the caller works; None to commit in this thread."""
        self._study_writer = study_writer
        self._executor = executor
        self._clock = clock
        self._sleep = sleep
        self._observer = observer
        self._commit_thread = commit_thread
        self._pending: tuple[StudyChanges, PostCommitActions] | None = None
        self._tries = 0
        self._next_try_s = self._away_since_s = 0.0
        self._stalled: Sequence[tuple[int, int]] = ()
        self.database_error = ""
        """Reason why the database is away; empty while it answers."""

    @property
    def is_behind(self) -> bool:
        """True while a step waits to be committed; nothing new may be decided until then."""
        return self._pending is not None

    def write(
        self,
        changes: StudyChanges,
        actions: PostCommitActions,
        meanwhile: Callable[[], bool] | None = None,
    ) -> bool:
        """Commit and act; return False when the database is away and `try_again` must follow.

        Args:
            meanwhile: called repeatedly while the database works, until it returns False. It must
                not modify the changes or the actions.

        Raises:
            LeaseLost: another coordinator took over; nothing was written or done.
        """
        self._pending = changes, actions
        return self.try_again(0.0, meanwhile)

    def try_again(
        self,
        wait_s: float,
        meanwhile: Callable[[], bool] | None = None,
    ) -> bool:
        """Commit and act once the next try is due; wait for that at most `wait_s` seconds."""
        if self._pending is None:
            return True
        if not self._wait_until_due(wait_s):
            return False
        changes, actions = self._pending
        down = self._study_writer.ensure_running() if self.database_error else ""
        began_s = self._clock.now()
        try:
            stalled = self._commit(changes, meanwhile)
        except DatabaseUnavailable as error:
            self._schedule_retry(down or str(error))
            return False
        if not self._tries:
            # After a retry, the leases that these changes renew date from before the outage.
            self._stalled = [*self._stalled, *stalled]
        self._on_recovered()
        if self._clock.now() - began_s > self._study_writer.ttl_s:
            # This process was frozen and may have been replaced: ask the database before acting.
            return self.write(StudyChanges(), actions)
        self._pending = None
        actions.perform(self._executor)
        return True

    def pop_expired(self) -> Sequence[tuple[int, int]]:
        """Remove and return (trial number, attempt) of the attempts with an expired lease."""
        stalled, self._stalled = self._stalled, ()
        return stalled

    def _wait_until_due(self, wait_s: float) -> bool:
        left_s = self._next_try_s - self._clock.now()
        if left_s > 0:
            self._sleep(min(left_s, wait_s))
        return left_s <= max(wait_s, 0.0)

    def _commit(
        self,
        changes: StudyChanges,
        meanwhile: Callable[[], bool] | None,
    ) -> Sequence[tuple[int, int]]:
        if self._commit_thread is None or meanwhile is None:
            return self._study_writer.commit(changes)
        try:
            committed = self._commit_thread.submit(self._study_writer.commit, changes)
        except RuntimeError:  # the main thread of a program has ended: pools take nothing more
            return self._study_writer.commit(changes)
        try:
            while not committed.done() and meanwhile():
                pass
        finally:
            # Even after an error, no second commit may begin before this one has ended.
            futures.wait([committed])
        return committed.result()

    def _schedule_retry(self, reason: str) -> None:
        now = self._clock.now()
        if not self.database_error:
            self._away_since_s = now
            text = f"the database is away: {reason}. {_MEANWHILE}"
            self._observer.on_event(ProgressEvent("warning", text))
        self.database_error = reason
        self._next_try_s = now + DELAYS_S[min(self._tries, len(DELAYS_S) - 1)]
        self._tries += 1

    def _on_recovered(self) -> None:
        if self.database_error:
            away_s = self._clock.now() - self._away_since_s
            text = f"the database is back after {away_s:.1f} s"
            self._observer.on_event(ProgressEvent("study", text))
        self.database_error = ""
        self._tries = 0
        self._next_try_s = 0.0
