"""Confirmation: runs a study's finalists again with other seeds, in a study `NAME:confirm`.

It is a study of its own, not marked trials in the same one. So sampler, pruner, budget and queries
need no exceptions, and everything that shows, resumes or deletes studies works for it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import was_cancelled
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import StudyNotFound, StudyWithoutSpec, TuneError
from tunesvc.queries.confirmation import CONFIRMS, SUFFIX
from tunesvc.search.analysis.recommend import luckiest_beside, ranked
from tunesvc.search.optimizer import queued
from tunesvc.search.training_seeds import SEED, training_seed
from tunesvc.spec import Budget, Evaluation, Pruner, Sampler, StudySpec
from tunesvc.spec.goals import Goal
from tunesvc.util.optuna_internals import trial_id_of


def prepare(
    database: Database,
    record: StudyRecord,
    *,
    top: int,
    repeats: int,
    owner: str | None = None,
) -> StudyRecord:
    """Return the study of the repeats, with all missing repeats enqueued.

    May be called again with other numbers: waiting repeats that are no longer needed are cancelled.
    A new one is in the project of its study; its owner is the system's user by default.

    Raises:
        TuneError: the study has several metrics, no spec, or no finished trial.
        StudyBusy: the repeats are being run.
    """
    spec = record.spec
    if spec is None:
        raise StudyWithoutSpec(record.name, "it has no spec to run trials by")
    if len(spec.metrics) > 1:
        raise TuneError(
            f"study {record.name!r} has several metrics, and so no single best trial to confirm",
        )
    if spec.search is not None:
        raise TuneError(
            f"study {record.name!r} is a population, whose trials continue each other: repeat a "
            f"lineage with `tune best {record.name} --schedule` and `tune run FILE --schedule`",
        )
    storage = PgStorage(database)
    trials = storage.get_all_trials(record.study_id, deepcopy=False)
    finalists = choose(trials, spec.directions[0], top, spec.shared_blocks)
    if not finalists:
        raise TuneError(f"study {record.name!r} has no complete, feasible trial to confirm")
    confirmation = _create_or_update(
        database,
        record,
        _spec_of(spec, len(finalists) * repeats),
        owner,
    )
    seeds = _seeds(confirmation.spec, repeats)
    stored = storage.get_all_trials(confirmation.study_id, deepcopy=False)
    repeats_stored = [trial for trial in stored if not was_cancelled(trial)]
    superseded = _superseded(finalists, seeds, repeats_stored)
    for trial in superseded:
        storage.set_trial_state_values(trial_id_of(trial), TrialState.FAIL)
    missing = _missing(finalists, seeds, repeats_stored)
    for repeat, seed, trial in missing:
        origin = f"repeat {repeat} of trial {trial.number} of {record.name}"
        template = create_trial(
            state=TrialState.WAITING,
            system_attrs={**queued(trial.params, origin), SEED: seed},
            user_attrs={CONFIRMS: trial.number},
        )
        storage.create_new_trial(confirmation.study_id, template)
    count = len(repeats_stored) - len(superseded) + len(missing)
    return _create_or_update(database, record, _spec_of(spec, max(1, count)), owner)


def choose(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    top: int,
    shared_blocks: int | None = None,
) -> list[FrozenTrial]:
    """Return the finalists: the recommended trial, the best observed, then the best by the model.

    By observed values alone, most would be lucky ones. Of trials with equal parameters, one counts.
    """
    by_model = ranked(trials, goal, shared_blocks)
    if not by_model:
        return []
    luckiest = luckiest_beside(by_model[0], trials, goal)
    of_number = {trial.number: trial for trial in trials}
    distinct: dict[str, FrozenTrial] = {}
    for number in (by_model[0], luckiest, *by_model[1:]):
        distinct.setdefault(repr(sorted(of_number[number].params.items())), of_number[number])
    return list(distinct.values())[:top]


def _seeds(spec: StudySpec | None, repeats: int) -> list[int]:
    """Return one seed per round of repeats; all finalists share them."""
    return [
        training_seed(
            (spec and spec.seed) or 0,
            number,
            None,
        )
        for number in range(repeats)
    ]


def _superseded(
    finalists: Sequence[FrozenTrial],
    seeds: Sequence[int],
    stored: Sequence[FrozenTrial],
) -> list[FrozenTrial]:
    """Return the waiting repeats that no finalist needs any more."""
    needed = {(trial.number, seed) for trial in finalists for seed in seeds}
    waiting = [trial for trial in stored if trial.state == TrialState.WAITING]
    return [trial for trial in waiting if _repeat_of(trial) not in needed]


def _repeat_of(trial: FrozenTrial) -> tuple[int | None, int | None]:
    """Return the finalist's number and the seed of a repeat."""
    return trial.user_attrs.get(CONFIRMS), trial.system_attrs.get(SEED)


def _missing(
    finalists: Sequence[FrozenTrial],
    seeds: Sequence[int],
    stored: Sequence[FrozenTrial],
) -> list[tuple[int, int, FrozenTrial]]:
    """Return the missing repeats, round by round: its number, its seed and the finalist."""
    unusable = (TrialState.FAIL, TrialState.PRUNED)
    usable = {_repeat_of(trial) for trial in stored if trial.state not in unusable}
    rounds = [(n, seed, trial) for n, seed in enumerate(seeds, 1) for trial in finalists]
    return [(n, seed, trial) for n, seed, trial in rounds if (trial.number, seed) not in usable]


def _spec_of(spec: StudySpec, trials: int) -> StudySpec:
    """Return the spec for repeats: every trial runs to its end, and none ends the study."""
    changes = {
        "name": spec.name + SUFFIX,
        "description": f"Finalists of {spec.name}, run again with other seeds.",
        "metrics": tuple(metric.model_copy(update={"target": None}) for metric in spec.metrics),
        "sampler": Sampler(name="random"),
        "pruner": Pruner(name="none"),
        "budget": Budget(trials=trials),
        "seed": int(np.random.SeedSequence([spec.seed or 0, 0xC0]).generate_state(1)[0]),
        "evaluation": _folds_of(spec),
        "warm_start": (),
    }
    return spec.model_copy(update=changes)


def _folds_of(spec: StudySpec) -> Evaluation | None:
    """Return the evaluation of a repeat: folds stay, and seeds are those of the repeats."""
    evaluation = spec.evaluation
    if evaluation is None or evaluation.folds is not None:
        return evaluation
    kept = evaluation.model_copy(update={"repeats": None, "per_trial": None})
    return kept if kept.scoring else None


def _create_or_update(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    owner: str | None,
) -> StudyRecord:
    with database.engine.begin() as connection:
        try:
            found = study_records.find(connection, spec.name)
        except StudyNotFound:
            return study_records.create(
                connection,
                spec,
                record.source_text,
                record.source_dir,
                owner,
                study_records.project_of(connection, record.study_id),
            )
        study_records.renew(
            connection,
            found,
            spec,
            record.source_text,
            record.source_dir,
        )
        return study_records.find(connection, spec.name)
