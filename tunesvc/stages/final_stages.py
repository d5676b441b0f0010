"""Runs the last stages of a study: its recommended trial on the test part, and on all data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import TuneError
from tunesvc.models.model_store import ModelMetadata, ModelStore
from tunesvc.queries.operations.final_results import TestResult, get_test_result
from tunesvc.queries.operations.final_runs import Kind, complete_trials, find_final_study
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.studies import get_study_by_id
from tunesvc.run_options import RunOptions
from tunesvc.runs import run_record
from tunesvc.runtime.finals import final_study, model_export
from tunesvc.runtime.finals.final_study import FinalTrial
from tunesvc.runtime.run_study import StudySource
from tunesvc.util.formatting import final_command
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
    final_study.require_final(database, record, "test")
    found = get_test_result(database, record.study_id)
    if found is not None and not again and not _is_unfinished(database, record, "test"):
        return found
    best = find_best_trial(database, get_study_by_id(database, record.study_id))
    final = _run(database, record, "test", best.number, options, function, again=again)
    return None if final is None else get_test_result(database, record.study_id)


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
    spec = final_study.require_final(database, record, "apply")
    if out is not None:
        model_export.require_empty(out)
    if not replace:
        ModelStore.open().require_own(record.name, record.key)
    if number is None:
        if len(spec.metrics) > 1:
            raise TuneError(
                f"study {record.name!r} has several metrics, and so no single best trial: name one "
                f"of the front, `{final_command(record.name, 'apply')} --trial N`"
            )
        number = find_best_trial(database, get_study_by_id(database, record.study_id)).number
    final = _run(database, record, "apply", number, options, function)
    if final is None:
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
    number: int,
    options: RunOptions,
    function: Callable[..., Any] | None,
    *,
    again: bool = True,
) -> FinalTrial | None:
    """Run a final run to its end; return its trial, None when it was interrupted before.

    Raises:
        TuneError: the objective is not here, or the run ended without a result.
    """
    if function is None and record.spec is not None and not record.spec.has_program:
        method = "test" if kind == "test" else "apply"
        raise TuneError(
            f"study {record.name!r} was started from Python and its objective is not stored: "
            f"continue there, `tunesvc.load_study({record.name!r}).{method}(function=...)`"
        )
    trial = final_study.prepare(database, record, kind, number, started_by=whoami(), again=again)
    if trial.is_complete:
        return trial
    final = trial.record
    source = StudySource(final.source_text, final.source_dir, function)
    if run_record(database, final, source, options):
        return None
    completed = [one.number for one in complete_trials(database, final.study_id)]
    if trial.number not in completed:
        with database.engine.connect() as connection:
            ended = study_records.get(connection, final.study_id)
        reason = f": {ended.reason}" if ended.reason else ""
        raise TuneError(
            f"the trial of {final.name!r} has no result{reason}. `tune show {final.name}` has its "
            f"state, and `{final_command(record.name, kind)}` runs it again"
        )
    return trial


def _is_unfinished(database: Database, record: StudyRecord, kind: Kind) -> bool:
    final_id = find_final_study(database, record.study_id, kind)
    if final_id is None:
        return False
    counts = get_study_by_id(database, final_id).counts
    return counts.total > counts.complete + counts.pruned + counts.failed + counts.stopped
