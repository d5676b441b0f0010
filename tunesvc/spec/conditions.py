"""Meaning of `when`: its values, the values a parameter can have, and the order of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunesvc.errors import SpecError
from tunesvc.spec.rounding import step_at
from tunesvc.spec.sections.field_types import Scalar
from tunesvc.spec.sections.parameter_types import CategoricalParameter, FloatParameter, Parameter

MAX_NESTING = 50
"""Deepest chain of conditions; a readable space needs about three."""


def when_values(allowed: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Return the values of a `when` clause, which may be one value or several."""
    return allowed if isinstance(allowed, tuple) else (allowed,)


def contains(parameter: Parameter, value: Scalar) -> bool:
    """Return True if a parameter can have this value; true and 1 are different choices."""
    if isinstance(parameter, CategoricalParameter):
        return any(is_same(value, choice) for choice in parameter.choices)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    known = as_written(parameter, value)
    if not isinstance(known, (int, float)) or not parameter.min <= known <= parameter.max:
        return False
    if isinstance(parameter, FloatParameter):
        return parameter.step is None or step_at(value, parameter.min, parameter.step) is not None
    return float(value).is_integer() and (int(value) - parameter.min) % (parameter.step or 1) == 0


def as_written(parameter: Parameter, value: Scalar) -> Scalar:
    """Return a parameter's value, snapped to its step if it is a stepped float. A value off every
    step is returned unchanged."""
    if not isinstance(parameter, FloatParameter) or parameter.step is None:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    step = step_at(value, parameter.min, parameter.step)
    return value if step is None else step


def is_same(first: Scalar, second: Scalar) -> bool:
    """Return True if two choices are the same: equal, and both or neither of them booleans."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def is_sometimes_absent(name: str, parameters: Mapping[str, Parameter]) -> bool:
    """Return True if a direct parent can have a value that the parameter's `when` does not list."""
    for parent, allowed in (parameters[name].when or {}).items():
        for value in _ends(parameters.get(parent)):
            if not any(is_same(value, listed) for listed in when_values(allowed)):
                return True
    return False


def _ends(parameter: Parameter | None) -> tuple[Scalar, ...]:
    """Return all choices of a parameter, or the ends of its range."""
    if parameter is None:
        return ()
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices
    return tuple(end for end in (parameter.min, parameter.max) if contains(parameter, end))


def draw_order(parameters: Mapping[str, Parameter]) -> list[str]:
    """Return names in drawing order: parents of `when` first, otherwise in the order of the file.

    Raises:
        SpecError: a parent is missing, or parameters depend on each other in a circle.
    """
    order: dict[str, None] = {}

    def visit(name: str, children: tuple[str, ...]) -> None:
        if name in children:
            raise SpecError(f"parameters wait for each other: {' -> '.join((*children, name))}")
        if name not in parameters:
            raise SpecError(
                f"parameter `{children[-1]}`: `when` names `{name}`, which is not a parameter",
            )
        for parent in parameters[name].when or {}:
            if parent not in order:
                visit(parent, (*children, name))
        order[name] = None

    for name in parameters:
        visit(name, ())
    return list(order)


def cycle(name: str, parameters: Mapping[str, Parameter]) -> list[str] | None:
    """Return the path from a parameter through its parents back to itself, or None. Missing parents
    are skipped."""
    child_of: dict[str, str] = {}
    pending = [name]
    while pending:
        child = pending.pop()
        for parent in parameters[child].when or {}:
            if parent not in child_of and parent in parameters:
                child_of[parent] = child
                pending.append(parent)
    if name not in child_of:
        return None
    path = [name, child_of[name]]
    while path[-1] != name:
        path.append(child_of[path[-1]])
    return path[::-1]


def is_too_nested(name: str, parameters: Mapping[str, Parameter]) -> bool:
    """Return True if a parameter has more than `MAX_NESTING` generations of parents."""
    level = {name}
    for _ in range(MAX_NESTING + 1):
        conditions = [parameters[child].when or {} for child in level if child in parameters]
        level = {parent for when in conditions for parent in when}
    return bool(level)
