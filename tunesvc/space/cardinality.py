"""Number of configurations of a space, counted without listing them.

Parameters are processed one after the other; of earlier ones only the values that a later `when`
needs are remembered. For trees of conditions the time is proportional to their size. In general the
problem is as hard as counting the solutions of a formula, so a space that is too entangled is not
counted: `count_at_most` bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal

from tunesvc.spec import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    ParamValue,
)
from tunesvc.spec.conditions import contains, when_values

STATES_MAX = 20_000
"""Most combinations of parents' values that are remembered;
a space that needs more is not counted."""

_OTHER = "\x00any other value"
_ABSENT = "\x00absent"
"""They equal no value of a spec."""

States = dict[tuple[ParamValue, ...], int]
"""Number of configurations by the values of the parents that are remembered."""


def count_configurations(parameters: Mapping[str, Parameter]) -> int | None:
    """Count the configurations; None if a parameter is continuous or the space is too entangled."""
    if count_at_most(parameters) is None:
        return None
    children = _children(parameters)
    open_names: list[str] = []
    states: States = {(): 1}
    left = {name: len(children[name]) for name in parameters}
    for name in _order(parameters, children):
        when = {}
        for parent, clause in (parameters[name].when or {}).items():
            when[parent] = frozenset(when_values(clause))
            left[parent] -= 1
        cases = list(_cases(name, parameters, children[name]))
        kept = [known for known in (*open_names, name) if left[known]]
        counted: States = {}
        for state, ways in states.items():
            values = dict(zip(open_names, state, strict=True))
            exists = all(values[parent] in allowed for parent, allowed in when.items())
            for value, alike in cases if exists else [(_ABSENT, 1)]:
                values[name] = value
                key = tuple(values[known] for known in kept)
                counted[key] = counted.get(key, 0) + ways * alike
        open_names = kept
        states = counted
        if len(states) > STATES_MAX:
            return None
    return sum(states.values())


def count_at_most(parameters: Mapping[str, Parameter]) -> int | None:
    """Bound the number of configurations, ignoring conditions.

    None if a parameter is continuous.
    """
    counts = [count_values(parameter) for parameter in parameters.values()]
    known = [count for count in counts if count is not None]
    return math.prod(known) if len(known) == len(counts) else None


def count_values(parameter: Parameter) -> int | None:
    """Count the values of a parameter; None if it is continuous."""
    match parameter:
        case CategoricalParameter():
            return len(parameter.values)
        case FloatParameter(step=None):
            return 1 if parameter.min == parameter.max else None
        case _:
            return count_steps(parameter) + 1


def count_steps(parameter: FloatParameter | IntParameter) -> int:
    """Count the steps between `min` and `max`, in decimals, as Optuna computes them."""
    low = Decimal(str(parameter.min))
    high = Decimal(str(parameter.max))
    return int((high - low) // Decimal(str(parameter.step or 1)))


def _children(parameters: Mapping[str, Parameter]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {name: [] for name in parameters}
    for name, parameter in parameters.items():
        for parent in parameter.when or {}:
            children[parent].append(name)
    return children


def _cases(
    name: str,
    parameters: Mapping[str, Parameter],
    children: list[str],
) -> Iterator[tuple[ParamValue, int]]:
    """Yield each value that a child's condition names, then one entry for all others."""
    clauses = [parameters[child].when or {} for child in children]
    named = {value for when in clauses for value in when_values(when[name])}
    named = {value for value in named if contains(parameters[name], value)}
    yield from ((value, 1) for value in named)
    others = (count_values(parameters[name]) or 0) - len(named)
    if others:
        yield _OTHER, others


def _order(
    parameters: Mapping[str, Parameter],
    children: Mapping[str, list[str]],
) -> Iterator[str]:
    """Yield parents before children, so that few parents wait for a child at any time.

    Greedy: next is the parameter after which the fewest wait; among equals the one whose children
    lack the fewest parents.
    """
    missing = {name: len(parameter.when or {}) for name, parameter in parameters.items()}
    left = {name: len(children[name]) for name in parameters}
    ready = [name for name in parameters if not missing[name]]

    def cost(name: str) -> tuple[int, int]:
        closed = sum(left[parent] == 1 for parent in parameters[name].when or {})
        lacking = min((missing[child] for child in children[name]), default=0)
        return bool(children[name]) - closed, lacking

    while ready:
        name = min(ready, key=cost)
        ready.remove(name)
        yield name
        for parent in parameters[name].when or {}:
            left[parent] -= 1
        for child in children[name]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
