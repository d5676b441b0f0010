"""Finished trials of a study, each read once, so that an update costs the same however many there are.

Code that keeps something of a study's trials (counts, columns, the best) follows them by a `FinishedTrials` of its own:
a finished trial does not change any more, except that a paused one may be resumed. Works with any Optuna storage;
`RecordingStorage` names the resumed ones itself. Imports no sampler and no pruner.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.tracking.pausing import PAUSED


class FinishedTrials:
    """Follows one study. Not thread-safe."""

    def __init__(self) -> None:
        self._looked_at = 0
        self._open: set[int] = set()
        """Places of trials that are not over."""
        self._paused: dict[int, FrozenTrial] = {}
        """Place -> the trial as it was looked at."""
        self._heard = 0

    def look(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None,
    ) -> tuple[dict[int, FrozenTrial], list[int]]:
        """Places of trials that are over no longer, with what they were, and of those that are over since the last
        look, both in order. A paused trial that went on and is paused again is among both.

        Args:
            trials: all of the study's own, in order of their numbers; later calls show as many or more, but for the
                last ones, which may have been taken back.
            gone_on: see `gone_on_in`.
        """
        called = self._called(resumed, len(trials))
        again = {place: self._paused.pop(place) for place in called if trials[place] is not self._paused[place]}
        self._open.update(again, range(self._looked_at, len(trials)))
        self._looked_at = max(self._looked_at, len(trials))
        over = [place for place in self.open(trials) if trials[place].state.is_finished()]
        self._open.difference_update(over)
        self._paused.update((place, trials[place]) for place in over if PAUSED in trials[place].system_attrs)
        return again, over

    def open(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Places of the trials that are not over, in order."""
        return [place for place in sorted(self._open) if place < len(trials)]

    def is_paused(self, place: int) -> bool:
        """Whether that trial is over for now only."""
        return place in self._paused

    def _called(self, resumed: Sequence[int] | None, count: int) -> list[int]:
        """Places of paused trials to look at once more."""
        if resumed is None:
            return sorted(place for place in self._paused if place < count)
        called = self._paused.keys() & resumed[self._heard :]
        self._heard = len(resumed)
        return sorted(called)


def resumed_in(study: Study) -> Sequence[int] | None:
    """Numbers of the trials that were paused and are no longer, as far as the storage tells; a list that only grows."""
    return getattr(study._storage, "resumed", None)


def changes_of(study: Study) -> int | None:
    """How often anything was changed in the study's storage, as far as that tells; None when it does not.

    Trials drawn ahead are not counted: who looks at those too also has to compare how many trials there are.
    """
    return getattr(study._storage, "changes", None)


def forecasts_in(study: Study) -> object:
    """Which forecasts the study shows in place of its pruned trials: something equal as long as they stay as they are,
    which may be for a while only; None when it shows none. Who keeps something of such trials learns them anew."""
    return getattr(study, "forecasts", None)


def split(
    trials: Sequence[FrozenTrial],
) -> tuple[Sequence[FrozenTrial], Sequence[FrozenTrial]]:
    """The trials that other studies lend, which come first and have negative numbers, and the study's own."""
    transferred = next(
        (place for place, trial in enumerate(trials) if trial.number >= 0),
        len(trials),
    )
    return (trials[:transferred], trials[transferred:]) if transferred else ((), trials)
