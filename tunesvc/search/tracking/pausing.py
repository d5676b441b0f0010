"""Pausing instead of stopping: what a pruner says beside `prune` so that its stopped trials may go on later.

What is paused is known to whoever runs the trials; a pruner only chooses among them, from their curves. So it remembers
nothing, and decides alike after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol, runtime_checkable

from optuna.study import Study

PAUSED = "tunesvc:paused"
"""System attribute that a paused trial bears where it is shown as pruned: how many points its curve has. It may get
more of them, so whoever remembers ended trials has to look at it again."""
RESUMED = "tunesvc:resumed"
"""System attribute of a trial that was promoted: {"step", "chance"}. Up to that step nobody judges it once more; the
chance to end best is what its pruner gave it then, or null."""


class Alternative(StrEnum):
    """What a free worker does when no paused trial goes on."""

    NEW = "new"
    """It runs a new trial."""
    REPEAT = "repeat"
    """Every configuration has been tried: at best it repeats one."""
    NOTHING = "nothing"
    """All trials of the budget were asked."""


@runtime_checkable
class PausingPruner(Protocol):
    """A pruner whose stopped trials may go on later. Where nobody asks it, as in plain Optuna, they are pruned."""

    @property
    def pauses(self) -> bool:
        """Whether what it stops is paused."""
        ...

    def promotion(
        self,
        study: Study,
        paused: Mapping[int, int],
        alternative: Alternative,
    ) -> int | None:
        """The number of the paused trial that goes on now, or None.

        Args:
            study: shows paused trials as pruned ones.
            paused: number -> the step after which it would go on; -1: from the start.
            instead: what is done when none goes on.
        """
        ...
