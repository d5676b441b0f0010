"""Changes to the spec of a study that exists: more budget, other parallelism, a wider space. Pure.

Each function takes a request as plain data, and refuses one that makes no sense with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.space.search_space import no_parameter, widened
from tunesvc.spec import Budget, CategoricalParameter, Parameter, StudySpec, as_choice
from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.model import PARALLELISM_MAX


def extended(spec: StudySpec, more: Mapping[str, Any]) -> StudySpec:
    """Return the spec with a larger budget.

    Args:
        more: additions to `trials`, `wall` (seconds), `gpu_hours` or `cost`. A limit that the
            budget did not have stays absent, since any amount would lower it.

    Raises:
        SpecError: nothing is added, or an addition is not a number above 0.
    """
    old = spec.budget.limits
    unknown = set(more) - set(old)
    if unknown or not more:
        wrong = ", ".join(sorted(unknown)) or "nothing"
        raise SpecError(f"extend takes {', '.join(old)}; not {wrong}")
    for name, amount in more.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or amount <= 0:
            raise SpecError(f"extend {name}: {amount!r} is no number above 0")
    if not any(old[name] for name in more):
        limits = ", ".join(name for name, limit in old.items() if limit is not None)
        lacking = f"the budget has no limit on {', '.join(more)} that could be extended"
        raise SpecError(f"{lacking}; it has one on {limits}")
    grown: dict[str, Any] = {"stop_when": spec.budget.stop_when}
    for name, limit in old.items():
        grown[name] = None if limit is None else limit + more.get(name, 0)
    try:
        return spec.model_copy(update={"budget": Budget.model_validate(grown)})
    except ValidationError as error:
        raise SpecError(f"extend: {error.errors()[0]['msg']}") from None


def paralleled(spec: StudySpec, request: Mapping[str, Any]) -> StudySpec:
    """Return the spec with another `parallelism`.

    Args:
        request: `trials`, the most at a time; None for as many as fit.

    Raises:
        SpecError: `trials` is not a whole number above 0.
    """
    trials = request.get("trials")
    is_number = isinstance(trials, int) and not isinstance(trials, bool)
    if trials is not None and not (is_number and trials >= 1):
        raise SpecError(f"parallelism: {trials!r} is no whole number above 0")
    if trials is not None and trials > PARALLELISM_MAX:
        raise SpecError(f"parallelism: {trials} is more than the most, {PARALLELISM_MAX}")
    return spec.model_copy(update={"parallelism": trials})


def wider(spec: StudySpec, request: Mapping[str, Any]) -> StudySpec:
    """Return the spec with a wider space.

    Args:
        request: `parameters`, the changes by name: `min` and `max` of a range, or `values`,
            choices to add.

    Raises:
        SpecError: there is no such parameter, or the study's trials would not fit any more, or
            nothing becomes wider.
    """
    changes = request.get("parameters")
    if not isinstance(changes, Mapping) or not changes:
        raise SpecError("widen takes parameters by name, each with `min`, `max` or `values`")
    parameters = dict(spec.parameters)
    for name, change in changes.items():
        if name not in parameters:
            raise SpecError(no_parameter(name, parameters))
        parameters[name] = _grown(name, parameters[name], change)
    if problems := sorted(widened(spec.parameters, parameters)):
        raise SpecError(f"trials would not fit any more: {'; '.join(problems)}")
    if parameters == dict(spec.parameters):
        raise SpecError("nothing becomes wider by that")
    return spec.model_copy(update={"parameters": FrozenDict(parameters)})


def differences(before: StudySpec, now: StudySpec) -> str:
    """Describe the parameters that became wider."""
    changes = []
    for name, parameter in now.parameters.items():
        old = before.parameters[name]
        if parameter != old:
            changes.append(f"{name} {_describe(old)} -> {_describe(parameter)}")
    return "; ".join(changes)


def _grown(name: str, parameter: Parameter, change: Any) -> Parameter:
    keys = {"values"} if isinstance(parameter, CategoricalParameter) else {"min", "max"}
    if not isinstance(change, Mapping) or not change or set(change) - keys:
        raise SpecError(f"widen {name}: takes {' and '.join(sorted(keys))}, nothing else")
    update = dict(change)
    if isinstance(parameter, CategoricalParameter):
        added = change["values"]
        if not isinstance(added, (list, tuple)):
            raise SpecError(f"widen {name}: `values` is a list of choices to add")
        update["values"] = _with_choices(parameter, added)
    try:
        return type(parameter).model_validate({**parameter.model_dump(), **update})
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"widen {name}: {text}") from None


def _with_choices(parameter: CategoricalParameter, added: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Return the parameter's values and those that are new; 1, 1.0 and True are different."""
    known = {(type(choice), choice) for choice in parameter.choices}
    values = list(parameter.values)
    for value in added:
        choice = as_choice(value)
        if (type(choice), choice) not in known:
            values.append(value)
    return values


def _describe(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return f"[{', '.join(map(str, parameter.choices))}]"
    return f"{parameter.min:g}…{parameter.max:g}"
