"""`Tuner`: Ray Tune's arguments, made into one study of ours, and its results in Ray's form."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from tunesvc.decorator import Tunable
from tunesvc.errors import SpecError, StudyNotFound
from tunesvc.execution.objectives.ray_tune_space import constants_of, from_ray
from tunesvc.ray_tune.callback_trial import refuse_unusable, results_folder
from tunesvc.ray_tune.result_grid import ResultGrid
from tunesvc.ray_tune.schedulers import (
    is_population,
    last_step_of,
    mutations_of,
    population_of,
    pruner_of,
)
from tunesvc.ray_tune.searchers import choice_of
from tunesvc.signatures import name_of

_GOALS = {"min": "minimize", "max": "maximize"}
_STEP = "training_iteration"
_ALWAYS_RETRIED = 1_000
"""Retries for `max_failures=-1`."""


class Tuner:
    """Runs a training function or `Trainable` class of Ray Tune as a study.

    Args:
        trainable: a function of `config`, a `Trainable` class, or the name of a registered one;
            `tune.with_parameters` and `tune.with_resources` are understood.
        param_space: Ray's search space, with plain values between.
        tune_config: Ray's `TuneConfig`. Without `search_alg`, `auto` proposes.
        run_config: Ray's `RunConfig`. Its name becomes the study's, with a number behind it if the
            name is taken.
        study_options: keywords of `Tunable.tune` that override what follows from the others, such
            as `sampler`, `pruner`, `database_url`.

    Raises:
        SpecError: something cannot be carried over; the text names what to write instead.
    """

    def __init__(
        self,
        trainable: Callable[..., Any] | str,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: Any = None,
        run_config: Any = None,
        study_options: Mapping[str, Any] | None = None,
    ) -> None:
        from ray import tune

        self._function = _function_of(trainable)
        tuning, running = tune_config or tune.TuneConfig(), run_config or tune.RunConfig()
        self._options = study_options_of(dict(param_space or {}), tuning, running)
        self._options.update(study_options or {})
        self._options.setdefault("name", running.name or name_of(self._function))
        self._is_resumed = self._restarts_errored = False
        self._callbacks = tuple(running.callbacks or ())
        refuse_unusable(self._callbacks)
        self._name_trial = tuning.trial_name_creator
        self._storage = running.storage_path

    @staticmethod
    def restore(
        path: str,
        trainable: Callable[..., Any] | str,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        restart_errored: bool = False,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: Any = None,
        run_config: Any = None,
        study_options: Mapping[str, Any] | None = None,
    ) -> Tuner:
        """Return a tuner that continues a study.

        Args:
            path: its name, or a path that ends with it; Ray's form is a folder of results.
            trainable: as it was.
            resume_unfinished: always on.
            resume_errored: not carried: failed trials are not continued.
            restart_errored: try the parameters of failed trials again, as new trials.
            param_space: as it was; used with `tune_config` or `run_config` only.
            tune_config: as it was, or with a larger budget. Without it and `run_config` the study
                continues as it is stored.
            run_config: see `tune_config`.
            study_options: as for `Tuner`; of a stored study those of `Study.resume`, and
                `database_url`.

        Raises:
            SpecError: a flag is not carried over.
        """
        if not resume_unfinished:
            raise SpecError("resume_unfinished=False: `tune stop STUDY TRIAL` ends single trials")
        if resume_errored:
            text = "resume_errored=True: failed trials are not continued"
            raise SpecError(f"{text}: restart_errored=True tries their parameters again")
        name, options = PurePath(path).name, dict(study_options or {})
        if tune_config is None and run_config is None:
            return _StoredTuner(trainable, name, options, restart_errored)
        tuner = Tuner(
            trainable,
            param_space=param_space,
            tune_config=tune_config,
            run_config=run_config,
            study_options=options | {"name": name},
        )
        tuner._is_resumed, tuner._restarts_errored = True, restart_errored
        return tuner

    @staticmethod
    def can_restore(path: str, database_url: str | None = None) -> bool:
        """Return True if there is a study of the name with which the path ends."""
        from tunesvc import api

        try:
            api.load_study(PurePath(path).name, database_url=database_url)
        except StudyNotFound:
            return False
        return True

    def fit(self) -> ResultGrid:
        """Run the study until its budget is spent; return the results of all trials.

        As in Ray Tune, trials that failed are among the results, and raise nothing.
        """
        options = dict(self._options)
        if self._restarts_errored:
            _restart_errored(options["name"], options.get("database_url"))
        if not self._is_resumed:
            options["name"] = self._free_name(options["name"])
        with self._followed(options) as interrupt:
            tunable: Tunable[..., Any] = Tunable(self._function, {})
            return ResultGrid(
                tunable.tune(check=False, resume=self._is_resumed, **options | interrupt)
            )

    @contextmanager
    def _followed(self, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Call back during the block; yield the option that ends the run after an error."""
        if not self._callbacks:
            yield {}
            return
        from tunesvc.ray_tune.called_back import CallbackFollower, called_back
        from tunesvc.runtime.interrupts import interruptible

        follower = CallbackFollower(
            self._callbacks,
            options["name"],
            options.get("database_url"),
            name_of(self._function),
            self._name_trial,
            results_folder(self._storage) / options["name"],
        )
        for callback in self._callbacks:
            callback.setup(
                stop=options.get("constants", {}).get("stop"),
                num_samples=options.get("trials"),
                total_num_samples=options.get("trials"),
            )
        if self._is_resumed:
            follower.skip_known()
        with (
            interruptible(options["name"], options.get("interrupt")) as interrupt,
            called_back(follower, interrupt),
        ):
            yield {"interrupt": interrupt}

    def _free_name(self, name: str) -> str:
        found, number = name, 1
        while self.can_restore(found, self._options.get("database_url")):
            number += 1
            found = f"{name}-{number}"
        return found


class _StoredTuner(Tuner):
    """Continues a study as it is stored; Ray restores from a folder alone, too."""

    def __init__(
        self,
        trainable: Callable[..., Any] | str,
        name: str,
        options: Mapping[str, Any],
        restarts_errored: bool,
    ) -> None:
        self._function = _function_of(trainable)
        self._options = {**options, "name": name}
        self._restarts_errored = restarts_errored

    def fit(self) -> ResultGrid:
        """Run the study until its budget is spent; return the results of all trials."""
        from tunesvc import api

        options = dict(self._options)
        name, database_url = options.pop("name"), options.pop("database_url", None)
        if self._restarts_errored:
            _restart_errored(name, database_url)
        study = api.load_study(name, database_url=database_url)
        return ResultGrid(study.resume(function=self._function, check=False, **options))


def _restart_errored(name: str, database_url: str | None) -> None:
    """Enqueue parameters with which all trials have failed, once each."""
    from tunesvc import api

    study = api.load_study(name, database_url=database_url)
    others = [row.params for row in study.trials if row.state != "failed"]
    for row in study.trials:
        if row.state == "failed" and row.params not in others:
            others.append(row.params)
            study.retry(row.number)


def study_options_of(space: dict[str, Any], tuning: Any, running: Any) -> dict[str, Any]:
    """Return the options of a study, see `StudyOptions` and `RunOptions`.

    Raises:
        SpecError: something cannot be carried over; the text names what to write instead.
    """
    choice = choice_of(tuning.search_alg)
    stop, timeout_s = _stop_of(running.stop)
    if is_population(tuning.scheduler):
        search, space = _population(space, tuning, stop)
    else:
        search = _sampled(space, tuning, choice.sampler, stop)
    constants = constants_of(space)
    if points := [_without_constants(point, constants) for point in choice.points]:
        search["enqueue"] = points
    options = search | {
        "metrics": _metrics(tuning, choice.metrics),
        "constants": {**constants, "stop": stop} if stop else constants,
        "retries": {"error": _retries(running.failure_config)},
    }
    if (wall := _shorter(timeout_s, tuning.time_budget_s)) is not None:
        options["wall"] = wall
    elif "trials" not in options and "search" not in options:
        raise SpecError("num_samples=-1 has no end: say one, TuneConfig(time_budget_s=3600)")
    if parallelism := tuning.max_concurrent_trials or choice.parallelism:
        options["parallelism"] = parallelism
    return options | _running_options(running) | _own_cluster()


def _population(
    space: Mapping[str, Any], tuning: Any, stop: dict[str, float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a population, and the space without what it changes.

    Its members end at the iteration in `stop`, which is taken out.
    """
    members, steps = tuning.num_samples, stop.pop(_STEP, None)
    search = population_of(tuning.scheduler, members, steps)
    parameters = mutations_of(tuning.scheduler)
    rest = _without(space, parameters)
    _refuse_domains(rest)
    return {"search": search, "parameters": parameters}, rest


def _sampled(
    space: Mapping[str, Any], tuning: Any, sampler: Any, stop: dict[str, float]
) -> dict[str, Any]:
    """Return the options of a search by a sampler; `stop` gets the scheduler's last iteration."""
    parameters, grid = _parameters(space), _grid_size(space)
    is_grid = tuning.search_alg is None and grid > 1 and grid == _size(parameters)
    if (end := last_step_of(tuning.scheduler)) is not None:
        stop[_STEP] = min(stop.get(_STEP, math.inf), end)
    options = {
        "pruner": pruner_of(tuning.scheduler),
        "parameters": parameters,
        "sampler": "grid" if is_grid and tuning.num_samples == 1 else sampler,
    }
    if tuning.num_samples != -1:
        options["trials"] = tuning.num_samples * grid
    return options


def _running_options(running: Any) -> dict[str, Any]:
    """Return what follows from a `RunConfig` alone."""
    options: dict[str, Any] = {}
    if running.failure_config.fail_fast:
        options["limits"] = {"failures": 1}
    if keep := running.checkpoint_config.num_to_keep:
        options["keep"] = {"best": 1, "last": max(keep - 1, 1)}
    if not running.verbose and running.verbose is not None:
        options["progress"] = False
    return options


def _own_cluster() -> dict[str, Any]:
    """Return the cluster of this process's Ray, if the script has started or joined one."""
    import ray

    if not ray.is_initialized():
        return {}
    return {"cluster": ray.get_runtime_context().gcs_address}


def _metrics(tuning: Any, of_search: Mapping[str, str]) -> list[dict[str, Any]]:
    found = {tuning.metric: tuning.mode} if tuning.metric else dict(of_search)
    if not found and (named := getattr(tuning.scheduler, "_metric", None)):
        found = {named: tuning.scheduler._mode}
    if not found:
        text = "which metric decides? Ray asks at the end, ours searches by it"
        raise SpecError(f'{text}: TuneConfig(metric="loss", mode="min")')
    for name, mode in found.items():
        if mode not in _GOALS:
            raise SpecError(f'metric `{name}`: say mode="min" or mode="max" in TuneConfig')
    return [{"name": name, "goal": _GOALS[mode]} for name, mode in found.items()]


def _parameters(space: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found.model_dump(exclude_none=True) for name, found in from_ray(space).items()}


def _without(space: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space without what a population changes; Ray takes its values for initial ones."""
    return {
        name: _without(value, _inner(parameters, name)) if isinstance(value, Mapping) else value
        for name, value in space.items()
        if name not in parameters
    }


def _inner(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    start = f"{name}/"
    return {key.removeprefix(start): parameters[key] for key in parameters if key.startswith(start)}


def _refuse_domains(space: Mapping[str, Any]) -> None:
    if names := ", ".join(f"`{name}`" for name in from_ray(space)):
        text = f"{names}: a population searches what it changes only"
        raise SpecError(f"{text}: move the range to hyperparam_mutations, or give a value")


def _without_constants(point: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point without values that all trials have anyway."""
    missing = object()
    return {key: value for key, value in point.items() if constants.get(key, missing) != value}


def _grid_size(space: Mapping[str, Any]) -> int:
    """Return the number of combinations of all `grid_search`."""
    size = 1
    for value in space.values():
        if isinstance(value, Mapping):
            is_grid = set(value) == {"grid_search"}
            size *= len(value["grid_search"]) if is_grid else _grid_size(value)
    return size


def _size(parameters: Mapping[str, Any]) -> float:
    """Return the number of combinations of choices; infinite with any number among them."""
    return math.prod(len(found.get("values", ())) or math.inf for found in parameters.values())


def _stop_of(stop: Any) -> tuple[dict[str, float], float | None]:
    """Return values of metrics that end a trial, and seconds after which the study ends."""
    kind = type(stop).__name__
    if stop is None:
        return {}, None
    if isinstance(stop, Mapping):
        return dict(stop), None
    if kind == "MaximumIterationStopper":
        return {_STEP: stop._max_iter}, None
    if kind == "TimeoutStopper":
        return {}, float(stop._timeout_seconds)
    text = f"RunConfig(stop={kind}): ours ends a trial by metrics"
    raise SpecError(f'{text}, stop={{"{_STEP}": 100}}, or report "done" in the trial itself')


def _shorter(wall: float | None, budget: Any) -> float | None:
    seconds = budget.total_seconds() if isinstance(budget, datetime.timedelta) else budget
    known = [value for value in (wall, seconds) if value is not None]
    return min(known, default=None)


def _retries(failures: Any) -> int:
    return _ALWAYS_RETRIED if failures.max_failures < 0 else int(failures.max_failures)


def _function_of(trainable: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a trainable, also a registered one by its name."""
    if not isinstance(trainable, str):
        return trainable
    name = trainable
    from ray.tune import registry

    known: Any = registry._global_registry
    if not known.contains(registry.TRAINABLE_CLASS, name):
        raise SpecError(f"no trainable {name!r}: tune.register_trainable({name!r}, ...) first")
    found: Callable[..., Any] = known.get(registry.TRAINABLE_CLASS, name)
    return found
