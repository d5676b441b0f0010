"""Finished trials of a study, each read once, at a cost that does not grow.

Code that caches something about a study's trials (counts, columns, the best) follows them with its
own `FinishedTrials`. A finished trial does not change, except that a paused one may be resumed.
Works with any Optuna storage; `RecordingStorage` lists the resumed trials itself. Imports no
sampler and no pruner.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.util.optuna_internals import storage_of


class FinishedTrials:
    """Follows the trials of one study. Not thread-safe."""

    def __init__(self) -> None:
        self._read_count = 0
        self._open: set[int] = set()
        """Indices of unfinished trials."""
        self._paused: dict[int, FrozenTrial] = {}
        """Index -> the paused trial as it was read."""
        self._resumed_read = 0

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None,
    ) -> tuple[dict[int, FrozenTrial], list[int]]:
        """Return what changed since the last call.

        Args:
            trials: the study's own, in order of their numbers. Later calls pass as many or more,
                except that the last ones may have been removed.
            resumed: see `resumed_in`.

        Returns:
            Trials that are no longer finished, as they were, by index; and indices of trials that
            have finished, in order. A trial that was resumed and paused again is in both.
        """
        reopened = {}
        for index in self._to_reread(resumed, len(trials)):
            if trials[index] is not self._paused[index]:
                reopened[index] = self._paused.pop(index)
        self._open.update(reopened, range(self._read_count, len(trials)))
        self._read_count = max(self._read_count, len(trials))
        finished = [index for index in self.open(trials) if trials[index].state.is_finished()]
        self._open.difference_update(finished)
        for index in finished:
            if PAUSED in trials[index].system_attrs:
                self._paused[index] = trials[index]
        return reopened, finished

    def open(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Return the indices of unfinished trials, in order."""
        return [index for index in sorted(self._open) if index < len(trials)]

    def is_paused(self, index: int) -> bool:
        """Return True if that trial is finished for now, but may be resumed."""
        return index in self._paused

    def _to_reread(
        self,
        resumed: Sequence[int] | None,
        count: int,
    ) -> list[int]:
        """Return the indices of paused trials that may have been resumed."""
        if resumed is None:
            return sorted(index for index in self._paused if index < count)
        indices = self._paused.keys() & resumed[self._resumed_read :]
        self._resumed_read = len(resumed)
        return sorted(indices)


def resumed_in(study: Study) -> Sequence[int] | None:
    """Return the numbers of trials that were paused and are no longer, or None.

    The list only grows.
    """
    return getattr(storage_of(study), "resumed", None)


def changes_of(study: Study) -> int | None:
    """Return the count of changes in the study's storage; None if it does not count them.

    Prefetched trials are not counted: code that reads those too must also compare the number of
    trials.
    """
    return getattr(storage_of(study), "changes", None)


def forecasts_in(study: Study) -> object:
    """Return an object that identifies the forecasts which replace pruned trials; None without any.

    It is equal as long as they stay the same. Caches of such trials are rebuilt when it changes.
    """
    return getattr(study, "forecasts", None)
