"""A study's finalists, run again with other seeds: in a study of its own, `NAME:confirm`, on the same machinery.

A study of its own rather than marked trials in the same one: then neither sampler, pruner, budget nor any reader has
to leave something out, and whatever shows, resumes or deletes studies does so with this one too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import was_withdrawn
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import StudyNotFound, TuneError
from tunesvc.queries.confirmation import CONFIRMS, SUFFIX
from tunesvc.search.analysis.recommend import luckiest_beside, ranked
from tunesvc.search.optimizer import queued
from tunesvc.search.training_seeds import SEED, training_seed
from tunesvc.spec import Budget, Pruner, Sampler, StudySpec
from tunesvc.spec.model import Goal


def prepare(database: Database, record: StudyRecord, *, top: int, repeats: int) -> StudyRecord:
    """Return the study of the repeats, with every repeat that it lacks enqueued. May be repeated with other numbers.

    Repeats that an earlier call enqueued, that have not begun and that are not wanted any more, are withdrawn.

    Raises:
        TuneError: the study has several metrics, no spec, or no finished trial.
        StudyBusy: the repeats are being run.
    """
    spec = record.spec
    if spec is None:
        raise TuneError(f"study {record.name!r} was made through Optuna's API and has no spec to run trials by")
    if len(spec.metrics) > 1:
        raise TuneError(f"study {record.name!r} has several metrics, and so no single best trial to confirm")
    storage = PgStorage(database)
    finalists = choose(storage.get_all_trials(record.study_id, deepcopy=False), spec.directions[0], top, spec.seeds)
    if not finalists:
        raise TuneError(f"study {record.name!r} has no complete, feasible trial to confirm")
    confirming = _enrolled(database, record, _spec_of(spec, len(finalists) * repeats))
    seeds = _seeds(confirming.spec, repeats)
    there = [t for t in storage.get_all_trials(confirming.study_id, deepcopy=False) if not was_withdrawn(t)]
    superseded = _superseded(finalists, seeds, there)
    for trial in superseded:
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    lacking = _lacking(finalists, seeds, there)
    for repeat, seed, trial in lacking:
        attrs = {**queued(trial.params, f"repeat {repeat} of trial {trial.number} of {record.name}"), SEED: seed}
        template = create_trial(state=TrialState.WAITING, system_attrs=attrs, user_attrs={CONFIRMS: trial.number})
        storage.create_new_trial(confirming.study_id, template)
    return _enrolled(database, record, _spec_of(spec, max(1, len(there) - len(superseded) + len(lacking))))


def choose(trials: Sequence[FrozenTrial], goal: Goal, top: int, shared_seeds: int | None = None) -> list[FrozenTrial]:
    """The finalists: the recommended trial, the one with the best observed value, then the best by what is believed.

    By observed values alone, most would be those that were lucky. Of trials with equal parameters only one.
    """
    believed = ranked(trials, goal, shared_seeds)
    if not believed:
        return []
    of_number = {trial.number: trial for trial in trials}
    distinct: dict[str, FrozenTrial] = {}
    for number in (believed[0], luckiest_beside(believed[0], trials, goal), *believed[1:]):
        distinct.setdefault(repr(sorted(of_number[number].params.items())), of_number[number])
    return list(distinct.values())[:top]


def _seeds(spec: StudySpec | None, repeats: int) -> list[int]:
    """One for each round of repeats: all finalists have the same ones."""
    return [training_seed((spec and spec.seed) or 0, number, None) for number in range(repeats)]


def _superseded(
    finalists: Sequence[FrozenTrial], seeds: Sequence[int], there: Sequence[FrozenTrial]
) -> list[FrozenTrial]:
    """Return the repeats that have not begun and that no finalist needs any more."""
    wanted = {(trial.number, seed) for trial in finalists for seed in seeds}
    return [t for t in there if t.state == TrialState.WAITING and _repeat_of(t) not in wanted]


def _repeat_of(trial: FrozenTrial) -> tuple[int | None, int | None]:
    """Return which finalist a repeat repeats, and with which seed."""
    return trial.user_attrs.get(CONFIRMS), trial.system_attrs.get(SEED)


def _lacking(
    finalists: Sequence[FrozenTrial], seeds: Sequence[int], there: Sequence[FrozenTrial]
) -> list[tuple[int, int, FrozenTrial]]:
    """Which repeat, with which seed, of which finalist there is not yet, one round of all finalists after the other."""
    gone = (TrialState.FAIL, TrialState.PRUNED)
    have = {_repeat_of(t) for t in there if t.state not in gone}
    rounds = ((n, seed, trial) for n, seed in enumerate(seeds, 1) for trial in finalists)
    return [(n, seed, trial) for n, seed, trial in rounds if (trial.number, seed) not in have]


def _spec_of(spec: StudySpec, trials: int) -> StudySpec:
    """The study's spec for repeats: every trial runs to its end, and none ends the study."""
    changes = {
        "name": spec.name + SUFFIX,
        "description": f"Finalists of {spec.name}, run again with other seeds.",
        "metrics": tuple(metric.model_copy(update={"target": None}) for metric in spec.metrics),
        "sampler": Sampler(name="random"),
        "pruner": Pruner(name="none"),
        "budget": Budget(trials=trials),
        "seed": int(np.random.SeedSequence([spec.seed or 0, 0xC0]).generate_state(1)[0]),
        "seeds": None,
        "warm_start": (),
    }
    return spec.model_copy(update=changes)


def _enrolled(database: Database, record: StudyRecord, spec: StudySpec) -> StudyRecord:
    with database.engine.begin() as connection:
        try:
            found = study_records.find(connection, spec.name)
        except StudyNotFound:
            return study_records.create(connection, spec, record.source_text, record.source_dir)
        study_records.renew(connection, found, spec, record.source_text, record.source_dir)
        return study_records.find(connection, spec.name)
