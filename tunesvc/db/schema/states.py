"""The lifecycles of studies and attempts. (A trial's is Optuna's `TrialState`.)

study     created -> running <-> paused
                     running -> finished | stopped | failed      (`extend` and `resume` lead back to running)

attempt   opened -> running -> finished | pruned | paused | failed | lost | interrupted

A trial whose last attempt is paused stays RUNNING for Optuna, and holds nothing. It goes on in a new attempt when it is
promoted, and is PRUNED when the study ends before that.
"""

from __future__ import annotations

from enum import StrEnum

STATES_SHOWN = ("waiting", "running", "complete", "pruned", "failed", "paused", "queued", "interrupted", "stopped")
"""States of trials in lists: a running trial is `paused` where its last attempt is, `interrupted` while no
coordinator runs its study, and `queued` until its attempt has started; what Optuna calls `fail` is `failed`, as it is
of studies and attempts, or `stopped` where it was ended or taken back before it reported."""
UNFINISHED = ("waiting", "running", "paused", "queued", "interrupted")
"""Those of them that may still change."""


class StudyState(StrEnum):
    """Where a study stands. `running` means wanted to run: whether a coordinator does so, its lease tells."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    """The budget is spent or the target reached."""
    STOPPED = "stopped"
    """Somebody stopped it."""
    FAILED = "failed"
    """It cannot go on; the study's reason says why."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (StudyState.FINISHED, StudyState.STOPPED, StudyState.FAILED)


class AttemptState(StrEnum):
    """Where one execution of a trial stands."""

    OPENED = "opened"
    """Recorded and handed to the executor; waits for its resources."""
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    PAUSED = "paused"
    """Stopped at a rung; the trial goes on in another attempt if it is promoted."""
    FAILED = "failed"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    """Ended by a shutdown, or not found by the next coordinator; the next attempt counts against no limit."""

    @property
    def is_terminal(self) -> bool:
        """Whether the attempt is over."""
        return self not in (AttemptState.OPENED, AttemptState.RUNNING)
