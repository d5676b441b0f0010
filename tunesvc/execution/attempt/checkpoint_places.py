"""Places of a job's checkpoints: a folder that all nodes share, or an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunesvc.execution.attempt.checkpoints import Checkpoints, CheckpointSaver
from tunesvc.execution.executor import Job
from tunesvc.util.paths import is_url


def open_checkpoints(
    job: Job,
    trial_number: int,
    attempt_number: int,
    *,
    start: str | None = None,
    directory: Callable[[], Path] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> CheckpointSaver:
    """Return the checkpoints of an attempt; the arguments are those of `StoredCheckpoints`."""
    goal = job.goals[0] if job.goals else "minimize"
    root = job.checkpoint_root
    if not is_url(root):
        return Checkpoints(Path(root), trial_number, attempt_number, job.keep, goal=goal)
    # slow to import, and most jobs do without
    from tunesvc.execution.attempt.stored_checkpoints import StoredCheckpoints

    return StoredCheckpoints(
        root,
        trial_number,
        attempt_number,
        job.keep,
        goal=goal,
        start=start,
        directory=directory,
        note=note,
    )
