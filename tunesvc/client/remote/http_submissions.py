"""Studies that are handed to servers, over HTTP."""

from __future__ import annotations

from tunesvc.artifacts.artifact_store import checked_digest
from tunesvc.artifacts.snapshot import Snapshot
from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.new_submission import NewSubmission


class HttpSubmissions:
    """See `SubmissionOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def has_snapshot(self, digest: str) -> bool:
        """Return whether the archive of a folder is stored."""
        return self._connection.get(bool, f"/snapshots/{checked_digest(digest)}")

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store the archive of a folder."""
        path = f"/snapshots/{checked_digest(snapshot.digest)}"
        self._connection.upload(path, snapshot.archive, files=snapshot.files)

    def submit(self, new: NewSubmission) -> StudyView:
        """Queue a study for the next server with room, and return it."""
        body = {
            "spec": new.spec.model_dump(mode="json"),
            "source_text": new.source_text,
            "snapshot": new.snapshot,
            "project": new.project,
            "priority": new.priority,
            "provenance": new.provenance,
        }
        return self._connection.post(StudyView, "/submissions", body)

    def confirm(self, study: str, *, top: int = 5, repeats: int = 5) -> StudyView:
        """Queue repeats of the best trials, and return the study that they are."""
        body = {"top": top, "repeats": repeats}
        return self._connection.post(StudyView, study_path(study, "confirmation"), body)
