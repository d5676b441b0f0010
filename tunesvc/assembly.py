"""Puts the concrete parts of a running study together: storage, memory, sampler, pruner, executor, coordinator.

The one place below the faces that knows which classes stand behind the protocols.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from optuna.study import StudyDirection

from tunesvc.coordinator.closing import Closing
from tunesvc.coordinator.loop import Coordinator
from tunesvc.coordinator.progress import Note, Observer, SilentObserver
from tunesvc.errors import StudyExists, TuneError
from tunesvc.execute.executor import Executor, Job
from tunesvc.search.memory import StudyMemory
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruners import last_step, make_pruner
from tunesvc.search.samplers import make_sampler, resolve, trials_max
from tunesvc.space import Space
from tunesvc.spec import StudySpec
from tunesvc.store import recovery, studies
from tunesvc.store.database import Database
from tunesvc.store.home import home_directory
from tunesvc.store.ledger import Ledger
from tunesvc.store.states import StudyState
from tunesvc.store.storage import PgStorage
from tunesvc.store.studies import StudyRecord

ExecutorMaker = Callable[[Job, StudySpec], Executor]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a study comes from."""

    text: str | None = None
    """The study file as written."""
    folder: str | None = None
    """Where its entrypoint or command is found."""
    function: Callable[..., Any] | None = None
    """The objective itself, for studies that are started from Python."""


def check(spec: StudySpec) -> None:
    """Find mistakes that only samplers and pruners can tell, before anything is started or stored.

    Raises:
        SpecError: no such sampler or pruner, or options that it refuses.
    """
    make_sampler(spec, Space(spec.parameters))
    make_pruner(spec)


def enroll(database: Database, spec: StudySpec, source: Source, *, resume: bool) -> StudyRecord:
    """The study's row: a new one, or with `resume` the one that is there.

    One that never ran, because the cluster could not serve it or Ray did not start, gives way to the new one.

    Raises:
        StudyExists: the name is taken and `resume` is off; the text says how to go on.
        SpecError: see `check`.
    """
    check(spec)
    with database.engine.begin() as connection:
        try:
            return studies.create(connection, spec, source.text, source.folder)
        except StudyExists:
            record = studies.find(connection, spec.name)
        if record.spec is not None and record.state is StudyState.CREATED and not studies.is_run(connection, record):
            studies.remove(connection, record.study_id)
            return studies.create(connection, spec, source.text, source.folder)
    if not resume:
        raise StudyExists(_how_to_go_on(record))
    return record


def run_study(
    database: Database,
    record: StudyRecord,
    source: Source,
    *,
    make_executor: ExecutorMaker,
    observer: Observer | None = None,
    interrupt: threading.Event | None = None,
) -> Closing:
    """Run a stored study until it is over, paused or interrupted.

    Raises:
        StudyBusy: another coordinator runs it.
        UnsatisfiableRequest: the cluster can never meet its resource request.
        LeaseLost: another coordinator took over meanwhile.
    """
    observer = observer or SilentObserver()
    if record.spec is None:
        raise TuneError(f"study {record.name!r} was made through Optuna's API and has no spec to run it by")
    spec = record.spec
    ledger = Ledger.open(database.engine, record.study_id)
    try:
        observer.note(Note("phase", "starting Ray"))
        executor = make_executor(make_job(spec, source), spec)
        try:
            executor.slots()
            coordinator = build_coordinator(database, record, spec, ledger, executor, observer)
            return coordinator.run(interrupt)
        finally:
            observer.note(Note("phase", "stopping workers"))
            executor.close()
    finally:
        ledger.release()


def build_coordinator(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    ledger: Ledger,
    executor: Executor,
    observer: Observer | None = None,
    **options: Any,
) -> Coordinator:
    """A coordinator that has taken up what is stored and is ready to step."""
    storage = PgStorage(database)
    trials = storage.get_all_trials(record.study_id, deepcopy=False)
    memory = StudyMemory(spec.name, [_DIRECTIONS[goal] for goal in spec.directions], trials)
    memory.restore_attrs(storage.get_study_user_attrs(record.study_id), storage.get_study_system_attrs(record.study_id))
    space = Space(spec.parameters)
    optimizer = Optimizer(
        memory,
        space,
        make_sampler(spec, space, trials_before=len(trials)),
        make_pruner(spec),
        sampler_name=resolve(spec),
        pruner_name=spec.pruner.name,
        prune_before_step=last_step(spec),
        trials_max=trials_max(spec, space),
        seed=spec.seed,
    )
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
        **options,
    )
    coordinator.recover(unfinished)
    return coordinator


def make_job(spec: StudySpec, source: Source) -> Job:
    """What all attempts of a study have in common."""
    function = None if source.function is None else _pickled(source.function)
    if function is None and spec.entrypoint is None and spec.command is None:
        raise TuneError(
            f"study {spec.name!r} was started from Python and its objective is not stored: "
            f"go on with it there, `your_function.tune(name={spec.name!r}, resume=True)`"
        )
    return Job(
        study=spec.name,
        metrics=tuple(metric.name for metric in spec.metrics),
        resources=spec.resources,
        environment=spec.environment,
        checkpoint_root=str(checkpoint_folder(spec.name)),
        source=source.folder,
        entrypoint=None if function is not None else spec.entrypoint,
        command=None if function is not None else spec.command,
        function=function,
        define_by_run=spec.define_by_run,
    )


def _pickled(function: Callable[..., Any]) -> bytes:
    """A function as it travels to workers.

    Raises:
        TuneError: something that it refers to cannot travel.
    """
    try:
        data: bytes = cloudpickle.dumps(function)
    except Exception as error:  # pickling runs anybody's code
        raise TuneError(
            f"{function.__name__} cannot be sent to workers: something it refers to cannot be pickled ({error}). "
            "Make that thing inside the function, or put the function into a module and name it as `entrypoint`."
        ) from error
    return data


def checkpoint_folder(study: str) -> Path:
    """Where a study's checkpoints lie. `TUNE_CHECKPOINTS` names a shared file system for clusters of several nodes."""
    root = os.environ.get("TUNE_CHECKPOINTS")
    safe = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):x}" for c in study)[:150]
    return (Path(root) if root else home_directory() / "checkpoints") / safe


def _how_to_go_on(record: StudyRecord) -> str:
    name = record.name
    ways = {
        StudyState.FINISHED: f"it is finished ({record.reason}). `tune extend {name} --trials N` gives it more budget",
        StudyState.STOPPED: f"it was stopped. `tune resume {name}` goes on with it",
        StudyState.FAILED: f"it failed ({record.reason}). `tune resume {name}` tries again",
    }
    way = ways.get(record.state, f"it is unfinished. `tune resume {name}` goes on with it")
    return f"a study named {name!r} exists and {way}; `tune rm {name}` deletes it; or give this one another name."


_DIRECTIONS: Mapping[str, StudyDirection] = {
    "minimize": StudyDirection.MINIMIZE,
    "maximize": StudyDirection.MAXIMIZE,
}
