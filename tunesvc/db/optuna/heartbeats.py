"""Heartbeats of trials that a process runs through Optuna's own API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna import Study
from optuna.trial import FrozenTrial

StaleTrialCallback = Callable[[Study, FrozenTrial], None]


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """Options of a storage's heartbeats, as Optuna's `RDBStorage` has them.

    Raises:
        ValueError: a number of seconds is not positive.
    """

    interval_s: int | None = None
    """Seconds between two heartbeats of a running trial; None for no heartbeats."""
    grace_period_s: int | None = None
    """Seconds after the last heartbeat until a trial is stale; twice the interval by default."""
    on_stale: StaleTrialCallback | None = None
    """Called by Optuna with each trial that was failed for being stale."""

    def __post_init__(self) -> None:
        named = {"heartbeat_interval": self.interval_s, "grace_period": self.grace_period_s}
        for name, seconds in named.items():
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name} is {seconds}: a positive number of seconds is needed")

    @property
    def stale_after_s(self) -> float:
        """Seconds without a heartbeat after which a trial is stale."""
        return self.grace_period_s or 2 * (self.interval_s or 0)
