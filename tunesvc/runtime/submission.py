"""Submit a study to the servers of a database, and find what a server then runs.

A study's folder travels as a snapshot: `store_snapshot` keeps it once, `submit_study` queues the
study, and the server that takes the study runs it from `submitted_source`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from tunesvc.artifacts.artifact_store import Artifact, ArtifactStore, checked_digest
from tunesvc.artifacts.unpacking import unpacked
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.people.accounts import find_project
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import ArtifactStoreUnavailable, SpecError, StudyExists, TuneError
from tunesvc.execution.driver.ray_pool import require_cluster_of_servers
from tunesvc.instrumentation import failpoints
from tunesvc.queries.operations.data_lineage import ROWS_OF
from tunesvc.runtime import confirm
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.run_study import StudySource
from tunesvc.search.registry.component_check import check, require_no_imports
from tunesvc.spec.checks import find_issues
from tunesvc.util.paths import home_directory

SNAPSHOT_BYTES_MAX: Final = 120 * 10**6
"""Largest archive that is taken: `snapshot_files.BYTES_MAX`, and what tar adds."""
UNUSED: Final = timedelta(days=1)
"""Time after which a snapshot that no study or watch has is deleted."""


def store_snapshot(
    database: Database,
    store: ArtifactStore,
    digest: str,
    pieces: Iterable[bytes],
    *,
    files: int,
    created_by: str,
) -> None:
    """Store a snapshot's archive, unless the store has it already, and record it. Repeatable.

    Raises:
        ArtifactDamaged: the archive does not have that digest.
        ArtifactTooLarge: it is larger than `SNAPSHOT_BYTES_MAX`.
        ArtifactStoreUnavailable: the store does not answer, or is full.
    """
    stored = store.put(pieces, digest=digest, bytes_max=SNAPSHOT_BYTES_MAX)
    failpoints.reach("uploaded")
    with database.engine.begin() as connection:
        submissions.record_snapshot(
            connection,
            digest,
            bytes=stored.bytes,
            files=files,
            created_by=created_by,
        )
    failpoints.reach("recorded")
    if not store.holds(stored):  # it was there, and a collector took it before it was recorded
        raise ArtifactStoreUnavailable(f"snapshot {digest} was deleted meanwhile: send it again")


def has_snapshot(database: Database, store: ArtifactStore, digest: str) -> bool:
    """Return whether a snapshot is stored; if so, no collector takes it for a day."""
    with database.engine.begin() as connection:
        bytes = submissions.renew_snapshot(connection, checked_digest(digest))
    return bytes is not None and store.holds(Artifact(digest, bytes))


def submit_study(
    database: Database,
    new: NewSubmission,
    *,
    submitted_by: str,
) -> StudyRecord:
    """Store a study and queue it for the next server with room, in one transaction.

    Raises:
        StudyExists: the name is taken.
        AccountNotFound: there is no such project.
        StudyNotFound: a study of `warm_start` does not exist.
        SpecError: the spec cannot be used, or names no program that a server could run.
        TuneError: its snapshot is not stored.
    """
    require_runnable(new)
    check(new.spec)
    with database.engine.begin() as connection:
        for earlier in new.spec.warm_start:
            study_records.find(connection, earlier)
        require_snapshot(connection, new.snapshot)
        record = _create(connection, new, submitted_by)
        if new.rows_of:
            study_records.write_system_attr(connection, record.study_id, ROWS_OF, new.rows_of)
        submissions.submit(
            connection,
            record.study_id,
            snapshot=new.snapshot,
            priority=new.priority,
            submitted_by=submitted_by,
            provenance=new.provenance,
        )
        failpoints.reach("submitted")
        return record


def require_snapshot(connection: sa.Connection, digest: str | None) -> None:
    """Keep a snapshot from collectors until the transaction has named it.

    Raises:
        TuneError: it is not stored.
    """
    if digest is not None and submissions.renew_snapshot(connection, digest) is None:
        raise TuneError(f"snapshot {digest} is not stored: upload it before the study")


def submit_repeats(
    database: Database,
    study_id: int,
    *,
    top: int,
    repeats: int,
    submitted_by: str,
) -> StudyRecord:
    """Queue the repeats of a submitted study's finalists, as a study of their own. Repeatable.

    Raises:
        TuneError: servers leave this study alone, or it has nothing to confirm.
        StudyBusy: the repeats are being run.
    """
    with database.engine.connect() as connection:
        record = study_records.get(connection, study_id)
        submission = submissions.get(connection, study_id)
    if submission is None:
        raise TuneError(
            f"study {record.name!r} was not submitted: `tune confirm` where it ran repeats it"
        )
    prepared = confirm.prepare(database, record, top=top, repeats=repeats, owner=submitted_by)
    with database.engine.begin() as connection:
        submissions.submit(
            connection,
            prepared.study_id,
            snapshot=submission.snapshot,
            priority=submission.priority,
            submitted_by=submitted_by,
            provenance=submission.provenance,
        )
        submissions.requeue(connection, prepared.study_id)
    return prepared


def require_runnable(new: NewSubmission) -> None:
    """Refuse what no server can run. The folder was looked at where it was packed.

    Raises:
        SpecError: the spec cannot be used, or names no program that a server could run.
    """
    spec = new.spec
    if not spec.has_program:
        raise SpecError(
            f"study {spec.name!r} has neither `entrypoint` nor `command`, and a server cannot get "
            "a function of another process: put it into a module, and submit it from there"
        )
    if issues := find_issues(spec):
        raise SpecError("\n".join(map(str, issues)))
    require_no_imports(spec)
    require_cluster_of_servers(spec)
    if spec.loggers:
        raise SpecError(
            "loggers: servers send to no trackers, whose addresses and keys are yours: leave it "
            "out, and follow the study from a machine that reaches its database: "
            f"`tune send {spec.name} --to {spec.loggers[0].name} --follow`"
        )


def _create(connection: sa.Connection, new: NewSubmission, submitted_by: str) -> StudyRecord:
    name = new.spec.name
    try:
        return study_records.create(
            connection,
            new.spec,
            new.source_text,
            new.folder,
            submitted_by,
            None if new.project is None else find_project(connection, new.project),
        )
    except StudyExists:
        quoted = shlex.quote(name)
        raise StudyExists(
            f"a study named {name!r} exists already. `tune show {quoted} --follow` follows it, "
            f"`tune resume {quoted}` continues it, `tune extend {quoted} --trials N` gives it more "
            f"budget, `tune rm {quoted}` deletes it; or submit this one under another name with "
            "`--name`"
        ) from None


def submitted_source(
    database: Database,
    record: StudyRecord,
    store: ArtifactStore | None = None,
) -> StudySource:
    """Return what a server runs a submitted study from: its snapshot, unpacked on this machine.

    Args:
        database: where it is stored.
        record: the study.
        store: where its snapshot is; the one of `TUNE_ARTIFACTS` by default.

    Raises:
        ArtifactStoreError, SnapshotError: its snapshot cannot be read or unpacked.
        TuneError: servers leave this study alone.
    """
    with database.engine.connect() as connection:
        submission = submissions.get(connection, record.study_id)
    if submission is None:
        raise TuneError(f"study {record.name!r} was not submitted: `tune run` runs it")
    if submission.snapshot is None and record.source_dir is not None:
        return StudySource(record.source_text, record.source_dir)
    return snapshot_source(record.source_text, submission.snapshot, store)


def snapshot_source(
    text: str | None, digest: str | None, store: ArtifactStore | None = None
) -> StudySource:
    """Return a study file with a snapshot that is unpacked on this machine.

    Args:
        text: the study file as it was written.
        digest: that of the snapshot; None for a program that is installed where workers run.
        store: where the snapshot is; the one of `TUNE_ARTIFACTS` by default.

    Raises:
        ArtifactStoreError, SnapshotError: it cannot be read or unpacked.
    """
    root = home_directory() / "snapshots"
    if digest is not None:
        folder = unpacked(store or ArtifactStore.open(), digest, root)
    else:
        folder = root / "none"
        folder.mkdir(parents=True, exist_ok=True)
    return StudySource(text, str(folder), is_snapshot=True)


def collect_snapshots(database: Database, store: ArtifactStore) -> int:
    """Delete snapshots that no study or watch has and that are older than a day; count them."""
    with database.engine.begin() as connection:
        unused = submissions.remove_unused_snapshots(connection, UNUSED)
        # Before the commit: whoever renews one of them waits for it, and then finds it gone.
        for digest in unused:
            store.delete(digest)
    store.clean()
    return len(unused)
