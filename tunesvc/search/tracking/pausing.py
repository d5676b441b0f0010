"""Pausing trials instead of stopping them: the part of a pruner that Optuna's interface lacks.

The caller knows which trials are paused; a pruner only selects among them, by their curves. So it
has no state of its own, and decides the same after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol, runtime_checkable

from optuna.study import Study

PAUSED = "tunesvc:paused"
"""System attribute of a paused trial where it is shown as pruned: the number of its points. It may
get more, so code that caches finished trials must read it again."""
RESUMED = "tunesvc:resumed"
"""System attribute of a promoted trial: {"step", "chance"}. Up to that step it is not pruned again.
The chance to end best is what its pruner computed at the promotion, or null."""


class Alternative(StrEnum):
    """Use of a free worker if no paused trial resumes."""

    NEW = "new"
    """A new trial runs."""
    REPEAT = "repeat"
    """Every configuration has been tried, so a new trial can only repeat one."""
    NOTHING = "nothing"
    """No new trial: all of the budget have been asked for."""


@runtime_checkable
class PausingPruner(Protocol):
    """A pruner whose stopped trials may resume.

    Plain Optuna never promotes them: they stay pruned.
    """

    @property
    def pauses(self) -> bool:
        """True if stopped trials are paused."""
        ...

    def promotion(
        self,
        study: Study,
        paused: Mapping[int, int],
        alternative: Alternative,
    ) -> int | None:
        """Return the number of the paused trial to resume now, or None.

        Args:
            study: shows paused trials as pruned ones.
            paused: number -> step after which the trial would resume; -1: from the start.
            alternative: use of the worker if none resumes.
        """
        ...
