"""Puts the concrete parts of a running study together: storage, memory, sampler, pruner, executor, coordinator.

The one place below the faces that knows which classes stand behind the protocols.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.coordinator.progress_events import Observer, ProgressEvent, SilentObserver
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db import recovery, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import DatabaseUnavailable, LeaseLost, MachineBusy, SpecError, StudyExists, StudyNotFound, TuneError
from tunesvc.execution.driver.ray_pool import ExecutorMaker
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.interpreter import Interpreter
from tunesvc.execution.objectives.pickled_function import pickle_function
from tunesvc.queries.warm_start_source import teacher
from tunesvc.runtime.takeover import await_end, stand_by
from tunesvc.search.exhaustion import is_complete, is_distinct, is_exhausted, trials_max
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.component_check import check
from tunesvc.search.registry.component_options import name_of
from tunesvc.search.registry.pruner_registry import last_step, make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.seeding import seed_of, seeded
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.warm_start import TRANSFERRED
from tunesvc.space.search_space import Space, widened
from tunesvc.spec import StudySpec
from tunesvc.spec.arguments import function_issues
from tunesvc.spec.entrypoint_file import entrypoint_issues
from tunesvc.util.blas import one_blas_thread
from tunesvc.util.paths import home_directory
from tunesvc.util.user import whoami

MACHINE_S = 1.0
"""How often a study that waits for other commands on this machine looks whether they have ended."""


@dataclass(frozen=True, slots=True)
class StudySource:
    """Where a study comes from."""

    text: str | None = None
    """The study file as written."""
    folder: str | None = None
    """Where its entrypoint or command is found."""
    function: Callable[..., Any] | None = None
    """The objective itself, for studies that are started from Python."""
    sampler: BaseSampler | None = None
    """The sampler itself, where Python hands over an object instead of a name."""
    pruner: BasePruner | None = None


def create(database: Database, spec: StudySpec, source: StudySource, *, owner: str | None = None) -> StudyRecord:
    """Store a new study, which `run_study` can then begin; its owner is the system's user when left out.

    Raises:
        StudyExists: the name is taken.
        StudyNotFound: `warm_start` names a study that there is not.
        SpecError: see `check`.
    """
    check(spec, source.sampler, source.pruner)
    with database.engine.begin() as connection:
        for earlier in spec.warm_start:
            study_records.find(connection, earlier)
        return study_records.create(connection, spec, source.text, source.folder, owner)


def create_or_resume(
    database: Database, spec: StudySpec, source: StudySource, *, resume: bool, observer: Observer | None = None
) -> StudyRecord:
    """Return the study's row: a new one, or with `resume` the one that is there.

    A study without results gives way to the new one: it never ran, or failed with all of its trials. With `resume` one
    that failed gives way only if its trials do not fit the new spec.

    Raises:
        StudyExists: the name is taken and `resume` is off; the text says how to go on.
        StudyNotFound: `warm_start` names a study that there is not.
        SpecError: see `check`.
    """
    try:
        return create(database, spec, source)
    except StudyExists:
        pass
    with database.engine.begin() as connection:
        record = study_records.find(connection, spec.name)
        if study_records.replace_unstarted(connection, record, spec, source.text, source.folder):
            return study_records.find(connection, spec.name)
        trials = study_records.trials_counted(connection, record.study_id)
    try:
        if not resume:
            raise StudyExists(_conflict_message(record, trials))
        return _update_spec(database, record, spec, source)
    except StudyExists:
        with database.engine.begin() as connection:
            if not study_records.remove_failed(connection, record.study_id, whoami()):
                raise
            replacement = study_records.create(connection, spec, source.text, source.folder)
    shutil.rmtree(checkpoint_folder(record), ignore_errors=True)
    reason = f"all trials of the earlier study {spec.name!r} failed ({record.reason}): this one replaces it"
    (observer or SilentObserver()).on_event(ProgressEvent("study", reason))
    return replacement


def run_study(
    database: Database,
    record: StudyRecord,
    source: StudySource,
    *,
    make_executor: ExecutorMaker,
    observer: Observer | None = None,
    interrupt: threading.Event | None = None,
    standby: bool = False,
) -> Shutdown:
    """Run a stored study until it is over, paused or interrupted.

    With `standby`, while somebody else runs it: wait, with Ray ready, and take over when that one is gone.

    Raises:
        StudyBusy: another coordinator runs it, and `standby` is off.
        TuneError: the objective is not where it was.
        UnsatisfiableRequest: the cluster can never meet its resource request.
        LeaseLost: another coordinator took over meanwhile.
        DatabaseUnavailable: interrupted while the database is away.
    """
    observer = observer or SilentObserver()
    interrupt = interrupt or threading.Event()
    _require_objective(_spec_of(record), source)  # before Ray starts
    _check_folder(record, source)
    if not standby:
        await_end(database, record, observer, interrupt)
        if interrupt.is_set():
            return _INTERRUPTED
    while True:
        observer.on_event(ProgressEvent("phase", "waiting for Ray"))
        job = _job_of(record, source)
        executor = _executor(make_executor, job, _spec_of(record), observer, interrupt)
        if executor is None:
            return _INTERRUPTED
        try:
            closing = _run_on(executor, job, database, record, source, observer, interrupt, standby=standby)
        except BaseException as error:
            # What runs may be somebody else's by now, or wait for the next coordinator.
            if isinstance(error, LeaseLost) and not _exists(database, record):
                executor.close()
            executor.leave()
            raise
        if closing is None or closing is _INTERRUPTED:
            executor.leave()
        else:
            observer.on_event(ProgressEvent("phase", "stopping workers"))
            executor.close()
        if closing is not None:
            return closing
        with database.engine.connect() as connection:
            record = study_records.find(connection, record.name)


def _executor(
    make: ExecutorMaker, job: Job, spec: StudySpec, observer: Observer, interrupt: threading.Event
) -> Executor | None:
    """Make a job's executor as soon as this machine has room for it; None when interrupted before."""
    told = ""
    while True:
        try:
            return make(job, spec)
        except MachineBusy as busy:
            if str(busy) != told:
                told = str(busy)
                observer.on_event(ProgressEvent("phase", f"waiting for {told}"))
        if interrupt.wait(MACHINE_S):
            return None


def _run_on(
    executor: Executor,
    job: Job,
    database: Database,
    record: StudyRecord,
    source: StudySource,
    observer: Observer,
    interrupt: threading.Event,
    *,
    standby: bool,
) -> Shutdown | None:
    """Take the study's lease, only now because Ray may take longer to start than a lease lasts, and run it.

    None when the study that a standby waited for has changed meanwhile, and its workers need another job.
    """
    executor.slots()
    while not interrupt.is_set():
        ledger = (
            stand_by(database, record, observer, interrupt) if standby else StudyWriter.open(database, record.study_id)
        )
        if ledger is None:
            return _INTERRUPTED if interrupt.is_set() else _OVER
        with _held(ledger), ThreadPoolExecutor(1, thread_name_prefix="commit") as beside:
            try:
                with translate_unavailable():
                    with database.engine.connect() as connection:
                        fresh = study_records.find(connection, record.name)
                    if standby and _job_of(fresh, source) != job:
                        return None
                    coordinator = build_coordinator(
                        database,
                        record.name,
                        ledger,
                        executor,
                        observer,
                        sampler=source.sampler,
                        pruner=source.pruner,
                        standby=standby,
                        beside=beside,
                    )
            except DatabaseUnavailable:
                if not standby:
                    raise
                continue
            with one_blas_thread():
                return coordinator.run(interrupt)
    return _INTERRUPTED


@contextmanager
def _held(ledger: StudyWriter) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(DatabaseUnavailable):  # then it runs out by itself
            ledger.release()


def _spec_of(record: StudyRecord) -> StudySpec:
    if record.spec is None:
        raise TuneError(_NO_SPEC.format(record.name))
    return record.spec


def _require_objective(spec: StudySpec, source: StudySource) -> None:
    if source.function is None and not spec.has_program:
        raise TuneError(
            f"study {spec.name!r} was started from Python and its objective is not stored: "
            f"continue it there, `{spec.resume_command}`"
        )
    if source.function is not None:
        faults = list(function_issues(spec, source.function, spec.parameters))
        if faults:
            raise SpecError("\n".join(map(str, faults)))


def _check_folder(record: StudyRecord, source: StudySource) -> None:
    """Refuse a study whose objective is no longer where it was: each of its trials would fail."""
    spec = _spec_of(record)
    if source.function is not None or record.source_dir is None:
        return
    folder = Path(record.source_dir)
    problem = f"there is no folder {folder}"
    if folder.is_dir():
        problem = next((fault.text for fault in entrypoint_issues(spec, folder)), "")
    if problem:
        raise TuneError(
            f"study {record.name!r} cannot run: {problem}. If its folder was moved, say where it lies now: "
            f"`tune resume {record.name} --folder DIR`"
        )


def move(database: Database, record: StudyRecord, folder: Path) -> StudyRecord:
    """Have a stored study find its objective in another folder.

    Raises:
        TuneError: it is not there either.
    """
    moved = replace(record, source_dir=str(folder.resolve()))
    _check_folder(moved, StudySource())
    with database.engine.begin() as connection:
        study_records.renew(connection, record, _spec_of(record), record.source_text, moved.source_dir)
    return moved


def _job_of(record: StudyRecord, source: StudySource) -> Job:
    where = source if source.function is not None else StudySource(record.source_text, record.source_dir)
    return make_job(_spec_of(record), record.key, where, checkpoint_folder(record))


def _exists(database: Database, record: StudyRecord) -> bool:
    try:
        with translate_unavailable(), database.engine.connect() as connection:
            return study_records.find(connection, record.name).study_id == record.study_id
    except StudyNotFound:
        return False
    except DatabaseUnavailable:
        return True


def build_coordinator(
    database: Database,
    name: str,
    ledger: StudyWriter,
    executor: Executor,
    observer: Observer | None = None,
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    standby: bool = False,
    **options: Any,
) -> Coordinator:
    """A coordinator that has taken up what is stored and is ready to step. Reads under the lease of `ledger`."""
    with database.engine.connect() as connection:
        record = study_records.find(connection, name)
    spec = _spec_of(record)
    storage = PgStorage(database)
    space = Space(spec.parameters)
    trials = [space.with_distributions(trial) for trial in storage.get_all_trials(record.study_id, deepcopy=False)]
    metrics = [metric.name for metric in spec.metrics]
    with database.engine.connect() as connection:
        others = recovery.other_objectives(connection, record.study_id, metrics[1:])
    directions = [_DIRECTIONS[goal] for goal in spec.directions]
    memory = RecordingStorage(spec.name, directions, trials, metrics=metrics, others=others)
    memory.restore_attrs(storage.get_study_user_attrs(record.study_id), storage.get_study_system_attrs(record.study_id))
    seed = seed_of(spec.seed if spec.sampler.seed is None else spec.sampler.seed)
    lends = None if is_complete(spec) else teacher(database, spec)
    optimizer = Optimizer(
        memory,
        space,
        make_sampler(seeded(spec, seed), space, sampler),
        make_pruner(spec, pruner),
        sampler_name=name_of(spec.sampler),
        pruner_name=name_of(spec.pruner),
        prune_before_step=last_step(spec),
        trials_max=trials_max(spec, space),
        seed=seed,
        warm_start=lends,
    )
    optimizer.is_distinct = is_distinct(spec, space)
    if all(trial.state == TrialState.WAITING and TRANSFERRED not in trial.system_attrs for trial in trials):
        optimizer.warm_up()  # nothing was asked yet, though somebody may have enqueued something
        if lends is not None and lends.warning and observer is not None:
            observer.on_event(ProgressEvent("warning", lends.warning))
    with database.engine.connect() as connection:
        unfinished = recovery.unfinished_trials(connection, record.study_id)
        gpu_hours = recovery.gpu_hours(connection, record.study_id)
        code = recovery.last_code(connection, record.study_id)
    coordinator = Coordinator(
        spec,
        ledger=ledger,
        optimizer=optimizer,
        executor=executor,
        observer=observer,
        active_s=record.active_s,
        gpu_hours=gpu_hours,
        code=code,
        refit=lambda spec: _refit(optimizer, spec, sampler, pruner),
        **options,
    )
    coordinator.recover(unfinished, standby=standby)
    return coordinator


def _refit(optimizer: Optimizer, spec: StudySpec, sampler: BaseSampler | None, pruner: BasePruner | None) -> None:
    """Have the optimizer of a study that runs go on in the spec's wider space."""
    space = Space(spec.parameters)
    sampler = make_sampler(seeded(spec, optimizer.seed), space, sampler)
    optimizer.widen(space, sampler, make_pruner(spec, pruner), trials_max(spec, space))


def end_workers(record: StudyRecord, token: int, make_executor: ExecutorMaker) -> str:
    """End what a coordinator that is gone has left on a cluster; returns what to tell about it, if anything.

    `token`: of the lease that whoever asks for it holds.
    """
    spec = _spec_of(record)
    address = spec.cluster or os.environ.get("RAY_ADDRESS")
    if not address:
        return ""
    job = make_job(spec, record.key, StudySource(function=_nothing), checkpoint_folder(record))
    try:
        executor = make_executor(job, spec)
    except TuneError as error:
        return f"; its workers could not be ended ({error}), but end by themselves after {spec.limits.orphan:g} s alone"
    executor.adopt(token, {})
    executor.close()
    return f"; what it had left on the cluster at {address} is ended"


def _nothing(**_: object) -> None:
    """The objective of a job that starts no worker."""


def make_job(spec: StudySpec, key: str, source: StudySource, checkpoints: Path) -> Job:
    """Return what all attempts of a study have in common.

    Raises:
        TuneError: the objective is a function that this process does not have, or that cannot travel.
    """
    _require_objective(spec, source)
    function = None if source.function is None else pickle_function(source.function)
    return Job(
        study=spec.name,
        key=key,
        metrics=tuple(metric.name for metric in spec.metrics),
        goals=spec.directions,
        resources=spec.resources,
        environment=spec.environment,
        checkpoint_root=str(checkpoints),
        source=source.folder,
        entrypoint=None if function is not None else spec.entrypoint,
        command=None if function is not None else spec.command,
        function=function,
        interpreter=Interpreter.of_this_process(source.folder),
        keep=spec.keep,
        define_by_run=spec.define_by_run,
        orphan_s=spec.limits.orphan,
    )


def checkpoint_folder(record: StudyRecord) -> Path:
    """Where a study's checkpoints lie, told apart from studies of the same name in other databases.

    `TUNE_CHECKPOINTS` names a shared file system for clusters of several nodes.
    """
    given = os.environ.get("TUNE_CHECKPOINTS")
    root = Path(given) if given else home_directory() / "checkpoints"
    readable = "".join(char if char.isalnum() and char.isascii() else "-" for char in record.name)[:60]
    return root / f"{readable}-{record.key}"


def _update_spec(database: Database, record: StudyRecord, spec: StudySpec, source: StudySource) -> StudyRecord:
    """The stored study under the spec as it is now; a budget never shrinks, since `tune extend` may have raised it.

    Raises:
        StudyExists: its trials would no longer be comparable.
    """
    if record.spec is None:
        return record
    # Seeds that trials share follow from the study's: with another one they would be others.
    fixed = _FIXED if spec.seeds is None else (*_FIXED, "seed")
    differing = [key for key in fixed if getattr(spec, key) != getattr(record.spec, key)]
    if differing:
        raise StudyExists(
            f"study {record.name!r} has trials with other {' and '.join(differing)} than this one. "
            f"`{record.spec.resume_command}` continues it as it was; `tune rm {record.name}` deletes it; or give "
            "this one another name."
        )
    if narrowed := sorted(widened(record.spec.parameters, spec.parameters)):
        raise StudyExists(
            f"study {record.name!r} has trials that would not fit these parameters: {'; '.join(narrowed)}. Ranges may "
            "grow and choices may be added."
        )
    old, new = record.spec.budget, spec.budget
    limits = {name: limit and max(limit, getattr(old, name) or 0) for name, limit in new.limits.items()}
    spec = spec.model_copy(update={"budget": new.model_copy(update=limits)})
    with database.engine.begin() as connection:
        study_records.renew(connection, record, spec, source.text, source.folder)
        return study_records.find(connection, spec.name)


_INTERRUPTED = Shutdown(None, "interrupted", None)
_OVER = Shutdown(None, "another coordinator brought it to its end", None)

_FIXED = ("metrics", "constraints", "constants", "seeds")
"""What has to stay as it is while a study has trials; `parameters` may grow, see `search_space.widened`."""


def _conflict_message(record: StudyRecord, trials: int) -> str:
    name = record.name
    is_done = record.spec is not None and is_exhausted(record.spec, trials)
    more = f"`tune widen {name}` allows more" if is_done else f"`tune extend {name} --trials N` gives it more budget"
    if record.spec is not None and not record.spec.has_program:
        return (
            f"a study named {name!r} exists and is {record.state}. `resume=True` continues it, with more trials if "
            f"you give it a larger budget; `tune rm {name}` deletes it; or give this one another `name`."
        )
    ways = {
        StudyState.FINISHED: f"it is finished ({record.reason}). {more}",
        StudyState.STOPPED: f"it was stopped. `tune resume {name}` continues it",
        StudyState.FAILED: f"it failed ({record.reason}). `tune resume {name}` tries again",
    }
    way = ways.get(record.state, f"it is unfinished. `tune resume {name}` continues it")
    return f"a study named {name!r} exists and {way}; `tune rm {name}` deletes it; or give this one another name."


_NO_SPEC = "study {!r} was made through Optuna's API and has no spec to run it by"

_DIRECTIONS: Mapping[str, StudyDirection] = {
    "minimize": StudyDirection.MINIMIZE,
    "maximize": StudyDirection.MAXIMIZE,
}
