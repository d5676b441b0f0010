"""Keywords of `tunesvc.run`, `train.tune`, `train.submit`, `Study.resume` and `Study.confirm`.

Imports nothing at run time, so that the decorator stays light.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypedDict

from tunesvc.util.suggestions import nearest

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from tunesvc.callbacks import Callback
    from tunesvc.coordinator.progress_events import Observer
    from tunesvc.execution.driver.ray_pool import ExecutorMaker


class RunOptions(TypedDict, total=False):
    """Display, callbacks and end of a run. All are optional."""

    progress: bool
    """Show the run: live in a notebook or terminal, else as lines on stderr. On by default."""
    observer: Observer | None
    """Gets the progress instead of the display."""
    callbacks: Sequence[Callback]
    """Called with each finished trial, in Optuna's form: `callback(study, trial)`."""
    timeout: float | None
    """Seconds from the first step until the run is stopped; the study can be resumed."""
    interrupt: threading.Event | None
    """Stops the run once it is set; without it Ctrl-C does, and raises `KeyboardInterrupt`."""
    check: bool
    """Raise `StudyFailed` when no trial has a result. On by default, except for `Study.confirm`."""
    make_executor: ExecutorMaker
    """Makes executors on a shared Ray, see `RayPool`."""


class StudyOptions(TypedDict, total=False):
    """Keys of [study.yaml](study-yaml.md) as keywords of `tunable`, `spec` and `tune`."""

    name: str
    """The function's name by default."""
    description: str
    tags: Sequence[str]
    metric: str | Mapping[str, Any]
    """One metric; `loss` by default."""
    goal: str
    """`minimize` (default) or `maximize`, of the one metric."""
    metrics: Sequence[str | Mapping[str, Any]]
    """Several, instead of `metric`."""
    constraints: Sequence[Any]
    parameters: Mapping[str, Any]
    """Ranges of arguments without an annotation."""
    constants: Mapping[str, Any]
    trials: int
    """Short for `budget={"trials": ...}`."""
    wall: float | str
    """Short for `budget={"wall": ...}`: seconds, or a text such as `30m`."""
    gpu_hours: float
    """Short for `budget={"gpu_hours": ...}`."""
    budget: Mapping[str, Any]
    sampler: str | Mapping[str, Any] | BaseSampler
    pruner: str | Mapping[str, Any] | BasePruner
    data: str | Mapping[str, Any]
    """Data that is prepared once for all trials: `trial.data`."""
    evaluation: Mapping[str, Any]
    """Evaluation of a trial: `{"folds": 5}`, `{"repeats": 3}`; `{"scoring": ["roc_auc"]}` if the
    function returns the model."""
    search: Mapping[str, Any]
    """Population-based training or a schedule, in place of `sampler` and `pruner`."""
    parallelism: int | None
    resources: Mapping[str, Any]
    cost: Mapping[str, Any]
    """Prices: `{"gpu_hour": 2.5, "currency": "EUR"}`; then `budget={"cost": 50}` limits it."""
    retries: Mapping[str, Any]
    limits: Mapping[str, Any]
    keep: Mapping[str, Any]
    environment: Mapping[str, Any]
    loggers: Sequence[str | Mapping[str, Any]]
    """Trackers that get a run per trial: `["mlflow", {"wandb": {"project": "digits"}}]`."""
    watch: Mapping[str, Any]
    """Options of `tunesvc.watch`, which keeps the champion fresh."""
    cluster: str | None
    seed: int | None
    warm_start: str | Sequence[str]


class TuneOptions(StudyOptions, RunOptions, total=False):
    """Keywords of `tune`: those of a study and of a run."""

    database_url: str | None
    """A Postgres; without it `TUNE_DATABASE_URL`, else the embedded one."""
    resume: bool
    """Continue with the study of that name if there is one. Off by default."""
    enqueue: Sequence[Mapping[str, Any]]
    """Values by name, to be tried first by a new study; the sampler draws the others."""


class SubmitOptions(StudyOptions, total=False):
    """Keywords of `submit`: those of a study, and where it is handed to."""

    priority: str
    """`low`, `normal` (default), `high` or `urgent`: its place in the queue."""
    project: str | None
    """Project that it belongs to; by default the user's only one."""
    server: str | None
    """Address of a server; `TUNE_SERVER` by default. Its token is in `TUNE_TOKEN`."""
    database_url: str | None
    """Without a server: a Postgres; by default `TUNE_DATABASE_URL`, else the embedded one."""


def check_names(function: str, options: Iterable[str]) -> None:
    """Refuse a keyword that is not one of `RunOptions`, as Python does for other functions.

    Raises:
        TypeError: there is one; the text suggests the nearest name.
    """
    known = RunOptions.__annotations__
    for name in options:
        if name not in known:
            near = nearest(name, known)
            hint = f". Did you mean {near!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
