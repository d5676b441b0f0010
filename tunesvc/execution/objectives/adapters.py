"""Calls objectives in the form in which they are written. Their signature determines the form.

    f(lr, layers, *, trial)    parameters by name; `trial` is optional
    f(config: Config)          a dataclass or pydantic model, made of parameters by dotted names
    f(config, data=None)       one dict; may call `ray.tune.report` (`ray_tune_function`)
    class T(tune.Trainable)    Ray Tune's class with `setup` and `step` (`ray_tune_trainable`)
    f(trial)                   Optuna's (`optuna_objective`); ours if annotated as `tunesvc.Trial`

A function may return a number, a dict, a tuple for several metrics, or nothing. It may also be a
generator that yields reports. Imports Ray and Optuna only for the forms that need them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

from tunesvc.config_classes.config_function import ConfigFunction, with_config
from tunesvc.errors import BadReport
from tunesvc.evaluation.model_scores import score_final, score_model, store_model
from tunesvc.execution.attempt.attempt import Attempt, Run
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.entrypoint import Objective
from tunesvc.execution.objectives.ray_tune_space import is_trainable, nested
from tunesvc.signatures import Arguments, is_optunas_trial, is_our_trial, without_partial
from tunesvc.trial import RUNNING, Trial, as_json, as_result

Call = Callable[[Attempt], object]
"""Calls an objective for an attempt and returns its result."""


def prepare(objective: Objective, *, is_scored: bool = False) -> Run:
    """Return a function that runs the objective for an attempt and returns the final metrics.

    Args:
        objective: what the study names.
        is_scored: True if it returns a model, which scorers evaluate.

    Raises:
        EntrypointError: it has a form that returns no model.
    """
    if is_trainable(objective):
        if is_scored:
            raise EntrypointError(
                "`evaluation: {scoring: ...}` needs a function that returns the fitted model, and "
                "the entrypoint is a Trainable of Ray Tune, which returns results"
            )
        from tunesvc.execution.objectives.ray_tune_trainable import Trainables

        return Trainables(objective)
    return partial(_run, _caller(with_config(objective)))


def _run(call: Call, attempt: Attempt) -> Mapping[str, float]:
    trial = RUNNING.set(attempt.trial())
    try:
        return _result(call, attempt)
    finally:
        RUNNING.reset(trial)


def _result(call: Call, attempt: Attempt) -> Mapping[str, float]:
    returned = call(attempt)
    if inspect.isgenerator(returned):
        returned = _exhaust(returned, attempt.trial())
    if attempt.job.scoring and not (returned is None and attempt.noticed_stop):
        return _scored(returned, attempt)
    metrics, attributes = as_result(returned, attempt.job.metrics)
    for name, value in attributes.items():
        attempt.set_user_attr(name, as_json(name, value))
    return metrics


def _scored(model: object, attempt: Attempt) -> Mapping[str, float]:
    """Return the scores of a returned model; store it if the run is there for that."""
    job, trial = attempt.job, attempt.trial()
    if job.final is None:
        return score_model(model, trial, job.scoring, attempt.set_system_attr)
    scores = score_final(model, trial, job.scoring, attempt.set_system_attr)
    if job.final == "apply":
        store_model(model, trial)
    return scores


def _caller(objective: Objective) -> Call:
    arguments = Arguments.of(objective)
    if arguments is None:
        return partial(_call_with_config, objective, False)  # a builtin has no signature
    return lambda attempt: _select_form(objective, arguments, attempt)(attempt)


def _select_form(objective: Objective, arguments: Arguments, attempt: Attempt) -> Call:
    """Select the form by the signature and the trial's parameters."""
    first = arguments.only_required
    if first is None or arguments.is_by_name(attempt.launch.params):
        return partial(_call_by_name, objective, arguments)
    is_bare = first.annotation == "Trial"  # ours or Optuna's; only Optuna's has `suggest_*`
    if is_our_trial(first.annotation) and not (is_bare and attempt.job.define_by_run):
        return partial(_call_with_trial, objective)
    if first.name == "trial" or is_optunas_trial(first.annotation):
        return partial(_call_optuna, objective)
    if first.name != "config" and attempt.job.define_by_run:
        return partial(_call_optuna, objective)
    return partial(_call_with_config, objective, arguments.takes_trial)


# --- the forms ------------------------------------------------------------------------------------


def _call_by_name(
    objective: Objective,
    arguments: Arguments,
    attempt: Attempt,
) -> object:
    given: dict[str, Any] = arguments.as_annotated(attempt.launch.params)
    if arguments.has_trial and "trial" not in given:
        given["trial"] = attempt.trial()
    _check_arguments(objective, arguments, given)
    return objective(**given)


def _call_with_config(
    objective: Objective,
    takes_trial: bool,
    attempt: Attempt,
) -> object:
    config = nested(attempt.launch.params)
    if takes_trial:
        return objective(config, trial=attempt.trial())
    if not _mentions_ray(objective):
        return objective(config)
    from tunesvc.execution.objectives.ray_tune_function import call

    return call(objective, attempt)


def _call_with_trial(objective: Objective, attempt: Attempt) -> object:
    return objective(attempt.trial())


def _call_optuna(objective: Objective, attempt: Attempt) -> object:
    from tunesvc.execution.objectives.optuna_objective import OptunaTrial, as_optuna

    return as_optuna(objective(OptunaTrial(attempt)))


def _exhaust(generator: Generator[object, Any, object], trial: Trial) -> object:
    """Report each yielded value. A dict may contain `step`, otherwise steps count from 0."""
    try:
        while True:
            value = next(generator)
            if isinstance(value, Mapping):
                metrics = dict(value)
                trial.report(metrics.pop("step", None), metrics)
            elif value is None:
                raise BadReport(
                    "the objective yielded None: yield a number or a dict of metrics",
                )
            else:
                trial.report(None, value)
    except StopIteration as end:
        return end.value
    finally:
        generator.close()  # runs its `finally` blocks before the attempt ends


# --- signatures -----------------------------------------------------------------------------------


def _check_arguments(
    objective: Objective,
    arguments: Arguments,
    given: Mapping[str, Any],
) -> None:
    if isinstance(objective, ConfigFunction):
        if problems := {**objective.surplus(given), **objective.missing(given)}:
            raise EntrypointError("; ".join(problems.values()))
        return
    signed = f"{_name(objective)}{arguments.signature}"
    if surplus := arguments.surplus(given):
        raise EntrypointError(
            f"{signed} does not take {_format_names(surplus)}: add it to the signature",
        )
    if missing := arguments.missing(given):
        raise EntrypointError(
            f"{signed} needs {_format_names(missing)}, which this trial does not have: declare it"
            " in the study, or give it a default value if it is a conditional parameter",
        )


def _mentions_ray(objective: Objective) -> bool:
    """Return True if the function may call Ray Tune. Importing that takes a second."""
    if "ray.tune" in sys.modules or "ray.train" in sys.modules:
        return True
    function = without_partial(objective)
    code = getattr(inspect.unwrap(function), "__code__", None)
    names = getattr(code, "co_names", ())
    module = sys.modules.get(getattr(function, "__module__", ""))
    try:
        source = inspect.getsource(module) if module else ""
    except (OSError, TypeError):
        source = ""
    if "import ray" in source or "from ray" in source:
        return True
    return any(name.partition(".")[0] == "ray" for name in names)


def _name(objective: Objective) -> str:
    function = without_partial(objective)
    return getattr(function, "__qualname__", type(function).__name__)


def _format_names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
