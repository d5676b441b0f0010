"""A search space as scikit-learn writes it, as parameters of a study.

Values are ours (`Float`, `Int`, `Choice`), SciPy's frozen distributions, and lists of any objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesvc.decorator import Choice, Float, Int, Range

SUBSPACE = "subspace"
"""Parameter that selects one of several dicts."""
_TAIL = 1e-3
"""Probability that is cut off at an end of a distribution without bounds."""
_LOG_RATIO = 100.0
"""A positive distribution that spans more than this factor is searched logarithmically."""
_REMEDY = "use Float, Int, Choice, a list or a distribution of scipy.stats"


@dataclass(slots=True)
class ParamSpace:
    """The parameters of a study, and the way back from a trial's values to an estimator's."""

    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """In the form of study.yaml."""
    _names: dict[str, str] = field(default_factory=dict)
    """Name in the study -> name of the estimator's parameter."""
    _objects: dict[str, dict[Any, Any]] = field(default_factory=dict)
    """Values in the study -> objects."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> ParamSpace:
        """Translate a dict, or several of which each trial uses one, as `RandomizedSearchCV` does.

        Raises:
            TypeError: the space, or a value of it, is of no known type.
            ValueError: a list is empty.
        """
        space = cls()
        dicts = [given] if isinstance(given, Mapping) else given
        if isinstance(dicts, str) or not isinstance(dicts, Sequence):
            raise TypeError(f"Parameter distribution is not a dict or a list, got: {given!r}")
        for index, one in enumerate(dicts):
            if not isinstance(one, Mapping):
                raise TypeError(f"Parameter distribution is not a dict ({one!r})")
            for name, values in one.items():
                if len(dicts) == 1:
                    space._add(name, name, values)
                else:
                    space._add(f"{name} [{index}]", name, values, when={SUBSPACE: index})
        if len(dicts) > 1:
            space.parameters[SUBSPACE] = Choice(*range(len(dicts))).as_written()
        return space

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's values as parameters of the estimator."""
        return {
            self._names[name]: self._objects[name][value] if name in self._objects else value
            for name, value in params.items()
            if name in self._names
        }

    def _add(
        self, name: str, target: str, values: Any, when: Mapping[str, Any] | None = None
    ) -> None:
        self._names[name] = target
        if isinstance(values, Choice):
            values, when = list(values.values), values.when or when
        range_ = _range(target, values) or self._choice(name, values)
        written = range_.as_written()
        self.parameters[name] = written if when is None else {**written, "when": dict(when)}

    def _choice(self, name: str, values: Any) -> Choice:
        """Return a choice between objects; those that a study cannot hold are named by text."""
        if isinstance(values, (str, Mapping)) or not hasattr(values, "__len__"):
            kind = type(values).__name__
            raise TypeError(f"Parameter {name!r} is a {kind} ({values!r}): {_REMEDY}")
        if len(values) == 0:
            raise ValueError(f"Parameter {name!r} needs a non-empty sequence of values")
        objects: dict[Any, Any] = {}
        for value in values:
            label = _label(value)
            if label in objects:  # as 1 is where True is
                label = f"{label!s} [{len(objects)}]"
            objects[label] = value
        self._objects[name] = objects
        return Choice(*objects)


def _range(name: str, values: Any) -> Range | None:
    if isinstance(values, (Float, Int)):
        return values
    if not hasattr(values, "rvs"):
        return None
    if not hasattr(values, "support"):
        raise TypeError(f"Parameter {name!r} can only be sampled, and has no range: {_REMEDY}")
    return _of_distribution(values)


def _of_distribution(distribution: Any) -> Range:
    """Return the range of a frozen distribution of SciPy, without improbable ends.

    A positive one is searched on a logarithmic scale if it spans a large factor, or has no end.
    """
    low, high = (float(end) for end in distribution.support())
    is_endless = math.isinf(high)
    if is_endless:
        high = float(distribution.ppf(1 - _TAIL))
    if math.isinf(low) or (is_endless and low == 0):
        low = float(distribution.ppf(_TAIL))
    if hasattr(distribution.dist, "pmf"):
        low, high = round(low), round(high)
        return Int(low, high, log=low >= 1 and high > _LOG_RATIO * low)
    return Float(low, high, log=low > 0 and (is_endless or high > _LOG_RATIO * low))


def _label(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return getattr(value, "__name__", None) or repr(value)[:200]
