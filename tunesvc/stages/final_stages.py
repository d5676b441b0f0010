"""Runs the last stages of a study: its recommended trial on the test part, and on all data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import TuneError
from tunesvc.models.model_store import ModelMetadata
from tunesvc.queries.operations.final_results import TestResult, get_test_result
from tunesvc.queries.operations.final_runs import Kind, complete_trials
from tunesvc.run_options import RunOptions
from tunesvc.runs import refusal_recorded, run_record
from tunesvc.runtime.finals import model_export
from tunesvc.runtime.finals.final_study import FinalTrial
from tunesvc.runtime.finals.final_trials import prepare_apply, prepare_test
from tunesvc.runtime.run_study import StudySource
from tunesvc.util.formatting import no_result_message
from tunesvc.util.user import whoami


def test_study(
    database: Database,
    record: StudyRecord,
    options: RunOptions,
    *,
    again: bool,
    function: Callable[..., Any] | None,
) -> TestResult | None:
    """Evaluate the recommended trial on the test part, unless that was done; return the result.

    None if the run was interrupted.

    Raises:
        TuneError: the study has no test part, or no result.
        StudyFailed: the trial failed.
    """
    final = prepare_test(
        database, record, again=again, started_by=whoami(), has_function=function is not None
    )
    if final is not None and not _run(database, record, "test", final, options, function):
        return None
    return get_test_result(database, record.study_id)


def apply_study(
    database: Database,
    record: StudyRecord,
    options: RunOptions,
    *,
    number: int | None,
    out: Path | None,
    replace: bool,
    function: Callable[..., Any] | None,
) -> ModelMetadata | None:
    """Train a trial's parameters on training and validation part, and store the model.

    None if the run was interrupted.

    Args:
        database: where the study is stored.
        record: the study.
        options: of the run.
        number: of the trial; the recommended one by default.
        out: a new folder for a copy of the model.
        replace: store the model also if another study of the same name has one.
        function: the objective, for a study that was started from Python.

    Raises:
        TuneError: the study has no result, or the objective saves no model.
        DataError: another study of the same name has a model, and `replace` is off.
        StudyFailed: the training failed.
    """
    if out is not None:
        model_export.require_empty(out)
    final = prepare_apply(
        database,
        record,
        number=number,
        replace=replace,
        started_by=whoami(),
        has_function=function is not None,
    )
    if not _run(database, record, "apply", final, options, function):
        return None
    final_id = final.record.study_id
    metadata = model_export.store_model(
        database, final_id, final.number, record.key, replace=replace
    )
    if out is not None:
        model_export.write_folder(record.name, out)
    return metadata


def _run(
    database: Database,
    record: StudyRecord,
    kind: Kind,
    trial: FinalTrial,
    options: RunOptions,
    function: Callable[..., Any] | None,
) -> bool:
    """Run a final run to its end; return False when it was interrupted before.

    Raises:
        TuneError: the run ended without a result.
    """
    final = trial.record
    source = StudySource(final.source_text, final.source_dir, function)
    with refusal_recorded(database, final):
        interrupted = run_record(database, final, source, options)
    if interrupted:
        return False
    completed = [one.number for one in complete_trials(database, final.study_id)]
    if trial.number not in completed:
        with database.engine.connect() as connection:
            ended = study_records.get(connection, final.study_id)
        raise TuneError(no_result_message(record.name, final.name, kind, ended.reason))
    return True
