"""Studies that are handed to servers, on a database and the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesvc.artifacts.artifact_store import ArtifactStore, pieces_of
from tunesvc.artifacts.snapshot import Snapshot
from tunesvc.champions.served.watch_registration import register_watch, remove_watch
from tunesvc.client.answers import RequestedFinal
from tunesvc.db.champions import served_watches
from tunesvc.db.champions.served_watches import ServedWatch
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study, get_study_by_id, get_study_id
from tunesvc.runtime.finals.final_study import FinalTrial
from tunesvc.runtime.finals.served_finals import submit_apply, submit_test
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import (
    has_snapshot,
    store_snapshot,
    submit_repeats,
    submit_study,
)

if TYPE_CHECKING:
    from tunesvc.db.champions.served_watches import ServedWatch


class LocalSubmissions:
    """See `SubmissionOperations`."""

    def __init__(self, database: Database, user: str, among: StudyScope) -> None:
        self._database = database
        self._user = user
        self._among = among
        self._store = ArtifactStore.open()

    def has_snapshot(self, digest: str) -> bool:
        """Return whether the archive of a folder is stored."""
        return has_snapshot(self._database, self._store, digest)

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store the archive of a folder."""
        with snapshot.archive.open("rb") as archive:
            store_snapshot(
                self._database,
                self._store,
                snapshot.digest,
                pieces_of(archive),
                files=snapshot.files,
                created_by=self._user,
            )

    def submit(self, new: NewSubmission) -> StudyView:
        """Queue a study for the next server with room, and return it."""
        for earlier in new.spec.warm_start:
            get_study(self._database, earlier, self._among)
        record = submit_study(self._database, new, submitted_by=self._user)
        return get_study_by_id(self._database, record.study_id)

    def confirm(self, study: str, *, top: int = 5, repeats: int = 5) -> StudyView:
        """Queue repeats of the best trials, and return the study that they are."""
        record = submit_repeats(
            self._database,
            get_study_id(self._database, study, self._among),
            top=top,
            repeats=repeats,
            submitted_by=self._user,
        )
        return get_study_by_id(self._database, record.study_id)

    def watch(
        self, new: NewSubmission, *, every_s: float | None = None, always: bool = False
    ) -> ServedWatch:
        """Let servers watch the family of a study; it looks at once."""
        for earlier in new.spec.warm_start:
            get_study(self._database, earlier, self._among)
        return register_watch(
            self._database,
            new,
            interval_s=every_s,
            always=always,
            submitted_by=self._user,
            scope=self._among,
        )

    def watches(self) -> tuple[ServedWatch, ...]:
        """Return the families that servers watch, by name."""
        with self._database.engine.connect() as connection:
            return served_watches.list_watches(connection, self._among)

    def unwatch(self, family: str) -> ServedWatch:
        """Stop servers from watching a family; return its watch as it was."""
        return remove_watch(self._database, family, self._among)

    def test(self, study: str, *, again: bool = False) -> RequestedFinal | None:
        """Queue the evaluation on the test part; return the final run."""
        study_id = get_study_id(self._database, study, self._among)
        final = submit_test(self._database, study_id, again=again, submitted_by=self._user)
        return None if final is None else self._requested(final)

    def apply(
        self, study: str, number: int | None = None, *, replace: bool = False
    ) -> RequestedFinal:
        """Queue the training of the final model, and return the final run."""
        final = submit_apply(
            self._database,
            get_study_id(self._database, study, self._among),
            number=number,
            replace=replace,
            submitted_by=self._user,
        )
        return self._requested(final)

    def _requested(self, final: FinalTrial) -> RequestedFinal:
        view = get_study_by_id(self._database, final.record.study_id)
        return RequestedFinal(view, final.number)
