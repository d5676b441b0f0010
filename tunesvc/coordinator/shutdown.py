"""How a run comes to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tunesvc.db.schema.states import StudyState
from tunesvc.policy import StopCause


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The study runs no further: nothing more is asked, and when nothing runs any more the loop ends."""

    state: StudyState | None
    """The study's state afterwards; None to leave it as it is, so that `resume` goes on."""
    reason: str
    stop: StopCause | None
    """Why running attempts are stopped; None to let them come to their end."""

    @classmethod
    def at_budget(cls, reason: str, failed: int, others: int) -> Self:
        """Return the end of a study that may ask for nothing more: a failure when no trial came to a result.

        Args:
            reason: which budget is spent.
            failed: trials that failed.
            others: trials that came to a result.
        """
        if failed and not others:
            return cls(StudyState.FAILED, f"every trial failed; {reason}", None)
        return cls(StudyState.FINISHED, reason, None)

    @property
    def ends_trials(self) -> bool:
        """Whether trials that are paused, or would be run again, are ended instead."""
        return self.state is not None and self.state.is_terminal
