"""What `when` means: which values are wanted, whether a parameter can have them, and who waits for whom."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunesvc.errors import SpecError
from tunesvc.spec.model import CategoricalParameter, FloatParameter, Parameter, Scalar
from tunesvc.spec.rounding import step_at

MAX_NESTING = 50
"""Conditions upon conditions; a space that anybody understands has three."""


def wanted_values(wanted: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """The values of a `when` clause, which may be one value or several."""
    return wanted if isinstance(wanted, tuple) else (wanted,)


def contains(parameter: Parameter, value: Scalar) -> bool:
    """Whether a parameter can have this value; true and 1 are different choices."""
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
    """A value of a parameter; of a stepped float the one that stands for its step. What misses every step stays."""
    if not isinstance(parameter, FloatParameter) or parameter.step is None:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    step = step_at(value, parameter.min, parameter.step)
    return value if step is None else step


def is_same(one: Scalar, other: Scalar) -> bool:
    """Whether two choices are the same: equal, and both or neither of them true or false."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def is_sometimes_absent(name: str, parameters: Mapping[str, Parameter]) -> bool:
    """Whether a parameter's parent has a value that its `when` does not name. Looks no further than its parents."""
    return any(
        not any(is_same(value, one) for one in wanted_values(wanted))
        for parent, wanted in (parameters[name].when or {}).items()
        for value in _ends(parameters.get(parent))
    )


def _ends(parameter: Parameter | None) -> tuple[Scalar, ...]:
    """Return all choices of a parameter, or the ends of its range."""
    if parameter is None:
        return ()
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices
    return tuple(end for end in (parameter.min, parameter.max) if contains(parameter, end))


def draw_order(parameters: Mapping[str, Parameter]) -> list[str]:
    """Names in the order in which they are drawn: parents of `when` first, otherwise as they are written.

    Raises:
        SpecError: a parent is missing, or parameters wait for each other.
    """
    order: dict[str, None] = {}

    def visit(name: str, children: tuple[str, ...]) -> None:
        if name in children:
            raise SpecError(f"parameters wait for each other: {' -> '.join((*children, name))}")
        if name not in parameters:
            raise SpecError(f"parameter `{children[-1]}`: `when` names `{name}`, which is no parameter")
        for parent in parameters[name].when or {}:
            if parent not in order:
                visit(parent, (*children, name))
        order[name] = None

    for name in parameters:
        visit(name, ())
    return list(order)


def cycle(name: str, parameters: Mapping[str, Parameter]) -> list[str] | None:
    """The way from a parameter through its parents back to itself, or None. Missing parents are passed over."""
    child_of: dict[str, str] = {}
    waiting = [name]
    while waiting:
        child = waiting.pop()
        for parent in parameters[child].when or {}:
            if parent not in child_of and parent in parameters:
                child_of[parent] = child
                waiting.append(parent)
    if name not in child_of:
        return None
    way = [name, child_of[name]]
    while way[-1] != name:
        way.append(child_of[way[-1]])
    return way[::-1]


def is_too_nested(name: str, parameters: Mapping[str, Parameter]) -> bool:
    """Whether a parameter has parents of parents of ... more than `MAX_NESTING` times over."""
    level = {name}
    for _ in range(MAX_NESTING + 1):
        level = {parent for child in level if child in parameters for parent in parameters[child].when or {}}
    return bool(level)
