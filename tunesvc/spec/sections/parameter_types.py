"""Parameters: their ranges, and the conditions under which they exist."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from tunesvc.spec.sections.field_types import (
    MAX_EXACT,
    Choice,
    Frozen,
    Scalar,
    SpecModel,
    Tuple,
    _choice,
    _scalar,
    as_choice,
)


def _one_or_several(written: object) -> object:
    """Parse one value or several here: pydantic would try both and report errors of both."""
    if not isinstance(written, (list, tuple)):
        return _scalar(written)
    return tuple(as_choice(_choice(value)) for value in written)


WhenValues = Annotated[Scalar | tuple[Scalar, ...], BeforeValidator(_one_or_several)]

When = Frozen[WhenValues]
"""Parent's name -> the value, or values, under which this parameter exists."""

_WHEN = Field(
    None,
    description="Exists only if each named parameter has the given value, or one of the values.",
)


class FloatParameter(SpecModel):
    """A real number between `min` and `max`, both included."""

    type: Literal["float"]
    min: float = Field(description="The least value.")
    max: float = Field(description="The greatest value.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: float | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> FloatParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class IntParameter(SpecModel):
    """A whole number between `min` and `max`, both included."""

    type: Literal["int"]
    min: int = Field(ge=-MAX_EXACT, le=MAX_EXACT, description="The least value.")
    max: int = Field(ge=-MAX_EXACT, le=MAX_EXACT, description="The greatest value.")
    log: bool = Field(False, description="Search on a logarithmic scale.")
    step: int | None = Field(None, gt=0, description="Only `min + k * step`.")
    when: When | None = _WHEN

    @model_validator(mode="after")
    def _bounds(self) -> IntParameter:
        _check_bounds(self.min, self.max, self.log, self.step)
        return self


class CategoricalParameter(SpecModel):
    """One of a few unordered values."""

    type: Literal["categorical"] = "categorical"
    values: Tuple[Choice] = Field(
        min_length=1,
        description="The choices: text, numbers, true, false, null, or lists of those.",
    )
    when: When | None = _WHEN

    @cached_property
    def choices(self) -> tuple[Scalar, ...]:
        """The values as the search uses them: a list as its JSON text."""
        return tuple(as_choice(value) for value in self.values)

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        first: dict[Scalar, Any] = {}
        for value in values:
            known = as_choice(value)
            if known in first:
                pair = f"{first[known]!r} and {value!r}"
                raise ValueError(f"the values must be distinct: {pair} are equal")
            first[known] = value
        return values


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter,
    Field(discriminator="type"),
]


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"`min` ({low:g}) is greater than `max` ({high:g})")
    if not math.isfinite(high - low):
        raise ValueError(f"the range from {low:g} to {high:g} is too wide for a double")
    if log and low <= 0:
        raise ValueError(f"`log: true` needs a `min` above 0, not {low:g}")
    if log and step is not None:
        raise ValueError("`log` and `step` exclude each other")
    if step is not None and (high - low) / step > MAX_EXACT:
        raise ValueError(f"`step` ({step:g}) is too fine for the range from {low:g} to {high:g}")
