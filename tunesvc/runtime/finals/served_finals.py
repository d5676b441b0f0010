"""Final runs on servers: queues them for a submitted study, and stores the models they train.

A server only copies files: the study's code runs in workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from tunesvc import errors
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.submissions import Submission
from tunesvc.errors import ArtifactStoreUnavailable, DatabaseUnavailable, StudyNotFound, TuneError
from tunesvc.models.model_store import ModelStore, StoredModel
from tunesvc.queries.checkpoint_files import CheckpointsElsewhere
from tunesvc.queries.operations.final_models import REPLACES, ModelRecord, get_model_record
from tunesvc.queries.operations.final_runs import (
    Kind,
    complete_trials,
    find_final_study,
    get_final_run,
)
from tunesvc.runtime.finals.final_study import FinalTrial
from tunesvc.runtime.finals.final_trials import prepare_apply, prepare_test, require_objective
from tunesvc.runtime.finals.model_export import store_model, write_record
from tunesvc.util.formatting import final_command

ELSEWHERE_S: Final = 30.0
"""Time that other servers have if one does not see a model's files."""
_RETRIED = (ArtifactStoreUnavailable, CheckpointsElsewhere)
MODEL_BYTES_MAX: Final = 10 * 10**9
"""Largest model that a server stores."""


def submit_test(
    database: Database, study_id: int, *, again: bool, submitted_by: str
) -> FinalTrial | None:
    """Queue the evaluation of a submitted study on its test part. Repeatable.

    None if a result is recorded already, and `again` is off.

    Raises:
        TuneError: servers leave this study alone, or it has no test part or no result.
        StudyBusy: the final run is running with another trial.
    """
    record, submission = _submitted(database, study_id, "test")
    final = prepare_test(database, record, again=again, started_by=submitted_by)
    if final is not None:
        _queue(database, final, submission, submitted_by)
    return final


def submit_apply(
    database: Database,
    study_id: int,
    *,
    number: int | None,
    replace: bool,
    submitted_by: str,
) -> FinalTrial:
    """Queue the training of a submitted study's final model. Repeatable.

    A server stores the model when the training has ended, see `store_finished`.

    Raises:
        TuneError: servers leave this study alone, or it has no result.
        DataError: another study of the same name has a model, and `replace` is off.
        StudyBusy: the final run is running with another trial.
    """
    record, submission = _submitted(database, study_id, "apply")
    final = prepare_apply(database, record, number=number, replace=replace, started_by=submitted_by)
    _queue(database, final, submission, submitted_by)
    return final


def store_finished(database: Database, final_id: int) -> None:
    """Store the model of a final run's newest complete trial, or record why it cannot be.

    May be repeated, and done by several servers at once: equal models have equal archives.

    Raises:
        StudyNotFound: the final run was deleted.
        Exception: try again, see `_recorded_errors`.
    """
    run = get_final_run(database, final_id)
    completed = complete_trials(database, final_id)
    if run is None or not completed:
        return
    newest = completed[-1]
    with _recorded_errors(database, final_id, newest.number):
        with database.engine.connect() as connection:
            record = study_records.get(connection, run.study_id)
        store_model(
            database,
            final_id,
            newest.number,
            record.key,
            replace=bool(newest.system_attrs.get(REPLACES)),
            bytes_max=MODEL_BYTES_MAX,
        )


def get_stored_model(
    database: Database, record: StudyRecord, final_trial: int | None = None
) -> StoredModel | None:
    """Return the stored model of a study; None if there is none.

    Args:
        database: where the study is stored.
        record: the study.
        final_trial: return None until the model of this trial of the final run is stored.

    Raises:
        StudyNotFound: the final run of that trial was deleted.
        TuneError: the model of that trial could not be stored.
    """
    if final_trial is not None:
        final_id = find_final_study(database, record.study_id, "apply")
        if final_id is None or PgStorage(database).get_n_trials(final_id) <= final_trial:
            raise StudyNotFound(
                f"the final run of {record.name!r} was deleted: "
                f"`{final_command(record.name, 'apply')}` trains its model again"
            )
        kept = get_model_record(database, final_id)
        if kept is None or kept.trial < final_trial or _may_be_elsewhere(database, kept):
            return None
        if kept.error:
            raise _error_of(kept)
    found = ModelStore.open().find_stored(record.name)
    # Names outlive studies in the store, and the other one may be of another project.
    return found if found is not None and found.metadata.study_key == record.key else None


def _submitted(database: Database, study_id: int, kind: Kind) -> tuple[StudyRecord, Submission]:
    with database.engine.connect() as connection:
        record = study_records.get(connection, study_id)
        submission = submissions.get(connection, study_id)
    require_objective(record, kind)
    if submission is None:
        raise TuneError(
            f"study {record.name!r} was not submitted, so servers do not have its folder: run "
            f"`{final_command(record.name, kind)}` where it ran, without a server "
            "(`--database-url URL`, or after `tune logout`)"
        )
    return record, submission


def _queue(
    database: Database, final: FinalTrial, submission: Submission, submitted_by: str
) -> None:
    """Have servers run a final run from the snapshot of the study that was searched."""
    with database.engine.begin() as connection:
        submissions.submit(
            connection,
            final.record.study_id,
            snapshot=submission.snapshot,
            priority=submission.priority,
            submitted_by=submitted_by,
            provenance=submission.provenance,
        )
        submissions.requeue(connection, final.record.study_id)


@contextmanager
def _recorded_errors(database: Database, final_id: int, number: int) -> Iterator[None]:
    """Record an error with the final run, for the client that waits for the model.

    Raises:
        Exception: one that is no decision about the model, such as a full disk: try again.
    """
    try:
        with translate_unavailable():
            yield
    except DatabaseUnavailable:
        raise
    except TuneError as error:
        is_retried = isinstance(error, _RETRIED) or _is_of_disk(error.__cause__)
        record = ModelRecord(number, type(error).__name__, str(error), is_retried)
        write_record(database, final_id, _continued(database, final_id, record))
        if is_retried:
            raise
    except Exception as error:
        text = f"the model cannot be stored: {type(error).__name__}: {error}; servers try again"
        record = ModelRecord(number, "TuneError", text, is_retried=True)
        write_record(database, final_id, _continued(database, final_id, record))
        raise


def _is_of_disk(cause: BaseException | None) -> bool:
    """Return True for an error of the system; one without a number is about an archive."""
    return isinstance(cause, OSError) and cause.errno is not None


def _continued(database: Database, final_id: int, record: ModelRecord) -> ModelRecord:
    """Return a record of an error with the first time of this error in a row."""
    kept = get_model_record(database, final_id)
    is_same = kept is not None and (kept.trial, kept.error) == (record.trial, record.error)
    since_s = kept.since_s if kept is not None and is_same else _now_s(database)
    return dataclasses.replace(record, since_s=since_s)


def _may_be_elsewhere(database: Database, kept: ModelRecord) -> bool:
    """Return True while another server may have the checkpoints that one of them lacks."""
    is_elsewhere = kept.error == CheckpointsElsewhere.__name__
    return is_elsewhere and _now_s(database) - kept.since_s < ELSEWHERE_S


def _now_s(database: Database) -> float:
    """Return the database's time, which is that of all servers, in seconds since 1970."""
    with database.engine.connect() as connection:
        return float(connection.scalar(sa.select(sa.extract("epoch", sa.func.now()))) or 0.0)


def _error_of(kept: ModelRecord) -> TuneError:
    """Return the exception that was recorded, with its complete text."""
    kind = getattr(errors, kept.error, TuneError)
    error: TuneError = kind.__new__(kind, kept.message)
    error.args = (kept.message,)
    return error
