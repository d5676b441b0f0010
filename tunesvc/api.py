"""The Python API: run a study, list studies, load one, and use the storage with plain Optuna."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tunesvc.coordinator.progress_events import ProgressEvent
from tunesvc.db.engine.database import Database, open_database
from tunesvc.db.optuna.heartbeats import Heartbeats, StaleTrialCallback
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import SpecError
from tunesvc.execution.driver.ray_pool import RayPool
from tunesvc.queries.studies import get_study, list_studies
from tunesvc.run_options import RunOptions, check_names
from tunesvc.runs import open_view, refusal_recorded, run_observed
from tunesvc.runtime.imported_searchers import Searchers, machine_check
from tunesvc.runtime.interrupts import interruptible
from tunesvc.runtime.run_study import StudySource, create_or_resume
from tunesvc.search.registry.component_options import entry_of
from tunesvc.space.search_space import Space
from tunesvc.spec import Pruner, Sampler, StudySpec
from tunesvc.spec.checks import find_issues
from tunesvc.spec.choices import as_choices
from tunesvc.spec.yaml.document import StudyDocument, load
from tunesvc.study import Study

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def run(
    spec: StudySpec | StudyDocument | str | Path,
    *,
    function: Callable[..., Any] | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    database_url: str | None = None,
    resume: bool = False,
    enqueue: Sequence[Mapping[str, Any]] = (),
    **options: Unpack[RunOptions],
) -> Study:
    """Run a study until its budget is spent, it is stopped or interrupted, or `timeout` is over.

    Args:
        spec: a spec, a study file that was read, or the path of one.
        function: the objective itself, when the spec names neither entrypoint nor command.
        sampler: an Optuna sampler, instead of the spec's. It is not stored: resume from Python.
        pruner: an Optuna pruner, likewise.
        database_url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
        resume: continue with the study of that name if there is one.
        enqueue: values by name, to be tried first by a new study; the sampler draws the others.
        options: display, callbacks and end of the run, see `RunOptions`.

    Raises:
        StudyFailed: no trial has a result; its cause is the objective's traceback.
        SpecError: the spec cannot be used.
        StudyExists: there is a study of that name, and `resume` is off.
        StudyBusy: another process runs it.
        UnsatisfiableRequest: the cluster can never meet its resource request.
        KeyboardInterrupt: Ctrl-C was pressed; the study can be resumed.
    """
    check_names("run", options)
    spec, source = _read(spec, function, sampler, pruner)
    points = [_checked(spec, point) for point in enqueue]
    with (
        RayPool() as rays,
        interruptible(spec.name, options.get("interrupt")) as interrupt,
    ):
        if "make_executor" not in options:
            options["make_executor"] = rays.prestart([spec], source.folder).executor
        opened = functools.partial(shared_database, database_url)
        with open_view(options, spec.name, interrupt, opened) as observer:
            observer.on_event(ProgressEvent("phase", "opening the database"))
            database = opened()
            record = create_or_resume(database, spec, source, resume=resume, observer=observer)
            study = Study(record.name, database)
            for point in () if study.trials else points:
                study.enqueue(point)
            with refusal_recorded(database, record):
                interrupted = run_observed(database, record, source, options, observer, interrupt)
            return Study(record.name, database, interrupted=interrupted)


def load_study(name: str, *, database_url: str | None = None) -> Study:
    """Return a stored study.

    Raises:
        StudyNotFound: there is no such study; the text suggests the nearest name.
    """
    database = shared_database(database_url)
    get_study(database, name)
    return Study(name, database)


def studies(
    *,
    search: str = "",
    tags: Sequence[str] = (),
    owner: str | None = None,
    limit: int = 200,
    database_url: str | None = None,
) -> list[Study]:
    """Return studies, newest first.

    Args:
        search: text that the name, owner or tags must contain.
        tags: tags that a study must have, all of them.
        owner: owner that a study must have.
        limit: most studies to return.
        database_url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
    """
    database = shared_database(database_url)
    rows = list_studies(database, limit, search=search, tags=tags, owner=owner)
    return [Study(row.name, database) for row in rows]


def delete_study(name: str, *, database_url: str | None = None) -> str:
    """Delete a study with its trials, logs and checkpoints; return a sentence about it.

    Raises:
        StudyNotFound: there is no such study.
        StudyBusy: a coordinator runs it.
    """
    return load_study(name, database_url=database_url).delete()


def storage(
    url: str | None = None,
    *,
    heartbeat_interval: int | None = None,
    grace_period: int | None = None,
    heartbeat_stale_trial_callback: StaleTrialCallback | None = None,
    failed_trial_callback: StaleTrialCallback | None = None,
) -> PgStorage:
    """Return our storage for any Optuna code: `optuna.create_study(storage=tunesvc.storage())`.

    With a `heartbeat_interval`, `Study.optimize` and `optuna.storages.fail_stale_trials` fail the
    trials of killed processes, as with Optuna's `RDBStorage`.

    Args:
        url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
        heartbeat_interval: seconds between two heartbeats of a running trial.
        grace_period: seconds after the last heartbeat until a trial is stale; twice the interval by
            default.
        heartbeat_stale_trial_callback: called with the study and each failed stale trial, such as
            `optuna.storages.RetryHeartbeatStaleTrialCallback()`.
        failed_trial_callback: the same, under its name in Optuna 4.

    Raises:
        ValueError: both callbacks, or a number of seconds that is not positive.
    """
    if heartbeat_stale_trial_callback is not None and failed_trial_callback is not None:
        raise ValueError(
            "hand over heartbeat_stale_trial_callback or failed_trial_callback, not both",
        )
    on_stale = heartbeat_stale_trial_callback or failed_trial_callback
    heartbeats = Heartbeats(heartbeat_interval, grace_period, on_stale)
    return PgStorage(shared_database(url), heartbeats=heartbeats)


def _read(
    spec: StudySpec | StudyDocument | str | Path,
    function: Callable[..., Any] | None,
    sampler: BaseSampler | None,
    pruner: BasePruner | None,
) -> tuple[StudySpec, StudySource]:
    if isinstance(spec, StudySpec):
        text, folder = None, str(Path.cwd())
    else:
        document = spec if isinstance(spec, StudyDocument) else _load(Path(spec))
        spec, text, folder = document.spec, document.text, str(document.folder)
    changes: dict[str, Any] = {}
    if sampler is not None:
        changes["sampler"] = Sampler.model_validate(entry_of(sampler))
    if pruner is not None:
        changes["pruner"] = Pruner.model_validate(entry_of(pruner))
    spec = spec.model_copy(update=changes)
    if function is not None and spec.agents == "only":
        raise SpecError(
            "agents: agents run what is in files, and the function is not stored: hand the study "
            "to a server with `.submit()`, or name the function as `entrypoint` in a study file"
        )
    if text is None:
        faults = find_issues(spec, folder=Path(folder), function=function)
        if faults := faults + machine_check(folder, Searchers(sampler, pruner))(spec):
            raise SpecError("\n".join(str(fault) for fault in faults))
    return spec, StudySource(text, folder, function, sampler, pruner)


def _checked(spec: StudySpec, point: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return values to be tried first; those of an objective that declares its own are not known.

    Raises:
        SpecError: there is no such parameter, or a value is outside of its range.
    """
    if spec.parameters:
        Space(spec.parameters).checked(as_choices(point))
    return point


def _load(path: Path) -> StudyDocument:
    return load(path, machine_check(path.absolute().parent))


def shared_database(url: str | None) -> Database:
    """Return the open database of a URL, shared in this process; it is closed at exit.

    Any thread may call this.

    Args:
        url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
    """
    with _opening:
        return _opened(url)


_opening = threading.Lock()
_opened = functools.lru_cache(maxsize=8)(open_database)
