"""The search space: parameters of the spec <-> Optuna distributions, and which of them exist when.

Owns the order in which parameters are drawn, the conditions of `when`, and the size of a space. Knows nothing of
samplers, Ray or the database.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Iterator, Mapping
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
from tunesvc.space.cardinality import count_at_most, count_configurations, count_steps
from tunesvc.spec import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    ParamValue,
)
from tunesvc.spec.conditions import as_written, contains, draw_order, when_values
from tunesvc.spec.rounding import snap_to_bounds, step_at

MAX_LISTED = 10_000
"""A parameter with more values than that is no grid."""


class Space:
    """The parameters of a study in the order in which they are drawn.

    Raises:
        SpecError: a `when` names no parameter of the space, or parameters wait for each other.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        order = draw_order(parameters)
        self.parameters: dict[str, Parameter] = {name: parameters[name] for name in order}
        self.distributions: dict[str, BaseDistribution] = {
            name: to_distribution(parameter) for name, parameter in self.parameters.items()
        }
        self._clauses: dict[str, dict[str, list[frozenset[ParamValue]]]] = {}
        """By parameter: what it and its ancestors ask of each ancestor."""
        for name, parameter in self.parameters.items():
            self._clauses[name] = self._clauses_of(parameter)

    def active(self, name: str, params: Mapping[str, ParamValue]) -> bool:
        """Whether `name` exists under the values in `params`: every parent exists and has a wanted value."""
        for ancestor, clauses in self._clauses[name].items():
            if ancestor not in params:
                return False
            value = as_written(self.parameters[ancestor], params[ancestor])
            if any(value not in wanted for wanted in clauses):
                return False
        return True

    def select(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """The values in `params` that exist, in draw order; a step has its one value."""
        return {
            name: as_written(self.parameters[name], params[name])
            for name in self.parameters
            if name in params and self.active(name, params)
        }

    @property
    def size(self) -> int | None:
        """The number of configurations; None when one parameter is continuous, or the space is too entangled."""
        return count_configurations(self.parameters)

    def is_listed(self, trials: int | None) -> bool:
        """Whether so many trials are enough to try every configuration, and these few enough to be listed."""
        size = None if trials is None else self.size
        return size is not None and trials is not None and size <= min(trials, MAX_LISTED)

    def configurations(self) -> Iterator[dict[str, ParamValue]]:
        """Every configuration; for a space whose `size` is known and small."""
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
                    yield from beyond(place + 1, {**params, names[place]: value})

        yield from beyond(0, {})

    @property
    def size_at_most(self) -> int | None:
        """A bound on `size`, also for an entangled space; None when a parameter is continuous."""
        return count_at_most(self.parameters)

    def checked(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Return values of single parameters as the space has them.

        Raises:
            SpecError: there is no such parameter, the value is outside of its range, or the parameter does not exist
                beside the other values.
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
        """The condition that other values break or leave open; empty when the parameter exists."""
        for ancestor, clauses in self._clauses[name].items():
            kind = self.parameters[ancestor]
            given = as_written(kind, params[ancestor]) if ancestor in params else None
            if ancestor in params and all(given in wanted for wanted in clauses):
                continue
            known = [value for value in clauses[0] if all(value in wanted for wanted in clauses)]
            listed = " or ".join(sorted(repr(value) for value in known)[:5])
            found = f"and is {params[ancestor]!r} here" if ancestor in params else "so give that too"
            return f"it exists only where {ancestor} is {listed}, {found}"
        return ""

    def _clauses_of(
        self,
        parameter: Parameter,
    ) -> dict[str, list[frozenset[ParamValue]]]:
        """What a parameter asks of its parents, and these of theirs, which are known already."""
        found: dict[str, list[frozenset[ParamValue]]] = {}
        for parent, wanted in (parameter.when or {}).items():
            for ancestor, clauses in self._clauses[parent].items():
                known = found.setdefault(ancestor, [])
                known += [clause for clause in clauses if clause not in known]
            kind = self.parameters[parent]
            clause = frozenset(as_written(kind, value) for value in when_values(wanted))
            found.setdefault(parent, []).append(clause)
        return found

    @property
    def is_conditional(self) -> bool:
        """Whether any parameter exists only under a condition."""
        return any(parameter.when for parameter in self.parameters.values())

    def grid(self) -> dict[str, list[ParamValue]] | None:
        """Every value of every parameter; None when one is continuous."""
        values = {name: all_values(distribution) for name, distribution in self.distributions.items()}
        complete = {name: listed for name, listed in values.items() if listed is not None}
        return complete if len(complete) == len(values) else None

    def distance(
        self,
        one: Mapping[str, ParamValue],
        other: Mapping[str, ParamValue],
    ) -> float:
        """How far two configurations are apart, 0 ... 1: the mean over parameters of the share of the range between.

        On the log scale where the parameter has one; other categories, or a parameter that only one of them has,
        count 1. The same as in Gower's coefficient (Biometrics 27, 1971), without its weights.
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
        """A stored trial in this space's own distributions, which may be wider than those that it was drawn from.

        Optuna's samplers model a parameter only over trials whose distributions are equal. The trial's values stay; a
        value that is not one of ours keeps its own distribution.
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
    """What to tell somebody who names a parameter that there is not."""
    near = difflib.get_close_matches(name, parameters, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"no parameter {name!r}{hint}; there are: {', '.join(parameters)}"


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return f"{', '.join(map(repr, parameter.choices))}"
    return f"{parameter.min:g} ... {parameter.max:g}"


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution of a parameter; with a `step`, `max` becomes the last value that is reached."""
    match parameter:
        case FloatParameter(step=None):
            return FloatDistribution(parameter.min, parameter.max, log=parameter.log)
        case FloatParameter():
            last = Decimal(str(parameter.min)) + count_steps(parameter) * Decimal(str(parameter.step))
            return FloatDistribution(parameter.min, float(last), step=parameter.step)
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
    """What stands in the way of going on with trials of the space `before` in the space `now`; nothing when every one
    of them is a configuration of both.

    Ranges may grow and choices may be added; a trial keeps the distribution that it was drawn from, so the order of
    choices does not matter.
    """
    for name in before.keys() | now.keys():
        if name not in now:
            yield f"{name} is gone, and its trials had it; start a new study, with `warm_start`"
        elif name not in before:
            yield f"{name} is new, and its trials do not have it; start a new study, with `warm_start`"
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
        missing = [value for value in before.choices if not any(_same(value, other) for other in now.choices)]
        return f"choices may be added, not taken away: {', '.join(map(repr, missing))}" if missing else ""
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
        return f"`min` has to stay a whole number of steps of {before.step:g} away from {before.min:g}"
    return ""


def _same(one: ParamValue, other: ParamValue) -> bool:
    return type(one) is type(other) and one == other


def place(distribution: BaseDistribution, value: ParamValue) -> float | None:
    """Where in its range a number lies, 0 ... 1, on the log scale where there is one; None for a category."""
    if isinstance(distribution, CategoricalDistribution) or not isinstance(
        value,
        (int, float),
    ):
        return None
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    if low == high:
        return 0.0
    if distribution.log:  # type: ignore[attr-defined]
        return math.log(max(float(value), low) / low) / math.log(high / low)
    return (float(value) - low) / (high - low)


def canonical(distribution: BaseDistribution, value: Any) -> Any:
    """Return a float as it is written: the value of its step, or the bound that it misses by rounding.

    What misses every step or bound stays, and so does anything else.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(distribution, FloatDistribution) or not is_number:
        return value
    if distribution.step is None:
        return snap_to_bounds(value, distribution.low, distribution.high)
    step = step_at(value, distribution.low, distribution.step)
    return value if step is None else step


def all_values(distribution: BaseDistribution) -> list[ParamValue] | None:
    """Every value of a distribution in order; None when it is continuous, or when there are too many to list."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high, step=step):
            return list(range(low, high + 1, step)) if (high - low) // step < MAX_LISTED else None
        case FloatDistribution(low=low, high=high, step=float(step)):
            steps = round((high - low) / step)
            values: list[float] = [low + k * step for k in range(steps + 1)] if steps < MAX_LISTED else []
            return [canonical(distribution, value) for value in values] or None
    return None


def sample(space: Space, rng: Random) -> dict[str, ParamValue]:
    """One configuration, drawn uniformly (on the log scale where asked for), active parameters only."""
    params: dict[str, ParamValue] = {}
    for name, distribution in space.distributions.items():
        if space.active(name, params):
            params[name] = _DRAW[type(distribution)](distribution, rng)
    return params


NEAR = 0.05
"""How far a number moves when one tries near a trial: the deviation, as a share of its range."""


def near(space: Space, trial: FrozenTrial, rng: Random) -> dict[str, ParamValue]:
    """A configuration near a trial's.

    Its numbers move a little, on the log scale where they have one, and one of them by a step at least; its choices
    stay. Where there is no number to move, one choice becomes another, and what then newly exists is drawn.
    """
    distributions = space.distributions or trial.distributions
    here = space.select(trial.params) if space.parameters else dict(trial.params)
    can = [name for name in here if not distributions[name].single()]
    numbers = [name for name in can if not isinstance(distributions[name], CategoricalDistribution)]
    moved = rng.choice(numbers or can) if can else None
    params: dict[str, ParamValue] = {}
    for name, distribution in distributions.items():
        if space.parameters and not space.active(name, params):
            continue
        if name not in here:
            params[name] = _DRAW[type(distribution)](distribution, rng)
        elif name == moved or name in numbers:
            params[name] = _perturb(distribution, here[name], rng, surely=name == moved)
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
    """A value near another one; `surely` not the same."""
    if isinstance(distribution, CategoricalDistribution):
        others: list[ParamValue] = [choice for choice in distribution.choices if choice != value]
        return rng.choice(others)
    was = place(distribution, value) or 0.0
    made = _from_unit(distribution, _reflect(rng.gauss(was, NEAR)))
    if made != value or not surely:
        return made
    step = distribution.step or 0  # type: ignore[attr-defined]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    sides = [side for side in (-1, 1) if low <= float(value) + side * step <= high]  # type: ignore[arg-type]
    beside = Decimal(str(value)) + rng.choice(sides) * Decimal(str(step))
    return int(beside) if isinstance(distribution, IntDistribution) else float(beside)


def _reflect(place: float) -> float:
    """Back into 0 ... 1, as from a mirror at either end."""
    place = abs(place) % 2
    return 2 - place if place > 1 else place


def _from_unit(distribution: BaseDistribution, place: float) -> ParamValue:
    """The value nearest to a place in the range: what `place` undoes."""
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        value = min(max(low * math.exp(place * math.log(high / low)), low), high)
        return round(value) if isinstance(distribution, IntDistribution) else float(value)
    step = distribution.step  # type: ignore[attr-defined]
    if step is None:
        return float(min(max(low + place * (high - low), low), high))
    reached = Decimal(str(low)) + round(place * (high - low) / step) * Decimal(str(step))
    return int(reached) if isinstance(distribution, IntDistribution) else float(reached)


def _draw_float(d: FloatDistribution, rng: Random) -> float:
    if d.step is not None:
        steps = rng.randint(
            0,
            int((Decimal(str(d.high)) - Decimal(str(d.low))) / Decimal(str(d.step))),
        )
        return float(Decimal(str(d.low)) + steps * Decimal(str(d.step)))
    if d.log:
        return min(
            max(math.exp(rng.uniform(math.log(d.low), math.log(d.high))), d.low),
            d.high,
        )
    return rng.uniform(d.low, d.high)


def _draw_int(d: IntDistribution, rng: Random) -> int:
    if not d.log:
        return rng.randrange(d.low, d.high + 1, d.step)
    # half a unit on both sides, so that the end points are as likely as their neighbours
    drawn = round(math.exp(rng.uniform(math.log(d.low - 0.5), math.log(d.high + 0.5))))
    return min(max(drawn, d.low), d.high)


def _draw_category(d: CategoricalDistribution, rng: Random) -> ParamValue:
    return rng.choice(d.choices)


_DRAW: dict[type[BaseDistribution], Callable[..., ParamValue]] = {
    FloatDistribution: _draw_float,
    IntDistribution: _draw_int,
    CategoricalDistribution: _draw_category,
}
