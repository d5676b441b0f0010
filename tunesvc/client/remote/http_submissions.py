"""Studies that are handed to servers, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesvc.artifacts.artifact_store import checked_digest
from tunesvc.artifacts.snapshot import Snapshot
from tunesvc.client.answers import RequestedFinal
from tunesvc.client.remote.connection import ServerConnection, escaped, study_path
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.new_submission import NewSubmission

if TYPE_CHECKING:
    from tunesvc.db.champions.served_watches import ServedWatch


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
        body = {**_study(new), "priority": new.priority}
        return self._connection.post(StudyView, "/submissions", body)

    def confirm(self, study: str, *, top: int = 5, repeats: int = 5) -> StudyView:
        """Queue repeats of the best trials, and return the study that they are."""
        body = {"top": top, "repeats": repeats}
        return self._connection.post(StudyView, study_path(study, "confirmation"), body)

    def watch(
        self, new: NewSubmission, *, every_s: float | None = None, always: bool = False
    ) -> ServedWatch:
        """Let servers watch the family of a study; it looks at once."""
        from tunesvc.db.champions.served_watches import ServedWatch

        body = {**_study(new), "every_s": every_s, "always": always}
        return self._connection.put(ServedWatch, _watch_path(new.spec.name), body)

    def watches(self) -> tuple[ServedWatch, ...]:
        """Return the families that servers watch, by name."""
        from tunesvc.db.champions.served_watches import ServedWatch

        return self._connection.get(tuple[ServedWatch, ...], "/watches")

    def unwatch(self, family: str) -> ServedWatch:
        """Stop servers from watching a family; return its watch as it was."""
        from tunesvc.db.champions.served_watches import ServedWatch

        return self._connection.delete(ServedWatch, _watch_path(family))

    def test(self, study: str, *, again: bool = False) -> RequestedFinal | None:
        """Queue the evaluation on the test part; return the final run."""
        kind: Any = RequestedFinal | None
        found: RequestedFinal | None = self._connection.post(
            kind, study_path(study, "test"), {"again": again}
        )
        return found

    def apply(
        self, study: str, number: int | None = None, *, replace: bool = False
    ) -> RequestedFinal:
        """Queue the training of the final model, and return the final run."""
        body = {"trial": number, "replace": replace}
        return self._connection.post(RequestedFinal, study_path(study, "model"), body)


def _study(new: NewSubmission) -> dict[str, Any]:
    return {
        "spec": new.spec.model_dump(mode="json"),
        "source_text": new.source_text,
        "snapshot": new.snapshot,
        "project": new.project,
        "provenance": new.provenance,
    }


def _watch_path(family: str) -> str:
    return f"/watches/{escaped(family)}"
