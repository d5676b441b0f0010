"""Types of the values in a spec, and the base of its pieces."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Strict,
    Tag,
)

from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.text import MAX_NAME, check_json, check_name, check_text
from tunesvc.spec.units import parse_bytes, parse_duration_s

T = TypeVar("T")

Scalar = bool | int | float | str | None

ParamValue = Scalar

MAX_EXACT = 2**53
"""Optuna and the database store a parameter as a double, which is exact for integers up to here."""


def _scalar(value: object) -> object:
    if not isinstance(value, Scalar):
        # pydantic reports ValueError only
        raise ValueError("must be text, a number, true, false or null")  # noqa: TRY004
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"needs a finite number, found {value}")
    return value


def _choice(value: object) -> object:
    """Check one value of a categorical parameter; lists become tuples at every level."""
    if isinstance(value, (list, tuple)):
        return tuple(_choice(item) for item in value)
    if not isinstance(value, Scalar):
        text = "must be text, a number, true, false, null or a list of those"
        raise ValueError(text)  # noqa: TRY004 as above
    checked = _scalar(value)
    return check_text(checked) if isinstance(checked, str) else checked


def as_choice(value: Any) -> Scalar:
    """Return the scalar that the search uses for a choice: a list's JSON text. See
    `spec.choices`."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _json(value: JsonValue) -> JsonValue:
    check_json(value)
    return value


Text = Annotated[str, AfterValidator(check_text)]
"""Text that the database can hold."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(check_name)]
"""Text that can be listed and typed: no control characters, no bidirectional overrides."""

Value = Annotated[bool | int | float | Text | None, BeforeValidator(_scalar)]
"""A scalar that JSON and the database can hold."""

Choice = Annotated[bool | int | float | str | tuple[Any, ...] | None, BeforeValidator(_choice)]
"""A scalar, or a list of choices."""

Json = Annotated[JsonValue, AfterValidator(_json)]

Tuple = Annotated[tuple[T, ...], Strict(False)]
"""A tuple that may be given as a list."""

Frozen = Annotated[Mapping[Name, T], AfterValidator(FrozenDict)]
"""A mapping from names that cannot be changed."""

Duration = Annotated[float, BeforeValidator(parse_duration_s), Field(gt=0)]
"""Seconds; written as a number of seconds or as `90s`, `15m`, `12h`, `3d`, `1h30m`."""

Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
"""Bytes; written as a number of bytes or as `512MB`, `4GB`, `1.5GiB`."""


class SpecModel(BaseModel):
    """A piece of the spec: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )


def text_or(other: str, *types: type) -> Discriminator:
    """Select by its type the form in which a value is written, so that errors are about that."""
    return Discriminator(lambda written: other if isinstance(written, types) else "text")


WrittenText = Annotated[str, Field(min_length=1), AfterValidator(check_text), Tag("text")]
