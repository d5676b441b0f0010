"""What may change in a spec while its study lives: more budget, other parallelism, a wider space. Pure.

Each function takes what somebody asks for as plain data, and refuses what makes no sense with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.space.search_space import no_parameter, widened
from tunesvc.spec import Budget, CategoricalParameter, Parameter, StudySpec, as_choice
from tunesvc.spec.frozen_dict import FrozenDict


def extended(spec: StudySpec, more: Mapping[str, Any]) -> StudySpec:
    """The spec with a larger budget.

    Args:
        more: what is added to `trials`, `wall` (seconds) or `gpu_hours`. A limit that the budget did not have stays
            absent, since any amount would lower it.

    Raises:
        SpecError: nothing is added, or it is no number above 0.
    """
    old = spec.budget.limits
    unknown = set(more) - set(old)
    if unknown or not more:
        raise SpecError(f"extend takes {', '.join(old)}; not {', '.join(sorted(unknown)) or 'nothing'}")
    for name, amount in more.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or amount <= 0:
            raise SpecError(f"extend {name}: {amount!r} is no number above 0")
    if not any(old[name] for name in more):
        limits = ", ".join(name for name, limit in old.items() if limit is not None)
        raise SpecError(f"the budget has no limit on {', '.join(more)} that could be extended; it has one on {limits}")
    grown = {name: None if limit is None else limit + more.get(name, 0) for name, limit in old.items()}
    try:
        return spec.model_copy(update={"budget": Budget.model_validate({**grown, "stop_when": spec.budget.stop_when})})
    except ValidationError as error:
        raise SpecError(f"extend: {error.errors()[0]['msg']}") from None


def paralleled(spec: StudySpec, wanted: Mapping[str, Any]) -> StudySpec:
    """The spec with another `parallelism`: the `trials` at a time, None for as many as fit.

    Raises:
        SpecError: it is no whole number above 0.
    """
    trials = wanted.get("trials")
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise SpecError(f"parallelism: {trials!r} is no whole number above 0")
    return spec.model_copy(update={"parallelism": trials})


def wider(spec: StudySpec, wanted: Mapping[str, Any]) -> StudySpec:
    """The spec with a wider space.

    Args:
        wanted: `parameters`, by name what is to change: `min` and `max` of a range, or `values`, choices that are
            added to those that there are.

    Raises:
        SpecError: there is no such parameter, or its trials would not fit any more, or nothing becomes wider.
    """
    changes = wanted.get("parameters")
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
    """In words, which parameters became wider."""
    changed = [name for name in now.parameters if now.parameters[name] != before.parameters[name]]
    return "; ".join(f"{name} {_told(before.parameters[name])} -> {_told(now.parameters[name])}" for name in changed)


def _grown(name: str, parameter: Parameter, change: Any) -> Parameter:
    keys = {"values"} if isinstance(parameter, CategoricalParameter) else {"min", "max"}
    if not isinstance(change, Mapping) or not change or set(change) - keys:
        raise SpecError(f"widen {name}: takes {' and '.join(sorted(keys))}, nothing else")
    update = dict(change)
    if isinstance(parameter, CategoricalParameter):
        added = change["values"]
        if not isinstance(added, (list, tuple)):
            raise SpecError(f"widen {name}: `values` is a list of choices to add")
        known = {(type(value), value) for value in parameter.choices}
        new = [value for value in added if (type(as_choice(value)), as_choice(value)) not in known]
        update["values"] = [*parameter.values, *new]
    try:
        return type(parameter).model_validate({**parameter.model_dump(), **update})
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"widen {name}: {text}") from None


def _told(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return f"[{', '.join(map(str, parameter.choices))}]"
    return f"{parameter.min:g}…{parameter.max:g}"
