"""Makes the final runs of a study: studies of their own, `NAME:test` and `NAME:apply`.

Their trials have the parameters and the seed of a trial of the study. Like repeats of finalists,
they are run, resumed, shown and deleted as any study is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.coordinator.attempt_state.launch_blocks import blocks_of
from tunesvc.data.prepared_data import TEST
from tunesvc.db import lease, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import was_cancelled
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import number_of
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import StudyBusy, StudyNotFound, StudyWithoutSpec, TuneError
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.operations.final_runs import (
    BY,
    FINAL,
    FINAL_STUDY,
    OF_TRIAL,
    FinalRun,
    Kind,
    complete_trials,
    find_final_study,
)
from tunesvc.runtime import study_requests
from tunesvc.runtime.takeover import runner
from tunesvc.search.optimizer import queued
from tunesvc.search.training_seeds import SEED
from tunesvc.spec import Budget, Pruner, Sampler, StudySpec
from tunesvc.spec.sections.evaluation_keys import Evaluation

_DESCRIPTIONS = {
    "test": "The recommended trial of {}, evaluated on the test part.",
    "apply": "The recommended trial of {}, trained on training and validation part.",
}


def require_final(database: Database, record: StudyRecord, kind: Kind) -> StudySpec:
    """Return the spec of a study that can have a final run.

    Raises:
        TuneError: it cannot; the text has the reason and the remedy.
    """
    spec = record.spec
    if spec is None:
        raise StudyWithoutSpec(record.name, "it has no spec to run trials by")
    if (other := find_purpose(database, record)) is not None:
        raise TuneError(f"study {record.name!r} is itself a final run of {other!r}: name that one")
    if spec.search is not None:
        raise TuneError(
            f"study {record.name!r} is a population, whose trials continue each other: train a "
            f"lineage with `tune best {record.name} --schedule` and `tune run FILE --schedule`"
        )
    if kind == "test":
        if len(spec.metrics) > 1:
            raise TuneError(
                f"study {record.name!r} has several metrics, and so no single best trial to test: "
                f"`tune apply {record.name} --train --trial N` tests one of the front"
            )
        _require_test_part(database, record, spec)
    return spec


def find_purpose(database: Database, record: StudyRecord) -> str | None:
    """Return the name of the study whose final run this one is; None if it is none."""
    attrs = PgStorage(database).get_study_system_attrs(record.study_id)
    return attrs[FINAL]["study"] if FINAL in attrs else None


@dataclass(frozen=True, slots=True)
class FinalTrial:
    """A trial of a final run."""

    record: StudyRecord
    """The final run, which is a study."""
    number: int
    is_complete: bool = False
    """True if it has a result already, and need not run."""


def prepare(
    database: Database,
    record: StudyRecord,
    kind: Kind,
    number: int,
    *,
    started_by: str,
    again: bool = True,
) -> FinalTrial:
    """Return the trial of a final run that is to run; it waits, or was interrupted.

    May be repeated, also by several processes at once: an unfinished trial of the same parameters
    is continued, others are stopped.

    Args:
        database: where both are stored.
        record: the study that was searched.
        kind: what the run is for.
        number: of the trial whose parameters run.
        started_by: the user; the owner of a new final run, and a user of the test part.
        again: False returns a complete trial if there is one, and no trial is unfinished.

    Raises:
        TuneError: the study can have none, or the trial has no result.
        StudyBusy: the final run is running.
    """
    spec = require_final(database, record, kind)
    original = _trial(database, record, number)
    purpose = _purpose(database, record, kind, spec)
    with study_records.locked(database, record.study_id):
        final_id = find_final_study(database, record.study_id, kind)
        # Other trials cannot be stopped while it runs, or until a killed process's lease expires.
        if final_id is not None and not _has_only(database, final_id, number):
            holder = runner(database, final_id, timeout_s=0.0)
            if holder is not None:
                raise StudyBusy(lease.busy_message(holder.owner))
        final = _create_or_update(database, record, purpose, spec, 1, started_by)
        unfinished = _continue_one(database, final, number, started_by)
        completed = complete_trials(database, final.study_id)
        if unfinished is None and completed and not again:
            return FinalTrial(final, completed[-1].number, is_complete=True)
        storage = PgStorage(database)
        if unfinished is None:
            template = _template(record, spec, original, started_by)
            unfinished = number_of(storage.create_new_trial(final.study_id, template))
        stored = storage.get_all_trials(final.study_id, deepcopy=False)
        count = sum(not was_cancelled(trial) for trial in stored)
        final = _create_or_update(database, record, purpose, spec, count, started_by)
        return FinalTrial(final, unfinished)


def _has_only(database: Database, final_id: int, number: int) -> bool:
    """Return True if one trial is unfinished, and has the parameters of a trial."""
    stored = PgStorage(database).get_all_trials(final_id, deepcopy=False)
    unfinished = [trial for trial in stored if not trial.state.is_finished()]
    return [trial.user_attrs.get(OF_TRIAL) for trial in unfinished] == [number]


def _purpose(database: Database, record: StudyRecord, kind: Kind, spec: StudySpec) -> FinalRun:
    used = get_data(database, record.study_id)
    return FinalRun(
        kind,
        record.study_id,
        record.name,
        "" if used is None else used.version,
        None if spec.evaluation is None else spec.evaluation.folds,
        "" if used is None else used.test_rows,
        is_scored=bool(spec.scoring),
    )


def _continue_one(
    database: Database, final: StudyRecord, number: int, started_by: str
) -> int | None:
    """Return the unfinished trial that has the parameters of a trial; stop all others."""
    kept = None
    for trial in PgStorage(database).get_all_trials(final.study_id, deepcopy=False):
        if trial.state.is_finished():
            continue
        if kept is None and trial.user_attrs.get(OF_TRIAL) == number:
            kept = trial.number
        else:
            payload = {"number": trial.number}
            study_requests.request(database, final.study_id, "stop_trial", payload, started_by)
    return kept


def _require_test_part(database: Database, record: StudyRecord, spec: StudySpec) -> None:
    used = get_data(database, record.study_id)
    if spec.data is None:
        raise TuneError(
            f"study {record.name!r} has no test part, since it has no `data`: write `data:` into "
            "its file, see docs/data.md, and run it under another name"
        )
    if used is None:
        raise TuneError(f"study {record.name!r} has not begun: `tune run` prepares its data")
    if TEST not in used.rows:
        raise TuneError(
            f"study {record.name!r} has no test part: its data has `split: {{test: 0}}`. Set a "
            "share, such as 0.2, and run it under another name"
        )


def _trial(database: Database, record: StudyRecord, number: int) -> FrozenTrial:
    trials = PgStorage(database).get_all_trials(record.study_id, deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyNotFound(f"study {record.name!r} has no trial {number}")
    if trials[number].state != TrialState.COMPLETE:
        state = trials[number].state.name.lower()
        raise TuneError(f"trial {number} of {record.name!r} is {state}: name a complete one")
    return trials[number]


def _template(
    record: StudyRecord,
    spec: StudySpec,
    original: FrozenTrial,
    started_by: str,
) -> FrozenTrial:
    """Return a trial that waits, with the parameters and the seed of another one."""
    seed = blocks_of(spec, original.number, original.system_attrs.get(SEED))[0].seed
    origin = f"trial {original.number} of {record.name}"
    return create_trial(
        state=TrialState.WAITING,
        system_attrs={**queued(original.params, origin), SEED: seed},
        user_attrs={OF_TRIAL: original.number, BY: started_by},
    )


def _spec_of(spec: StudySpec, name: str, kind: Kind, trials: int) -> StudySpec:
    """Return the spec of a final run: one trial at a time, to its end."""
    changes = {
        "name": name,
        "description": _DESCRIPTIONS[kind].format(spec.name),
        "metrics": tuple(metric.model_copy(update={"target": None}) for metric in spec.metrics),
        "evaluation": Evaluation(scoring=spec.scoring) if spec.scoring else None,
        "sampler": Sampler(name="random"),
        "pruner": Pruner(name="none"),
        "budget": Budget(trials=trials),
        "parallelism": 1,
        "warm_start": (),
    }
    return spec.model_copy(update=changes)


def _create_or_update(
    database: Database,
    record: StudyRecord,
    purpose: FinalRun,
    spec: StudySpec,
    trials: int,
    owner: str,
) -> StudyRecord:
    final_id = find_final_study(database, record.study_id, purpose.kind)
    with database.engine.begin() as connection:
        if final_id is None:
            project = study_records.project_of(connection, record.study_id)
            name = _free_name(connection, f"{record.name}:{purpose.kind}")
            found = study_records.create(
                connection,
                _spec_of(spec, name, purpose.kind, trials),
                record.source_text,
                record.source_dir,
                owner or None,
                project,
            )
            study_records.write_system_attr(connection, found.study_id, FINAL, asdict(purpose))
            name = FINAL_STUDY[purpose.kind]
            study_records.write_system_attr(connection, record.study_id, name, found.study_id)
            return found
        found = study_records.get(connection, final_id)
        final_spec = _spec_of(spec, found.name, purpose.kind, trials)
        study_records.renew(connection, found, final_spec, record.source_text, record.source_dir)
        return study_records.get(connection, final_id)


def _free_name(connection: sa.Connection, wanted: str) -> str:
    """Return a name that no study has. An earlier study of the same name may have the first."""
    return next(name for name in _names(wanted) if study_records.look_up(connection, name) is None)


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    number = 2
    while True:
        yield f"{wanted}-{number}"
        number += 1
