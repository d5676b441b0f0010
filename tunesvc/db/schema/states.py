"""The lifecycles of studies and attempts. (A trial's is Optuna's `TrialState`.)

study     created -> running <-> paused
                     running -> finished | stopped | failed   (`extend`, `resume`: back to running)

attempt   opened -> running -> finished | pruned | paused | failed | lost | interrupted

A trial whose last attempt is paused stays RUNNING for Optuna, and uses no resources. It resumes in
a new attempt when it is promoted, and is PRUNED when the study ends before that.
"""

from __future__ import annotations

from enum import StrEnum

STATES_SHOWN = (
    "waiting",
    "running",
    "complete",
    "pruned",
    "failed",
    "paused",
    "queued",
    "interrupted",
    "stopped",
)
"""States of trials in lists. A running trial is `paused` if its last attempt is, `interrupted`
while no coordinator runs its study, and `queued` until its attempt has started. Optuna's `fail` is
`failed`, as for studies and attempts, or `stopped` if it was ended or cancelled before a report."""
UNFINISHED = ("waiting", "running", "paused", "queued", "interrupted")
"""The shown states that may still change."""


class StudyState(StrEnum):
    """State of a study. A `running` one should run; its lease shows if a coordinator runs it."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    """The budget is spent or the target reached."""
    STOPPED = "stopped"
    """A user stopped it."""
    FAILED = "failed"
    """It cannot continue, for the study's reason."""

    @property
    def is_terminal(self) -> bool:
        """True if nothing more happens without a user."""
        return self in (StudyState.FINISHED, StudyState.STOPPED, StudyState.FAILED)


class Priority(StrEnum):
    """Priority of a study that waits for a server, lowest first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class AttemptState(StrEnum):
    """State of one execution of a trial."""

    OPENED = "opened"
    """Recorded and launched; waits for its resources."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    PAUSED = "paused"
    """Stopped at a rung; the trial resumes in another attempt if it is promoted."""
    FAILED = "failed"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    """Ended by a shutdown, or lost between coordinators; it does not count as a failure."""

    @property
    def is_terminal(self) -> bool:
        """True if the attempt has ended."""
        return self not in (AttemptState.OPENED, AttemptState.RUNNING)
