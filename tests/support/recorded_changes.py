"""Changes that a search has recorded, for tests that commit nothing."""

from __future__ import annotations

from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.study_storage import RecordingStorage


def take_changes(memory: RecordingStorage) -> TrialChanges:
    """Return what was recorded since the last call."""
    changes = memory.recorded
    memory.record_into(TrialChanges())
    return changes
