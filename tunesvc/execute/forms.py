"""The ways in which an objective may be written, told apart by its signature, and how each is called.

    f(lr, layers, *, trial)    parameters by name; `trial` if it wants one
    f(config)                  one dict; written for Ray Tune, it may call `ray.tune.report` (`ray_form`)
    f(trial)                   Optuna's (`optuna_form`), or ours where it is annotated as `tunesvc.Trial`

Each may return a number, a dict, a tuple for several metrics or nothing, or be a generator that yields reports.
Imports neither Ray nor Optuna; those forms do, when they are met.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

from tunesvc.errors import BadReport
from tunesvc.execute.attempt import Attempt, Run
from tunesvc.execute.entrypoint import Objective
from tunesvc.execute.failures import EntrypointError
from tunesvc.execute.ray_space import nested
from tunesvc.objective import Trial, as_metrics

Call = Callable[[Attempt], object]
"""Calls an objective for an attempt and returns what it returned."""


def prepare(objective: Objective) -> Run:
    """How to run this objective: a function from an attempt to the final metrics."""
    return partial(_run, _caller(objective))


def _run(call: Call, attempt: Attempt) -> Mapping[str, float]:
    returned = call(attempt)
    if inspect.isgenerator(returned):
        return as_metrics(_exhaust(returned, attempt.trial()), attempt.job.metrics)
    return as_metrics(returned, attempt.job.metrics)


def _caller(objective: Objective) -> Call:
    try:
        signature = inspect.signature(objective)
    except (TypeError, ValueError):
        return partial(_call_with_config, objective, frozenset())  # a builtin: nothing is known about it
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    keyword_only = frozenset(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
    if len(required) == 1 and required[0].name == "trial":
        return partial(_call_with_trial, objective) if _wants_our_trial(objective) else partial(_call_optuna, objective)
    if len(required) == 1 and len(positional) == 1:
        name = required[0].name
        by_config = partial(_call_with_config, objective, keyword_only)
        by_name = partial(_call_by_name, objective, signature)
        return lambda attempt: (by_name if name in attempt.launch.params else by_config)(attempt)
    return partial(_call_by_name, objective, signature)


# --- the forms --------------------------------------------------------------------------------------


def _call_by_name(objective: Objective, signature: inspect.Signature, attempt: Attempt) -> object:
    arguments: dict[str, Any] = dict(attempt.launch.params)
    if "trial" in signature.parameters and "trial" not in arguments:
        arguments["trial"] = attempt.trial()
    _check_arguments(objective, signature, arguments)
    return objective(**arguments)


def _call_with_config(objective: Objective, keyword_only: frozenset[str], attempt: Attempt) -> object:
    config = nested(attempt.launch.params)
    if "trial" in keyword_only:
        return objective(config, trial=attempt.trial())
    if not _mentions_ray(objective):
        return objective(config)
    from tunesvc.execute.ray_form import tune_session

    with tune_session(attempt):
        return objective(config)


def _call_with_trial(objective: Objective, attempt: Attempt) -> object:
    return objective(attempt.trial())


def _call_optuna(objective: Objective, attempt: Attempt) -> object:
    from tunesvc.execute.optuna_form import OptunaTrial

    return objective(OptunaTrial(attempt))


def _exhaust(generator: Generator[object, Any, object], trial: Trial) -> object:
    """Report whatever is yielded; a dict may name its own `step`, otherwise steps count from 0."""
    try:
        while True:
            value = next(generator)
            if isinstance(value, Mapping):
                metrics = dict(value)
                trial.report(metrics.pop("step", None), metrics)
            elif value is None:
                raise BadReport("the objective yielded None: yield a number or a dict of metrics")
            else:
                trial.report(None, value)
    except StopIteration as end:
        return end.value
    finally:
        generator.close()  # so that its `finally` blocks run before the attempt is over


# --- what a signature tells ---------------------------------------------------------------------------


def _check_arguments(objective: Objective, signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    surplus = [] if accepts_any else [name for name in arguments if name not in signature.parameters]
    if surplus:
        raise EntrypointError(
            f"{_name(objective)}{signature} does not take {_listed(surplus)}: add it to the signature"
        )
    missing = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in arguments
    ]
    if missing:
        raise EntrypointError(
            f"{_name(objective)}{signature} needs {_listed(missing)}, which this trial does not have: declare it in "
            "the study, or give it a default value if it is a conditional parameter"
        )


def _wants_our_trial(objective: Objective) -> bool:
    try:
        annotation = typing.get_type_hints(objective).get("trial")
    except Exception:  # noqa: BLE001  # annotations may name what is only imported for type checkers
        annotation = getattr(objective, "__annotations__", {}).get("trial")
    # a bare, unresolved "Trial" is Optuna's only where Optuna is in use
    return (
        annotation is Trial or annotation == "tunesvc.Trial" or (annotation == "Trial" and "optuna" not in sys.modules)
    )


def _mentions_ray(objective: Objective) -> bool:
    """Whether the function may call Ray Tune; importing that takes a second, which most functions need not pay."""
    if "ray.tune" in sys.modules or "ray.train" in sys.modules:
        return True
    code = getattr(inspect.unwrap(objective), "__code__", None)
    names = getattr(code, "co_names", ())
    module = sys.modules.get(getattr(objective, "__module__", ""))
    try:
        source = inspect.getsource(module) if module else ""
    except (OSError, TypeError):
        source = ""
    return "import ray" in source or "from ray" in source or any(name.partition(".")[0] == "ray" for name in names)


def _name(objective: Objective) -> str:
    return getattr(objective, "__qualname__", type(objective).__name__)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
