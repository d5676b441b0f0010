"""The search space: parameters of the spec as Optuna distributions, with their conditions.

Owns the order in which parameters are drawn, the conditions of `when`, and the size of a space.
Knows nothing of samplers, Ray or the database.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from tunesvc.errors import SpecError
from tunesvc.space.cardinality import (
    count_at_most,
    count_configurations,
    count_steps,
)
from tunesvc.spec import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    ParamValue,
)
from tunesvc.spec.conditions import (
    as_written,
    contains,
    draw_order,
    when_values,
)
from tunesvc.spec.rounding import snap_to_bounds, step_at
from tunesvc.util.suggestions import suggest

MAX_LISTED = 10_000
"""Most values of a parameter in a grid."""


class Space:
    """The parameters of a study in the order in which they are drawn.

    Raises:
        SpecError: a `when` names no parameter of the space, or parameters wait for each other.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        order = draw_order(parameters)
        self.parameters = {name: parameters[name] for name in order}
        self.distributions: dict[str, BaseDistribution] = {}
        self._clauses: dict[str, dict[str, list[frozenset[ParamValue]]]] = {}
        """Sets of values that an ancestor must have, by parameter and ancestor."""
        for name, parameter in self.parameters.items():
            self.distributions[name] = to_distribution(parameter)
            self._clauses[name] = self._clauses_of(parameter)

    def active(self, name: str, params: Mapping[str, ParamValue]) -> bool:
        """Return True if `name` exists under `params`: all its conditions hold."""
        for ancestor, clauses in self._clauses[name].items():
            if ancestor not in params:
                return False
            value = as_written(self.parameters[ancestor], params[ancestor])
            if any(value not in allowed for allowed in clauses):
                return False
        return True

    def select(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Return the values in `params` that exist, in draw order; a step has its one value."""
        return {
            name: as_written(self.parameters[name], params[name])
            for name in self.parameters
            if name in params and self.active(name, params)
        }

    @property
    def size(self) -> int | None:
        """Number of configurations; None if a parameter is continuous, or the space entangled."""
        return count_configurations(self.parameters)

    def is_listed(self, trials: int | None) -> bool:
        """Return True if so many trials can try every configuration, few enough to be listed."""
        size = None if trials is None else self.size
        return size is not None and trials is not None and size <= min(trials, MAX_LISTED)

    def configurations(self) -> Iterator[dict[str, ParamValue]]:
        """Yield every configuration; for a space of known and small `size`."""
        names = list(self.parameters)

        def beyond(
            place: int,
            params: dict[str, ParamValue],
        ) -> Iterator[dict[str, ParamValue]]:
            if place == len(names):
                yield params
            elif not self.active(names[place], params):
                yield from beyond(place + 1, params)
            else:
                for value in all_values(self.distributions[names[place]]) or ():
                    yield from beyond(
                        place + 1,
                        {**params, names[place]: value},
                    )

        yield from beyond(0, {})

    @property
    def size_at_most(self) -> int | None:
        """Bound on `size`, also for an entangled space; None if a parameter is continuous."""
        return count_at_most(self.parameters)

    def checked(
        self,
        params: Mapping[str, ParamValue],
    ) -> dict[str, ParamValue]:
        """Return values of single parameters as the space has them.

        Raises:
            SpecError: there is no such parameter, the value is outside its range, or the parameter
                does not exist beside the other values.
        """
        for name, value in params.items():
            if name not in self.parameters:
                raise SpecError(no_parameter(name, self.parameters))
            if not contains(self.parameters[name], value):
                raise SpecError(f"{name} = {value!r} is outside of {_range(self.parameters[name])}")
        for name in params:
            if why_not := self._why_absent(name, params):
                raise SpecError(f"{name} = {params[name]!r} would be dropped: {why_not}")
        return {name: as_written(self.parameters[name], value) for name, value in params.items()}

    def _why_absent(self, name: str, params: Mapping[str, ParamValue]) -> str:
        """Return the condition that other values break or leave open.

        Empty if the parameter exists.
        """
        for ancestor, clauses in self._clauses[name].items():
            kind = self.parameters[ancestor]
            given = as_written(kind, params[ancestor]) if ancestor in params else None
            if ancestor in params and all(given in allowed for allowed in clauses):
                continue
            known = [value for value in clauses[0] if all(value in allowed for allowed in clauses)]
            listed = " or ".join(sorted(repr(value) for value in known)[:5])
            found = "so give that too"
            if ancestor in params:
                found = f"and is {params[ancestor]!r} here"
            return f"it exists only where {ancestor} is {listed}, {found}"
        return ""

    def _clauses_of(
        self,
        parameter: Parameter,
    ) -> dict[str, list[frozenset[ParamValue]]]:
        """Return the conditions of a parameter on its ancestors; its parents' are known already."""
        found: dict[str, list[frozenset[ParamValue]]] = {}
        for parent, allowed in (parameter.when or {}).items():
            for ancestor, clauses in self._clauses[parent].items():
                known = found.setdefault(ancestor, [])
                known += [clause for clause in clauses if clause not in known]
            kind = self.parameters[parent]
            clause = frozenset(as_written(kind, value) for value in when_values(allowed))
            found.setdefault(parent, []).append(clause)
        return found

    @property
    def is_conditional(self) -> bool:
        """True if any parameter exists only under a condition."""
        return any(parameter.when for parameter in self.parameters.values())

    def grid(self) -> dict[str, list[ParamValue]] | None:
        """Return every value of every parameter; None if one is continuous."""
        kinds = self.distributions.items()
        values = {name: all_values(distribution) for name, distribution in kinds}
        complete = {name: listed for name, listed in values.items() if listed is not None}
        return complete if len(complete) == len(values) else None

    def distance(
        self,
        one: Mapping[str, ParamValue],
        other: Mapping[str, ParamValue],
    ) -> float:
        """Return the distance of two configurations, 0 to 1: the mean difference of parameters.

        Numbers differ by a share of the range, on the log scale if the parameter has one; different
        categories, and a parameter that only one of them has, count 1. This is Gower's coefficient
        (Biometrics 27, 1971) without its weights.
        """
        names = [name for name in self.parameters if name in one or name in other]
        apart = [self._apart(name, one, other) for name in names]
        return sum(apart) / len(apart) if apart else 0.0

    def _apart(
        self,
        name: str,
        one: Mapping[str, ParamValue],
        other: Mapping[str, ParamValue],
    ) -> float:
        if name not in one or name not in other:
            return 1.0
        places = (
            place(self.distributions[name], one[name]),
            place(self.distributions[name], other[name]),
        )
        first, second = places
        if first is None or second is None:
            return float(one[name] != other[name])
        return min(1.0, abs(first - second))

    def with_distributions(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a stored trial in this space's own distributions, which may be wider.

        Optuna's samplers model a parameter only over trials with equal distributions. The trial's
        values stay; a value outside this space keeps its distribution.
        """
        fitting = {
            name: self.distributions[name]
            for name, value in trial.params.items()
            if name in self.parameters and contains(self.parameters[name], value)
        }
        if all(trial.distributions[name] == distribution for name, distribution in fitting.items()):
            return trial
        made = copy.copy(trial)
        made.distributions = {**trial.distributions, **fitting}
        return made


def no_parameter(name: str, parameters: Mapping[str, Parameter]) -> str:
    """Return an error text for a parameter that does not exist."""
    hint = suggest(name, parameters, quote="'")
    return f"no parameter {name!r}{hint}; there are: {', '.join(parameters)}"


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return f"{', '.join(map(repr, parameter.choices))}"
    return f"{parameter.min:g} ... {parameter.max:g}"


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """Return a parameter's Optuna distribution.

    With a `step`, `max` becomes the last reached value.
    """
    match parameter:
        case FloatParameter(step=None):
            return FloatDistribution(
                parameter.min,
                parameter.max,
                log=parameter.log,
            )
        case FloatParameter():
            steps = count_steps(parameter) * Decimal(str(parameter.step))
            last = Decimal(str(parameter.min)) + steps
            return FloatDistribution(
                parameter.min,
                float(last),
                step=parameter.step,
            )
        case IntParameter():
            step = parameter.step or 1
            return IntDistribution(
                parameter.min,
                parameter.min + count_steps(parameter) * step,
                log=parameter.log,
                step=step,
            )
        case CategoricalParameter():
            return CategoricalDistribution(parameter.choices)


def widened(
    before: Mapping[str, Parameter],
    now: Mapping[str, Parameter],
) -> Iterator[str]:
    """Yield the reasons why trials of the space `before` do not fit the space `now`.

    Ranges may grow and choices may be added. A trial keeps the distribution that it was drawn from,
    so the order of choices does not matter.
    """
    for name in before.keys() | now.keys():
        if name not in now:
            yield f"{name} is gone, and its trials had it; start a new study, with `warm_start`"
        elif name not in before:
            text = f"{name} is new, and its trials do not have it; "
            text += "start a new study, with `warm_start`"
            yield text
        elif problem := _narrowed(before[name], now[name]):
            yield f"{name}: {problem}"


def _narrowed(before: Parameter, now: Parameter) -> str:
    if type(before) is not type(now):
        return f"was {before.type} and cannot become {now.type}"
    if before.when != now.when:
        return "its `when` cannot change"
    if isinstance(before, CategoricalParameter) and isinstance(
        now,
        CategoricalParameter,
    ):
        missing = [repr(one) for one in before.choices if not _is_among(one, now.choices)]
        if not missing:
            return ""
        return f"choices may be added, not taken away: {', '.join(missing)}"
    if isinstance(before, CategoricalParameter) or isinstance(
        now,
        CategoricalParameter,
    ):
        return "cannot change its type"
    if (before.log, before.step) != (now.log, now.step):
        return "`log` and `step` cannot change"
    if now.min > before.min or now.max < before.max:
        return f"its range {_range(before)} may grow, not shrink to {_range(now)}"
    step = Decimal(str(before.step or 0))
    if step and (Decimal(str(before.min)) - Decimal(str(now.min))) % step:
        step_text = f"{before.step:g}"
        min_text = f"{before.min:g}"
        return f"`min` has to stay a whole number of steps of {step_text} away from {min_text}"
    return ""


def _is_among(value: ParamValue, choices: Sequence[ParamValue]) -> bool:
    return any(type(value) is type(other) and value == other for other in choices)


def place(distribution: BaseDistribution, value: ParamValue) -> float | None:
    """Return a number's position in its range, 0 to 1, on its scale; None for a category."""
    if isinstance(distribution, CategoricalDistribution):
        return None
    if not isinstance(value, (int, float)):
        return None
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    if low == high:
        return 0.0
    if distribution.log:  # type: ignore[attr-defined]
        return math.log(max(float(value), low) / low) / math.log(high / low)
    return (float(value) - low) / (high - low)


def canonical(distribution: BaseDistribution, value: Any) -> Any:
    """Return a float as it is written: its step's value, or the bound that it misses by rounding.

    Other values are returned unchanged.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(distribution, FloatDistribution) or not is_number:
        return value
    if distribution.step is None:
        return snap_to_bounds(value, distribution.low, distribution.high)
    step = step_at(value, distribution.low, distribution.step)
    return value if step is None else step


def all_values(distribution: BaseDistribution) -> list[ParamValue] | None:
    """Return every value of a distribution in order.

    None if it is continuous, or there are too many.
    """
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high, step=step):
            count = (high - low) // step
            return list(range(low, high + 1, step)) if count < MAX_LISTED else None
        case FloatDistribution(low=low, high=high, step=float(step)):
            steps = round((high - low) / step)
            if steps >= MAX_LISTED:
                return None
            return [canonical(distribution, low + k * step) for k in range(steps + 1)]
    return None


def sample(space: Space, rng: Random) -> dict[str, ParamValue]:
    """Draw a configuration, uniformly on each parameter's scale, with active parameters only."""
    params: dict[str, ParamValue] = {}
    for name, distribution in space.distributions.items():
        if space.active(name, params):
            params[name] = _DRAW[type(distribution)](distribution, rng)
    return params


NEAR = 0.05
"""Deviation of a number's change near a trial, as a share of its range."""


def near(
    space: Space,
    trial: FrozenTrial,
    rng: Random,
) -> dict[str, ParamValue]:
    """Draw a configuration near a trial's.

    Numbers move a little on their scale, one of them by at least a step; choices stay. Without a
    number to move, one choice changes, and parameters that exist only then are drawn.
    """
    distributions = space.distributions or trial.distributions
    here = space.select(trial.params) if space.parameters else dict(trial.params)
    can = [name for name in here if not distributions[name].single()]
    choices = [n for n in can if isinstance(distributions[n], CategoricalDistribution)]
    numbers = [name for name in can if name not in choices]
    moved = rng.choice(numbers or can) if can else None
    params: dict[str, ParamValue] = {}
    for name, distribution in distributions.items():
        if space.parameters and not space.active(name, params):
            continue
        if name not in here:
            params[name] = _DRAW[type(distribution)](distribution, rng)
        elif name == moved or name in numbers:
            params[name] = _perturb(
                distribution,
                here[name],
                rng,
                surely=name == moved,
            )
        else:
            params[name] = here[name]
    return params


def _perturb(
    distribution: BaseDistribution,
    value: ParamValue,
    rng: Random,
    *,
    surely: bool,
) -> ParamValue:
    """Return a value near another one; with `surely`, a different one."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        others: list[ParamValue] = [choice for choice in choices if choice != value]
        return rng.choice(others)
    was = place(distribution, value) or 0.0
    made = _from_unit(distribution, _reflect(rng.gauss(was, NEAR)))
    if made != value or not surely:
        return made
    step = distribution.step or 0  # type: ignore[attr-defined]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    number = float(value)  # type: ignore[arg-type]
    sides = [side for side in (-1, 1) if low <= number + side * step <= high]
    beside = Decimal(str(value)) + rng.choice(sides) * Decimal(str(step))
    return int(beside) if isinstance(distribution, IntDistribution) else float(beside)


def _reflect(place: float) -> float:
    """Reflect a position into 0 to 1 at either end."""
    place = abs(place) % 2
    return 2 - place if place > 1 else place


def _from_unit(distribution: BaseDistribution, place: float) -> ParamValue:
    """Return the value nearest to a position in the range; the inverse of `place`."""
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        value = min(
            max(low * math.exp(place * math.log(high / low)), low),
            high,
        )
        return round(value) if isinstance(distribution, IntDistribution) else float(value)
    step = distribution.step  # type: ignore[attr-defined]
    if step is None:
        return float(min(max(low + place * (high - low), low), high))
    reached = Decimal(str(low)) + round(place * (high - low) / step) * Decimal(str(step))
    return int(reached) if isinstance(distribution, IntDistribution) else float(reached)


def _draw_float(d: FloatDistribution, rng: Random) -> float:
    if d.step is not None:
        low = Decimal(str(d.low))
        high = Decimal(str(d.high))
        step = Decimal(str(d.step))
        steps = rng.randint(0, int((high - low) / step))
        return float(low + steps * step)
    if d.log:
        exponent = rng.uniform(math.log(d.low), math.log(d.high))
        return min(max(math.exp(exponent), d.low), d.high)
    return rng.uniform(d.low, d.high)


def _draw_int(d: IntDistribution, rng: Random) -> int:
    if not d.log:
        return rng.randrange(d.low, d.high + 1, d.step)
    # Half a unit on both sides makes the end points as likely as their neighbours.
    low = math.log(d.low - 0.5)
    high = math.log(d.high + 0.5)
    drawn = round(math.exp(rng.uniform(low, high)))
    return min(max(drawn, d.low), d.high)


def _draw_category(d: CategoricalDistribution, rng: Random) -> ParamValue:
    return rng.choice(d.choices)


_DRAW: dict[type[BaseDistribution], Callable[..., ParamValue]] = {
    FloatDistribution: _draw_float,
    IntDistribution: _draw_int,
    CategoricalDistribution: _draw_category,
}
