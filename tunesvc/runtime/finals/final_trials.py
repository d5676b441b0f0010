"""Chooses the trial of a final run for `tune best --test` and `tune apply --train`.

Which trial runs, and what is refused before, is the same on this machine and on a server.
"""

from __future__ import annotations

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import TuneError
from tunesvc.models.model_store import ModelStore
from tunesvc.queries.operations.final_models import REPLACES
from tunesvc.queries.operations.final_results import get_test_result
from tunesvc.queries.operations.final_runs import Kind, find_final_study
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.studies import get_study_by_id
from tunesvc.runtime.finals.final_study import FinalTrial, prepare, require_final
from tunesvc.util.formatting import final_command


def prepare_test(
    database: Database,
    record: StudyRecord,
    *,
    again: bool,
    started_by: str,
    has_function: bool = False,
) -> FinalTrial | None:
    """Return the trial that is to run on the test part; None if a result is recorded already.

    Args:
        database: where the study is stored.
        record: the study.
        again: evaluate once more, although there is a result.
        started_by: the user.
        has_function: True if the caller has the objective of a study that Python has started.

    Raises:
        TuneError: the study has no test part, or no result.
        StudyBusy: the final run is running.
    """
    require_final(database, record, "test")
    is_recorded = get_test_result(database, record.study_id) is not None
    if is_recorded and not again and not _is_unfinished(database, record, "test"):
        return None
    best = find_best_trial(database, get_study_by_id(database, record.study_id))
    require_objective(record, "test", has_function=has_function)
    final = prepare(database, record, "test", best.number, started_by=started_by, again=again)
    return None if final.is_complete else final


def prepare_apply(
    database: Database,
    record: StudyRecord,
    *,
    number: int | None,
    replace: bool,
    started_by: str,
    has_function: bool = False,
) -> FinalTrial:
    """Return the trial that trains the final model.

    Args:
        database: where the study is stored.
        record: the study.
        number: of the trial whose parameters it has; the recommended one by default.
        replace: store the model also if another study of the same name has one.
        started_by: the user.
        has_function: True if the caller has the objective of a study that Python has started.

    Raises:
        TuneError: the study has no result, or no single best trial.
        DataError: another study of the same name has a model, and `replace` is off.
        StudyBusy: the final run is running.
    """
    spec = require_final(database, record, "apply")
    if not replace:
        ModelStore.open().require_own(record.name, record.key)
    if number is None:
        if len(spec.metrics) > 1:
            raise TuneError(
                f"study {record.name!r} has several metrics, and so no single best trial: name one "
                f"of the front, `{final_command(record.name, 'apply')} --trial N`"
            )
        number = find_best_trial(database, get_study_by_id(database, record.study_id)).number
    require_objective(record, "apply", has_function=has_function)
    final = prepare(database, record, "apply", number, started_by=started_by)
    chosen = trial_id(final.record.study_id, final.number)
    PgStorage(database).set_trial_system_attr(chosen, REPLACES, replace)
    return final


def require_objective(record: StudyRecord, kind: Kind, *, has_function: bool = False) -> None:
    """Refuse a study whose objective is not stored, unless the caller has it.

    Raises:
        TuneError: it was started from Python.
    """
    if has_function or record.spec is None or record.spec.has_program:
        return
    raise TuneError(
        f"study {record.name!r} was started from Python and its objective is not stored: "
        f"continue there, `tunesvc.load_study({record.name!r}).{kind}(function=...)`"
    )


def _is_unfinished(database: Database, record: StudyRecord, kind: Kind) -> bool:
    final_id = find_final_study(database, record.study_id, kind)
    if final_id is None:
        return False
    counts = get_study_by_id(database, final_id).counts
    return counts.total > counts.complete + counts.pruned + counts.failed + counts.stopped
