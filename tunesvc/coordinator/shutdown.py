"""The end of a run: its reason, and what becomes of trials that still run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tunesvc.db.schema.states import StudyState
from tunesvc.policy import StopCause


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The end of a run: no new trials, and the loop ends with the last live attempt."""

    state: StudyState | None
    """The study's state afterwards; None to leave it unchanged, so that `resume` continues."""
    reason: str
    stop: StopCause | None
    """Cause with which running attempts are stopped; None to let them finish."""
    leaves_attempts: bool = False
    """True if the loop ends at once, and attempts run on for the next coordinator to adopt."""

    @classmethod
    def at_budget(cls, reason: str, failed: int, others: int) -> Self:
        """Return the end of a study with a spent budget: a failure if no trial has a result.

        Args:
            reason: which budget is spent.
            failed: trials that failed.
            others: trials that have a result.
        """
        if failed and not others:
            return cls(StudyState.FAILED, f"every trial failed; {reason}", None)
        return cls(StudyState.FINISHED, reason, None)

    @classmethod
    def handover(cls) -> Self:
        """Return the end of a run that another coordinator continues."""
        return cls(None, "handed over to the next coordinator", None, leaves_attempts=True)

    @property
    def ends_trials(self) -> bool:
        """True if paused trials, and those that wait to be run again, are ended too."""
        return self.state is not None and self.state.is_terminal
