"""Deletes artifacts that nothing needs any more, in a thread of its own.

Snapshots that no study has, uploads that were never finished, and what a worker could not delete
before it ended. Of a trial that runs, waits or is paused it touches nothing. Several servers may
do so at once: each deletion may be repeated.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tunesvc.artifacts.artifact_store import UPLOAD_MAX, ArtifactStore
from tunesvc.artifacts.trial_checkpoints import TrialCheckpoints
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import ArtifactDamaged, ArtifactStoreError, DatabaseUnavailable
from tunesvc.execution.attempt.checkpoints import CheckpointFile, parse_checkpoint, select_kept
from tunesvc.queries.operations.recorded_checkpoints import EndedTrial, list_ended_trials
from tunesvc.runtime.submission import collect_snapshots
from tunesvc.spec.goals import orient
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

INTERVAL_S = 3600.0
RECENT = timedelta(days=3)
"""Studies that have ended before are clean."""


class ArtifactCollector:
    """Collects once an hour, until it is stopped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="artifacts", daemon=True)

    def __enter__(self) -> ArtifactCollector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # it may wait for a store: it ends with the process

    def collect(self) -> None:
        """Collect once.

        Raises:
            ArtifactStoreError, DatabaseUnavailable: the rest is collected the next time.
        """
        with translate_unavailable():
            collect_snapshots(self._database, ArtifactStore.open())
            for trial in list_ended_trials(self._database, RECENT):
                if self._stop.is_set():
                    return
                collect_trial(trial, datetime.now(UTC) - UPLOAD_MAX)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self.collect()
            except (ArtifactStoreError, DatabaseUnavailable) as error:
                _logger.warning("artifacts are collected later: %s", error)


def collect_trial(trial: EndedTrial, before: datetime) -> None:
    """Apply `keep` to the checkpoints of a trial that has ended, up to the recorded one.

    Newer ones, and content that no checkpoint names, are deleted if they are older than `before`: a
    worker without a coordinator may still be busy.

    Raises:
        ArtifactStoreError: the store does not answer.
    """
    store, recorded = TrialCheckpoints.of(trial.location)
    last = _file(recorded)
    manifests = {}
    for name in store.names():
        try:
            manifests[name] = store.find(name)
        except ArtifactDamaged as error:
            _logger.warning("%s", error)
    files = sorted(file for file in map(_file, manifests) if file is not None)
    known = [file for file in files if last is not None and file <= last]
    values = {
        file: value
        for file in known
        if (value := manifests[file.path.parent.name].value) is not None
    }
    kept = select_kept(known, values, trial.keep, orient(trial.goal))
    gone = [file.path.parent.name for file in known if file not in kept]
    stale = store.stale(before)
    later = [file.path.parent.name for file in files if file not in known]
    gone += [name for name in later if name in stale]
    store.delete(gone, [*(file.path.parent.name for file in known), *stale])


def _file(checkpoint: str) -> CheckpointFile | None:
    return parse_checkpoint(Path(checkpoint) / "content")
