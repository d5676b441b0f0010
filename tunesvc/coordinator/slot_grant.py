"""The part of a shared cluster that a study may use, as it changes during a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotGrant:
    """Number of trials that a study may run at a time."""

    slots: int | None = None
    """No trial begins while as many run. None: as many as fit."""
    ceiling: int | None = None
    """If more run, trials make room, each at its next checkpoint. None: all may finish."""
    reason: str = ""
    """Reason for which trials make room."""
