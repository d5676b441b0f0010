"""`@tunable`: a training function with its search space, still callable as a plain function.

Importing and applying the decorator loads neither pydantic, Optuna, Ray nor SQLAlchemy; `spec()`
and `tune()` do.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from tunesvc.config_classes.config_function import ConfigFunction, with_config
from tunesvc.config_classes.field_ranges import ranges_of, without_range
from tunesvc.errors import SpecError, StudyNotFound
from tunesvc.run_options import StudyOptions, SubmitOptions, TuneOptions
from tunesvc.signatures import Arguments, is_optunas_trial, is_our_trial, name_of, without_partial
from tunesvc.trial import Trial
from tunesvc.util.suggestions import suggest

if TYPE_CHECKING:
    import threading

    from tunesvc.background_run import BackgroundRun
    from tunesvc.coordinator.progress_events import Observer
    from tunesvc.queries.rows import StudyView
    from tunesvc.spec import StudySpec
    from tunesvc.study import Study

P = ParamSpec("P")
R = TypeVar("R")

_TUNABLE_TAKES = "`tunable` takes the training function, or a Trainable class"
_BUDGET = {"trials", "wall", "gpu_hours"}
_RUN = TuneOptions.__annotations__.keys() - StudyOptions.__annotations__.keys() - {"make_executor"}
"""Keywords of `tune` that are not keys of a study."""
_HANDED = SubmitOptions.__annotations__.keys() - StudyOptions.__annotations__.keys()
_OBJECTS = ("sampler", "pruner")
"""Options that may be names or Optuna's objects."""
_Empty = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Float:
    """A real number between `min` and `max`: `lr: Annotated[float, Float(1e-4, 1.0, log=True)]`."""

    min: float
    max: float
    log: bool = False
    step: float | None = None
    when: Mapping[str, Any] | None = None
    """Parameter name -> value, or list of values, under which this one exists; it then needs a
    default."""

    def as_written(self) -> dict[str, Any]:
        """Return the range in the form of study.yaml."""
        written = {"type": "float", "min": self.min, "max": self.max, "log": self.log}
        return written | _optional(self.step, self.when)


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number from `min` to `max`, included: `layers: Annotated[int, Int(1, 4)]`."""

    min: int
    max: int
    log: bool = False
    step: int | None = None
    when: Mapping[str, Any] | None = None

    def as_written(self) -> dict[str, Any]:
        """Return the range in the form of study.yaml."""
        written = {"type": "int", "min": self.min, "max": self.max, "log": self.log}
        return written | _optional(self.step, self.when)


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """One of a few values: `optimizer: Annotated[str, Choice("sgd", "adam")]`."""

    values: tuple[Any, ...]
    when: Mapping[str, Any] | None

    def __init__(self, *values: Any, when: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "when", when)

    def as_written(self) -> dict[str, Any]:
        """Return the range in the form of study.yaml."""
        return {"type": "categorical", "values": list(self.values)} | _optional(None, self.when)


Range = Float | Int | Choice


class Tunable(Generic[P, R]):
    """A training function with its search space. Call it like the function, or `tune` it."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: Mapping[str, Any]) -> None:
        if not callable(function):
            kind = type(function).__name__
            raise SpecError(f"a {kind} cannot be called: {_TUNABLE_TAKES}")
        named = without_partial(function)
        functools.update_wrapper(self, named)
        self.__wrapped__ = function
        self.__name__ = name_of(named)
        self.__qualname__ = getattr(named, "__qualname__", self.__name__)
        # Last, because `update_wrapper` copies an object's own attributes too.
        self.options = dict(options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, with a detached `trial` if none is given.

        `train(**study.best_params)` works too: a list becomes the tuple that the `Choice` has.
        """
        signature = inspect.signature(self.__wrapped__)
        function = with_config(self.__wrapped__)
        if isinstance(function, ConfigFunction) and not args and function.argument not in kwargs:
            handed = function.arguments(kwargs)
            kwargs.clear()
            kwargs.update(handed)
        if arguments := Arguments.of(self.__wrapped__):
            kwargs.update(arguments.as_annotated(kwargs))
        bound = signature.bind_partial(*args, **kwargs).arguments
        if "trial" in signature.parameters and "trial" not in bound:
            kwargs["trial"] = Trial(metrics=tuple(_metric_names(self.options)))
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tunable {self.__wrapped__!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if _is_importable(self):
            return self.__qualname__
        return Tunable, (self.__wrapped__, self.options)

    def spec(self, **changes: Unpack[StudyOptions]) -> StudySpec:
        """Return the study that `tune` would run; keys of study.yaml override the decorator's.

        `trials`, `wall` and `gpu_hours` are short for `budget`.

        Raises:
            SpecError: a key cannot be used, or an argument has neither a range nor a default.
        """
        return self._spec({**self.options, **changes})

    def _spec(self, options: Mapping[str, Any]) -> StudySpec:
        from tunesvc.spec.yaml.document import spec_from_dict

        data = _study(self.__wrapped__, options)
        try:
            return spec_from_dict(data, function=self.__wrapped__)
        except SpecError:
            # The import takes a second; then all mistakes are reported at once.
            from tunesvc.search.registry.component_check import option_issues

            return spec_from_dict(data, function=self.__wrapped__, extra_check=option_issues)

    def tune(self, **changes: Unpack[TuneOptions]) -> Study:
        """Run the study until its budget is spent: `train.tune(trials=50)`.

        Takes the keywords of `spec`, see `StudyOptions`, and `database_url`, `resume` and
        `RunOptions` of `tunesvc.run`. `sampler` and `pruner` may be Optuna's objects.

        Raises:
            StudyFailed, SpecError, StudyExists, StudyBusy, UnsatisfiableRequest: see `run`.
        """
        from tunesvc.execution.driver.ray_pool import RayPool

        options, run_options = self._divided(changes)
        if run_options.get("resume") and not _BUDGET & options.keys() and "budget" not in options:
            options["budget"] = self._stored_budget(options, run_options.get("database_url"))
        spec = self._spec(options)
        with RayPool().prestart([spec], str(Path.cwd())) as rays:
            # The import takes more than a second, in which Ray starts.
            from tunesvc.api import run

            return run(spec, function=self.__wrapped__, make_executor=rays.executor, **run_options)

    def start(self, **changes: Unpack[TuneOptions]) -> BackgroundRun:
        """Run the study in the background of this process: `run = train.start(trials=50)`.

        Takes the keywords of `tune`. Mistakes in them are raised at once. As the last expression of
        a notebook's cell `run` shows itself live; lines on standard error are written only with
        `progress=True`. `run.study` is the study so far, `run.stop()` ends it, and `run.wait()`
        returns what `tune` would.

        Raises:
            SpecError: the study cannot be used.
        """
        from tunesvc import api
        from tunesvc.background_run import BackgroundRun
        from tunesvc.coordinator.progress_events import ObserverPair
        from tunesvc.views.notebook_view import in_notebook

        options, run_options = self._divided(changes)
        if not run_options.get("resume"):
            self._spec(options)
        name = str(options.get("name", self.__name__))
        named = f"name={name!r}, " if "name" in changes else ""
        database = functools.partial(api.shared_database, run_options.get("database_url"))

        in_cell = changes.get("progress", False) and in_notebook()
        in_lines = changes.get("progress", False) and not in_cell

        def run(interrupt: threading.Event, observer: Observer) -> Study:
            if (own := changes.get("observer")) is not None:
                observer = ObserverPair(observer, own)
            watched: dict[str, Any] = {} if in_lines else {"observer": observer}
            return self.tune(**{**changes, **watched, "interrupt": interrupt})

        begun = BackgroundRun(name, run, database, f"{self.__name__}.start({named}resume=True)")
        if in_cell:
            begun.show()
        return begun

    def submit(self, **changes: Unpack[SubmitOptions]) -> StudyView:
        """Hand the study to a server, which runs it from a snapshot of the function's folder.

        Takes the keywords of `spec`, and those of `SubmitOptions`. The function must be in a file:
        workers import it from there.

        Raises:
            SpecError: the study cannot be used, or the function is in no file.
            SnapshotError: its folder cannot be packed.
            StudyExists: the name is taken.
        """
        from tunesvc.client.sending import submit_function

        handed: dict[str, Any] = {}
        options = dict(self.options)
        for key, value in changes.items():
            (handed if key in _HANDED else options)[key] = value
        for key in _OBJECTS:
            if _is_object(options.get(key)):
                raise SpecError(f"`{key}` is an object of this process: submit takes its name")
        return submit_function(self.__wrapped__, self._spec(options), **handed)

    def _divided(self, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return keys of the study, and arguments of `api.run`: Optuna's objects among them."""
        options = dict(self.options)
        run_options: dict[str, Any] = {}
        for key, value in changes.items():
            (run_options if key in _RUN else options)[key] = value
        for key in _OBJECTS:
            if _is_object(options.get(key)):
                run_options[key] = options.pop(key)
        return options, run_options

    def _stored_budget(self, options: Mapping[str, Any], database_url: str | None) -> Any:
        """Return the budget of the study to resume; empty if there is none."""
        from tunesvc import api

        try:
            view = api.load_study(
                options.get("name", self.__name__),
                database_url=database_url,
            ).view
        except StudyNotFound:
            return {}
        return {} if view.spec is None else view.spec.budget.model_dump(exclude_none=True)


@overload
def tunable(function: Callable[P, R], /) -> Tunable[P, R]: ...
@overload
def tunable(**options: Unpack[StudyOptions]) -> Callable[[Callable[P, R]], Tunable[P, R]]: ...
def tunable(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function tunable; annotations of its arguments are their ranges.

    Or of the fields of its only argument, if that is a dataclass or pydantic model.

    Options are the keys of study.yaml (`metric`, `goal`, `sampler`, `pruner`, `budget`,
    `resources`, ...); `tune` can override all of them. `parameters` may give ranges of arguments
    without annotation, of a function with one `config`, or a Ray Tune search space.

        @tunable(metric="val_error", goal="minimize")
        def train(lr: Annotated[float, Float(1e-4, 1.0, log=True)], *, trial: Trial) -> float: ...
    """
    if function is None:
        return lambda decorated: Tunable(decorated, options)
    return Tunable(function, options)


def _is_object(value: object) -> bool:
    return value is not None and not isinstance(value, (str, Mapping))


# --- function and options -> study ----------------------------------------------------------------


def _study(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study in the form of study.yaml."""
    from tunesvc.execution.objectives.ray_tune_space import resources_of

    _refuse_foreign(options)
    data = {key: value for key, value in options.items() if key not in _BUDGET}
    data.setdefault("name", name_of(function))
    is_scored = bool((options.get("evaluation") or {}).get("scoring"))
    if "metrics" not in data and (not is_scored or "metric" in data):
        data["metric"] = _metric(data.pop("metric", "loss"), data.pop("goal", None))
    if not (options.get("search") and _BUDGET.isdisjoint(options) and "budget" not in options):
        data["budget"] = _budget(function, options)  # a population ends by itself
    parameters, constants = _search_space(options.get("parameters", {}))
    constants |= options.get("constants", {})
    named, defaults = _arguments(function, {**parameters, **constants})
    data["parameters"] = {**named, **parameters}
    data["constants"] = {**defaults, **constants}
    if "resources" not in data and (resources := resources_of(function)) is not None:
        data["resources"] = resources
    return data


def _refuse_foreign(options: Mapping[str, Any]) -> None:
    """Refuse arguments of Ray's `Tuner` or Optuna's `optimize`, and misspelled ones, together."""
    from tunesvc.spec import StudySpec, foreign_names

    keys = [key for key in options if key not in StudySpec.model_fields]
    hints = [f"`{key}`{foreign_names.hint(key)}" for key in keys if foreign_names.hint(key)]
    ours = _BUDGET | _RUN
    for key in keys:
        hint = suggest(key, ours)
        if hint and key not in {*ours, "metric", "goal"}:
            hints.append(f"`{key}`{hint}")
    if hints:
        raise SpecError("\n".join(f"unknown key {hint}" for hint in hints))


def _metric(metric: Any, goal: str | None) -> Any:
    named = {"name": metric} if isinstance(metric, str) else metric
    return named if goal is None else {**named, "goal": goal}


def _metric_names(options: Mapping[str, Any]) -> list[str]:
    written = options.get("metrics") or [options.get("metric", "loss")]
    return [metric if isinstance(metric, str) else metric["name"] for metric in written]


def _budget(function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    limits = {key: options[key] for key in _BUDGET if key in options}
    budget = options.get("budget", {})
    if not limits and not budget:
        name = name_of(function)
        example = f"{name}.tune(trials=100), or wall='1h', or gpu_hours=4"
        raise SpecError(f"how much may {name} spend? Say so: {example}")
    if not isinstance(budget, Mapping):
        budget = {"trials": budget}
    return {**budget, **limits}


def _search_space(written: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and constants of the `parameters` option, maybe a Ray Tune search space."""
    if not _is_ray(written):
        return {name: _as_written(range_) for name, range_ in written.items()}, {}
    from tunesvc.execution.objectives.ray_tune_space import constants_of, from_ray

    parameters = {}
    for name, parameter in from_ray(written).items():
        parameters[name] = parameter.model_dump(exclude_none=True)
    return parameters, constants_of(written)


def _is_ray(value: object) -> bool:
    if isinstance(value, Mapping):
        return set(value) == {"grid_search"} or any(_is_ray(item) for item in value.values())
    return type(value).__module__.startswith("ray.")


def _as_written(range_: Any) -> Any:
    return range_.as_written() if isinstance(range_, (Float, Int, Choice)) else range_


def _arguments(
    function: Callable[..., Any],
    given: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return ranges and defaults of the signature, for arguments that are not `given`."""
    if inspect.isclass(function):
        return {}, {}
    signature, hints = inspect.signature(function), _hints(function)
    wrapped = with_config(function)
    config = wrapped if isinstance(wrapped, ConfigFunction) else None
    bound = function.keywords if isinstance(function, functools.partial) else {}
    parameters = [p for p in signature.parameters.values() if _is_tuned(p, hints.get(p.name))]
    if config is None and _takes_config(parameters, hints, given):
        return {}, {}
    ranges, defaults = ({}, {}) if config is None else ranges_of(config.config, given)
    for parameter in parameters:
        name = parameter.name
        if name in given or (config is not None and name == config.argument):
            continue
        if name not in bound and (range_ := _range(hints.get(name))) is not None:
            ranges[name] = _checked(function, parameter, range_)
        elif parameter.default is _Empty:
            raise SpecError(without_range(name_of(function), name, hints.get(name)))
        elif isinstance(parameter.default, (bool, int, float, str)):
            # Stored with the study as a record; other defaults are left to the function.
            defaults[name] = parameter.default
    return ranges, defaults


def _is_tuned(parameter: inspect.Parameter, hint: object) -> bool:
    """Return True for an argument that is neither a trial nor variadic."""
    if parameter.name == "trial" or is_optunas_trial(hint) or is_our_trial(hint):
        return False
    return parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _takes_config(
    parameters: list[inspect.Parameter],
    hints: Mapping[str, Any],
    given: Mapping[str, Any],
) -> bool:
    """Return True for `f(config, data=None)`, whose search space is given separately."""
    required = [p.name for p in parameters if p.default is _Empty]
    if not given or len(required) != 1 or required[0] in given:
        return False
    if _range(hints.get(required[0])) is not None:
        return False
    return required == ["config"] or {p.name for p in parameters}.isdisjoint(given)


def _checked(
    function: Callable[..., Any],
    parameter: inspect.Parameter,
    range_: Range,
) -> dict[str, Any]:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        name = f"{name_of(function)}: `{parameter.name}`"
        raise SpecError(f"{name} is handed over by name; take the `/` away")
    if range_.when and parameter.default is _Empty:
        name = f"{name_of(function)}: `{parameter.name}`"
        raise SpecError(f"{name} needs a default for when it does not exist")
    return range_.as_written()


def _range(hint: object) -> Range | None:
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, (Float, Int, Choice)):
            return item
    return None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, SyntaxError) as error:
        problem = f"its annotations cannot be read ({error})"
        text = f"{name_of(function)}: {problem}: import what they name at module level"
        raise SpecError(text) from None
    return {name: parameter.annotation for name, parameter in signature.parameters.items()}


def _optional(step: float | None, when: Mapping[str, Any] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if step is not None:
        options["step"] = step
    if when is not None:
        options["when"] = dict(when)
    return options


def _is_importable(tunable: Tunable[..., Any]) -> bool:
    """Return True if a worker finds this object by its module and name."""
    module = sys.modules.get(tunable.__module__)
    if module is None or module.__name__ == "__main__":
        return False
    target: object = module
    for part in tunable.__qualname__.split("."):
        target = getattr(target, part, None)
    return target is tunable
