"""Assembles and runs a study: storage, sampler, pruner, executor, coordinator.

The one place below the user interfaces that knows the classes that implement the protocols.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.coordinator import Coordinator, EarlierRuns, StepTiming
from tunesvc.coordinator.progress_events import Observer, ProgressEvent, SilentObserver
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.data.prepared_data import PreparedData
from tunesvc.db import recovery, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.people.accounts import find_project
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.errors import (
    DatabaseUnavailable,
    LeaseLost,
    MachineBusy,
    SpecError,
    StudyExists,
    StudyNotFound,
    StudyWithoutSpec,
    TuneError,
)
from tunesvc.execution.agents.agent_executor import AgentExecutor
from tunesvc.execution.agents.executor_choice import with_agents
from tunesvc.execution.driver.ray_pool import (
    ExecutorMaker,
    is_shared,
    require_cluster_of_servers,
)
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.interpreter import Interpreter
from tunesvc.execution.objectives.pickled_function import pickle_function
from tunesvc.queries.operations.data_lineage import ROWS_OF
from tunesvc.queries.operations.final_runs import FinalRun, get_final_run
from tunesvc.queries.warm_start_source import load_warm_start
from tunesvc.runtime.checkpoint_locations import checkpoint_root, delete_checkpoints
from tunesvc.runtime.data_preparation import prepare_data
from tunesvc.runtime.imported_searchers import Searchers, import_searchers
from tunesvc.runtime.takeover import BACK_S, await_end, stand_by
from tunesvc.search.exhaustion import is_complete, is_exhausted, repetition, trials_max
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.population.population import Arrival, Population
from tunesvc.search.registry.component_check import check, require_no_imports
from tunesvc.search.registry.component_options import name_of
from tunesvc.search.registry.pruner_registry import last_step, make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.seeding import seed_of, seeded
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.warm_start import ENQUEUED_FROM
from tunesvc.space.directions import direction_of, orient_each
from tunesvc.space.search_space import Space, widened
from tunesvc.spec import StudySpec
from tunesvc.spec.arguments import function_issues
from tunesvc.spec.entrypoint_file import entrypoint_issues
from tunesvc.util.blas import one_blas_thread
from tunesvc.util.formatting import final_command
from tunesvc.util.user import whoami

MACHINE_S = 1.0
"""Interval at which a study that waits for this machine tries again."""


@dataclass(frozen=True, slots=True)
class StudySource:
    """Origin of a study: its file, folder and objective."""

    text: str | None = None
    """The study file as written."""
    folder: str | None = None
    """Folder of its entrypoint or command; the stored one by default."""
    function: Callable[..., Any] | None = None
    """The objective itself, for studies that are started from Python."""
    sampler: BaseSampler | None = None
    """A sampler object, given from Python instead of a name."""
    pruner: BasePruner | None = None
    is_snapshot: bool = False
    """True if the folder is one that `tune submit` has packed."""


def create(
    database: Database,
    spec: StudySpec,
    source: StudySource,
    *,
    owner: str | None = None,
    project: str | None = None,
) -> StudyRecord:
    """Store a new study, which `run_study` can then begin.

    Args:
        owner: the system's user by default.
        project: Name of the project that it belongs to, if any.

    Raises:
        AccountNotFound: there is no such project.
        StudyExists: the name is taken.
        StudyNotFound: a study of `warm_start` does not exist.
        SpecError: see `check`.
    """
    check(spec, source.sampler, source.pruner)
    with database.engine.begin() as connection:
        for earlier in spec.warm_start:
            study_records.find(connection, earlier)
        return study_records.create(
            connection,
            spec,
            source.text,
            source.folder,
            owner,
            None if project is None else find_project(connection, project),
        )


def create_or_resume(
    database: Database,
    spec: StudySpec,
    source: StudySource,
    *,
    resume: bool,
    observer: Observer | None = None,
) -> StudyRecord:
    """Return the study's row: a new one, or with `resume` the existing one.

    A study without results, which never ran or failed with all of its trials, is replaced by the
    new one. With `resume`, a failed one is replaced only if its trials do not fit the new spec.

    Raises:
        StudyExists: the name is taken and `resume` is off; the text has the remedies.
        StudyNotFound: a study of `warm_start` does not exist.
        SpecError: see `check`.
    """
    try:
        return create(database, spec, source)
    except StudyExists:
        pass
    with database.engine.connect() as connection:
        record = study_records.find(connection, spec.name)
    try:
        return renew(database, record, spec, source, resume=resume)
    except StudyExists:
        with database.engine.begin() as connection:
            if not study_records.remove_failed(connection, record.study_id, whoami()):
                raise
            replacement = study_records.create(
                connection,
                spec,
                source.text,
                source.folder,
            )
    delete_checkpoints(record)
    cause = f"all trials of the earlier study {spec.name!r} failed ({record.reason})"
    reason = f"{cause}: this one replaces it"
    (observer or SilentObserver()).on_event(ProgressEvent("study", reason))
    return replacement


def renew(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    source: StudySource,
    *,
    resume: bool = True,
) -> StudyRecord:
    """Give a stored study the current spec and source: any if it never ran, else those that fit.

    Raises:
        StudyExists: its trials would no longer be comparable, or it ran and `resume` is off.
    """
    with database.engine.begin() as connection:
        current = (connection, record, spec, source.text, source.folder)
        if study_records.replace_unstarted(*current):
            if record.spec is not None and record.spec.data != spec.data:
                study_records.remove_system_attr(connection, record.study_id, ROWS_OF)
            return study_records.find(connection, spec.name)
        trials = study_records.trials_counted(connection, record.study_id)
    if not resume:
        raise StudyExists(_conflict_message(record, trials))
    return _update_spec(database, record, spec, source)


def run_study(
    database: Database,
    record: StudyRecord,
    source: StudySource,
    *,
    make_executor: ExecutorMaker,
    observer: Observer | None = None,
    interrupt: threading.Event | None = None,
    standby: bool = False,
    serving: Serving | None = None,
) -> Shutdown:
    """Run a stored study until it is finished, paused or interrupted.

    Args:
        standby: while another coordinator runs it, wait with Ray ready, and take over when that
            one is gone.
        serving: given by a server, which others may replace: run the study only if it still should
            run, and on a shared cluster leave running attempts to the next coordinator when
            interrupted.

    Raises:
        StudyBusy: another coordinator runs it, and `standby` is off.
        TuneError: the objective cannot be found.
        UnsatisfiableRequest: the cluster can never meet its resource request.
        LeaseLost: another coordinator took over meanwhile.
        DatabaseUnavailable: interrupted while the database is away.
    """
    observer = observer or SilentObserver()
    interrupt = interrupt or threading.Event()
    run = _Run(database, source, observer, interrupt, standby, serving)
    if serving is not None:
        require_cluster_of_servers(_spec_of(record))  # it may be older than the server's cluster
    make_executor = with_agents(database, make_executor)
    # Before Ray starts, which takes seconds.
    _require_objective(_spec_of(record), source)
    _check_folder(record, source)
    _require_searchers(record, run)
    if not standby:
        back_s = BACK_S if serving is None else serving.back_s
        await_end(database, record, observer, interrupt, back_s)
        if interrupt.is_set():
            return _INTERRUPTED
    final = get_final_run(database, record.study_id)
    run = replace(run, final=final)
    if final is not None:
        _require_enqueued(record, run)
    if _spec_of(record).data is not None:
        run = replace(run, prepared=_prepared(record, run))
        if run.prepared is None:
            return _INTERRUPTED
    while True:
        waits_for = "agents" if _spec_of(record).agents == "only" else "Ray"
        observer.on_event(ProgressEvent("phase", f"waiting for {waits_for}"))
        job = _job_of(record, run)
        executor = _executor(make_executor, job, _spec_of(record), observer, interrupt)
        if executor is None:
            return _INTERRUPTED
        try:
            shutdown = _run_on(executor, job, record, run)
        except BaseException as error:
            # Running attempts may belong to another coordinator by now, or wait for the next one.
            if isinstance(error, LeaseLost) and not _exists(database, record):
                executor.close()
            executor.leave()
            raise
        if shutdown is None or shutdown.leaves_attempts:
            executor.leave()
        else:
            observer.on_event(ProgressEvent("phase", "stopping workers"))
            executor.close()
        if shutdown is not None:
            return shutdown
        with database.engine.connect() as connection:
            record = study_records.find(connection, record.name)


def _executor(
    make: ExecutorMaker,
    job: Job,
    spec: StudySpec,
    observer: Observer,
    interrupt: threading.Event,
) -> Executor | None:
    """Make a job's executor once this machine has room for it; None when interrupted before."""
    reported = ""
    while True:
        try:
            return make(job, spec)
        except MachineBusy as busy:
            if str(busy) != reported:
                reported = str(busy)
                observer.on_event(ProgressEvent("phase", f"waiting for {reported}"))
        if interrupt.wait(MACHINE_S):
            return None


@dataclass(frozen=True, slots=True)
class Serving:
    """Additions of a server to the run of a study."""

    on_start: Callable[[Coordinator], None]
    """Called with the coordinator before its first step."""
    back_s: float = BACK_S
    """Time that a coordinator with an expired lease gets to come back. None is needed if this
    process has reached the database all the time, since the other one has had no outage then."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The arguments of `run_study` that stay the same for the whole run."""

    database: Database
    source: StudySource
    observer: Observer
    interrupt: threading.Event
    standby: bool
    serving: Serving | None
    prepared: PreparedData | None = None
    """The study's data, if it has any."""
    final: FinalRun | None = None
    """Set if the study is the final run of another one."""

    @property
    def takes_over(self) -> bool:
        """True if no user has just started it: the study may have changed while it waited."""
        return self.standby or self.serving is not None


def _run_on(
    executor: Executor,
    job: Job,
    record: StudyRecord,
    run: _Run,
) -> Shutdown | None:
    """Take the study's lease and run the study.

    The lease is taken only now, because Ray may take longer to start than a lease lasts.

    Returns:
        None when the study changed while a standby waited, and its workers need another job.
    """
    executor.slots()
    while not run.interrupt.is_set():
        study_writer = _take_lease(record, run)
        if study_writer is None:
            return _INTERRUPTED if run.interrupt.is_set() else _FINISHED_ELSEWHERE
        with _released_at_end(study_writer), _commit_thread() as thread:
            try:
                coordinator = _coordinator_under_lease(
                    study_writer,
                    executor,
                    job,
                    record,
                    run,
                    thread,
                )
            except DatabaseUnavailable:
                if not run.standby:
                    raise
                continue
            if not isinstance(coordinator, Coordinator):
                return coordinator
            outlives = coordinator.spec.agents is not None or is_shared(coordinator.spec.cluster)
            if run.serving is not None:
                run.serving.on_start(coordinator)
            hands_over = run.serving is not None and outlives
            with one_blas_thread():
                return coordinator.run(run.interrupt, hands_over=hands_over)
    return _INTERRUPTED


def _take_lease(record: StudyRecord, run: _Run) -> StudyWriter | None:
    """Take the study's lease; None if a standby's wait ended without it."""
    if run.standby:
        return stand_by(run.database, record, run.observer, run.interrupt)
    return StudyWriter.open(run.database, record.study_id)


def _coordinator_under_lease(
    study_writer: StudyWriter,
    executor: Executor,
    job: Job,
    record: StudyRecord,
    run: _Run,
    commit_thread: ThreadPoolExecutor,
) -> Coordinator | Shutdown | None:
    """Build the coordinator, or say why there is nothing to run.

    Returns:
        None if the study now needs another job than was prepared.
    """
    with translate_unavailable():
        with run.database.engine.connect() as connection:
            current = study_records.find(connection, record.name)
        if run.serving is not None and current.state not in (
            StudyState.CREATED,
            StudyState.RUNNING,
        ):
            return _FINISHED_ELSEWHERE
        if run.takes_over and _job_of(current, run) != job:
            return None
        return build_coordinator(
            run.database,
            record.name,
            study_writer,
            executor,
            run.observer,
            searchers=_searchers(current, run),
            standby=run.takes_over,
            timing=StepTiming(commit_thread=commit_thread),
        )


def _commit_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="commit")


@contextmanager
def _released_at_end(study_writer: StudyWriter) -> Iterator[None]:
    try:
        yield
    finally:
        # If the database is away, the lease runs out by itself.
        with suppress(DatabaseUnavailable):
            study_writer.release()


def _spec_of(record: StudyRecord) -> StudySpec:
    if record.spec is None:
        raise StudyWithoutSpec(record.name, "it has no spec to run trials by")
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
    """Refuse a study without its objective: each of its trials would fail."""
    spec = _spec_of(record)
    named = source.folder if source.is_snapshot else record.source_dir
    if source.function is not None or named is None:
        return
    folder = Path(named)
    problem = f"there is no folder {folder}"
    if folder.is_dir():
        texts = (fault.text for fault in entrypoint_issues(spec, folder))
        problem = next(texts, "")
    if problem:
        raise TuneError(
            f"study {record.name!r} cannot run: {problem}. "
            "If its folder was moved, say where it lies now: "
            f"`tune resume {record.name} --folder DIR`"
        )


def _require_searchers(record: StudyRecord, run: _Run) -> None:
    """Check the sampler and pruner where they are imported."""
    searchers = _searchers(record, run)
    check(_spec_of(record), searchers.sampler, searchers.pruner)


def _searchers(record: StudyRecord, run: _Run) -> Searchers:
    """Return the objects that the study was started with, and the classes that its spec names.

    Raises:
        SpecError: a class cannot be imported, or this is a server, which imports none.
    """
    spec, source = _spec_of(record), run.source
    if run.serving is not None:
        require_no_imports(spec)
    folder = record.source_dir if source.folder is None else source.folder
    return import_searchers(spec, folder, Searchers(source.sampler, source.pruner))


def move(database: Database, record: StudyRecord, folder: Path) -> StudyRecord:
    """Record another folder for a stored study's objective.

    Raises:
        TuneError: the objective is not there either.
    """
    moved = replace(record, source_dir=str(folder.resolve()))
    _check_folder(moved, StudySource())
    with database.engine.begin() as connection:
        study_records.renew(
            connection,
            record,
            _spec_of(record),
            record.source_text,
            moved.source_dir,
        )
    return moved


def _prepared(record: StudyRecord, run: _Run) -> PreparedData | None:
    """Have the study's data prepared; None when interrupted.

    A server has a shared cluster prepare it, since it runs no code of studies itself.

    Raises:
        DataError: the data cannot be prepared, or are not those of the study's trials.
    """
    spec = _spec_of(record)
    if run.source.folder is not None:
        record = replace(record, source_dir=run.source.folder)
    return prepare_data(
        run.database,
        record,
        spec,
        run.observer,
        run.interrupt,
        final=run.final,
        is_served=run.serving is not None,
        is_snapshot=run.source.is_snapshot,
    )


def _require_enqueued(record: StudyRecord, run: _Run) -> None:
    """Refuse a final run with a budget for trials that a sampler would draw.

    Raises:
        TuneError: it has one.
    """
    trials = PgStorage(run.database).get_n_trials(record.study_id)
    if run.final is not None and (_spec_of(record).budget.trials or 0) > trials:
        command = final_command(run.final.study, run.final.kind)
        raise TuneError(
            f"study {record.name!r} is a final run of {run.final.study!r}, which runs recommended "
            f"configurations only: `{command}` adds one"
        )


def _job_of(record: StudyRecord, run: _Run) -> Job:
    source = run.source
    if source.function is None:
        source = source if source.is_snapshot else StudySource(folder=record.source_dir)
    job = make_job(_spec_of(record), record.key, source, checkpoint_root(record))
    return replace(job, data=run.prepared, final=None if run.final is None else run.final.kind)


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
    study_writer: StudyWriter,
    executor: Executor,
    observer: Observer | None = None,
    *,
    searchers: Searchers | None = None,
    standby: bool = False,
    timing: StepTiming | None = None,
) -> Coordinator:
    """Return a coordinator that has recovered what is stored and is ready to step.

    Reads under the lease of `study_writer`.
    """
    with database.engine.connect() as connection:
        record = study_records.find(connection, name)
    searchers = searchers or Searchers()
    optimizer = _optimizer(database, record, searchers, observer)
    with database.engine.connect() as connection:
        unfinished = recovery.unfinished_trials(connection, record.study_id)
        earlier = EarlierRuns(
            record.active_s,
            *recovery.ended_hours(connection, record.study_id),
            recovery.last_code(connection, record.study_id),
        )
    coordinator = Coordinator(
        _spec_of(record),
        study_writer=study_writer,
        optimizer=optimizer,
        executor=executor,
        refit=lambda spec: _refit(optimizer, spec, searchers),
        observer=observer,
        earlier=earlier,
        timing=timing,
    )
    coordinator.recover(unfinished, standby=standby)
    return coordinator


def _optimizer(
    database: Database,
    record: StudyRecord,
    given: Searchers,
    observer: Observer | None,
) -> Optimizer:
    """Return the study's optimizer with all stored trials, warmed up if none was asked yet."""
    spec = _spec_of(record)
    space = Space(spec.parameters)
    memory = _recording_storage(database, record, spec, space)
    seed = seed_of(spec.seed if spec.sampler.seed is None else spec.sampler.seed)
    warm_start = None if is_complete(spec) else load_warm_start(database, spec)
    strategy = Strategy(
        make_sampler(seeded(spec, seed), space, given.sampler),
        make_pruner(spec, given.pruner),
        name_of(spec.sampler),
        name_of(spec.pruner),
        seed,
    )
    optimizer = Optimizer(
        memory,
        space,
        strategy,
        prune_before_step=last_step(spec),
        trials_max=trials_max(spec, space),
        warm_start=warm_start,
        population=_population(database, record, spec, memory, seed),
        evaluation=spec.evaluation,
    )
    optimizer.repetition = repetition(spec, space)
    # Trials that a user has enqueued do not count as asked.
    if all(_is_enqueued(trial) for trial in optimizer.trials):
        optimizer.warm_up()
        if warm_start is not None and warm_start.warning and observer is not None:
            observer.on_event(ProgressEvent("warning", warm_start.warning))
    return optimizer


def _population(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    memory: RecordingStorage,
    seed: int,
) -> Population | None:
    """Restore the population of a study that has one."""
    if spec.search is None:
        return None
    with database.engine.connect() as connection:
        arrivals = recovery.paused_checkpoints(connection, record.study_id)
    (orientation,) = orient_each(spec.directions)
    return Population(
        memory,
        spec.search,
        orientation=float(orientation),
        seed=seed,
        arrivals=(Arrival(*arrival) for arrival in arrivals),
    )


def _recording_storage(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    space: Space,
) -> RecordingStorage:
    """Load the study's trials and attributes."""
    storage = PgStorage(database)
    stored = storage.get_all_trials(record.study_id, deepcopy=False)
    trials = [space.with_distributions(trial) for trial in stored]
    metrics = [metric.name for metric in spec.metrics]
    with database.engine.connect() as connection:
        others = recovery.other_objectives(connection, record.study_id, metrics[1:])
    directions = [direction_of(goal) for goal in spec.directions]
    memory = RecordingStorage(
        spec.name,
        directions,
        trials,
        metrics=metrics,
        others=others,
    )
    memory.restore_attrs(
        storage.get_study_user_attrs(record.study_id),
        storage.get_study_system_attrs(record.study_id),
    )
    return memory


def _is_enqueued(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.WAITING and ENQUEUED_FROM not in trial.system_attrs


def _refit(
    optimizer: Optimizer,
    spec: StudySpec,
    given: Searchers,
) -> None:
    """Make the optimizer of a running study continue in the spec's wider space."""
    space = Space(spec.parameters)
    sampler = make_sampler(seeded(spec, optimizer.seed), space, given.sampler)
    optimizer.widen(space, sampler, make_pruner(spec, given.pruner), trials_max(spec, space))


def end_workers(
    database: Database, record: StudyRecord, token: int, make_executor: ExecutorMaker
) -> str:
    """End the attempts that a dead coordinator left on a cluster or on agents.

    Args:
        token: fencing token of the caller's lease.

    Returns:
        A clause for the answer, which starts with a semicolon; empty when there is nothing to
        report.
    """
    spec = _spec_of(record)
    address = spec.cluster or os.environ.get("RAY_ADDRESS")
    source = StudySource(function=_nothing)
    job = make_job(spec, record.key, source, checkpoint_root(record))
    if spec.agents is not None:
        agents = AgentExecutor(job, database)
        agents.adopt(token, {})
        agents.close()
    if not address or spec.agents == "only":
        return ""
    try:
        executor = make_executor(job, spec)
    except TuneError as error:
        alone_s = f"{spec.limits.orphan:g} s"
        problem = f"its workers could not be ended ({error})"
        return f"; {problem}, but end by themselves after {alone_s} alone"
    executor.adopt(token, {})
    executor.close()
    return f"; what it had left on the cluster at {address} is ended"


def _nothing(**_: object) -> None:
    """The objective of a job that starts no worker."""


def make_job(spec: StudySpec, key: str, source: StudySource, checkpoints: str) -> Job:
    """Return the job of a study: everything that its attempts have in common.

    Raises:
        TuneError: the objective is a function that this process lacks, or that cannot be pickled.
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
        checkpoint_root=checkpoints,
        source=source.folder,
        is_snapshot=source.is_snapshot,
        entrypoint=None if function is not None else spec.entrypoint,
        command=None if function is not None else spec.command,
        function=function,
        interpreter=Interpreter.of_this_process(source.folder),
        keep=spec.keep,
        define_by_run=spec.define_by_run,
        evaluation=spec.evaluation,
        orphan_s=spec.limits.orphan,
    )


def _update_spec(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    source: StudySource,
) -> StudyRecord:
    """Store the current spec of a study.

    A budget never shrinks, as `tune extend` may have raised it.

    Raises:
        StudyExists: its trials would no longer be comparable.
    """
    if record.spec is None:
        return record
    # Shared seeds are derived from the study's, so that it must not change with them.
    has_blocks = spec.evaluation is not None and spec.evaluation.has_blocks
    fixed = (*_FIXED, "seed") if has_blocks else _FIXED
    differing = [key for key in fixed if getattr(spec, key) != getattr(record.spec, key)]
    if differing:
        raise StudyExists(
            f"study {record.name!r} has trials with other {' and '.join(differing)} than this one. "
            f"`{record.spec.resume_command}` continues it as it was; "
            f"`tune rm {record.name}` deletes it; or give this one another name."
        )
    if narrowed := sorted(widened(record.spec.parameters, spec.parameters)):
        raise StudyExists(
            f"study {record.name!r} has trials that would not fit these parameters: "
            f"{'; '.join(narrowed)}. Ranges may grow and choices may be added."
        )
    old, new = record.spec.budget, spec.budget
    limits = {}
    for name, limit in new.limits.items():
        limits[name] = limit and max(limit, getattr(old, name) or 0)
    spec = spec.model_copy(update={"budget": new.model_copy(update=limits)})
    with database.engine.begin() as connection:
        study_records.renew(connection, record, spec, source.text, source.folder)
        return study_records.find(connection, spec.name)


_INTERRUPTED = Shutdown(None, "interrupted", None, leaves_attempts=True)
_FINISHED_ELSEWHERE = Shutdown(None, "another coordinator brought it to its end", None)

_FIXED = ("metrics", "constraints", "constants", "evaluation", "data")
"""Keys that cannot change while a study has trials; `parameters` may grow, see `widened`."""


def _conflict_message(record: StudyRecord, trials: int) -> str:
    name = record.name
    is_done = record.spec is not None and is_exhausted(record.spec, trials)
    more = f"`tune extend {name} --trials N` gives it more budget"
    if is_done:
        more = f"`tune widen {name}` allows more"
    if record.spec is not None and not record.spec.has_program:
        return (
            f"a study named {name!r} exists and is {record.state}. "
            "`resume=True` continues it, with more trials if you give it a larger budget; "
            f"`tune rm {name}` deletes it; or give this one another `name`."
        )
    ways = {
        StudyState.FINISHED: f"it is finished ({record.reason}). {more}",
        StudyState.STOPPED: f"it was stopped. `tune resume {name}` continues it",
        StudyState.FAILED: f"it failed ({record.reason}). `tune resume {name}` tries again",
    }
    way = ways.get(record.state, f"it is unfinished. `tune resume {name}` continues it")
    ways_out = f"`tune rm {name}` deletes it; or give this one another name."
    return f"a study named {name!r} exists and {way}; {ways_out}"
