"""Values as JSON: the dataclasses of `queries`, as the API sends them and clients read them.

NaN and infinities are the strings `NaN`, `Infinity` and `-Infinity`. Where a field holds any value,
such as an attribute of a trial, they stay strings for the reader.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Return a value as JSON."""
    return to_json(value, inf_nan_mode="strings", fallback=_plain)


def decode(kind: type[T], body: bytes | str) -> T:
    """Read a value of a type, such as `StudyView` or `RowPage[TrialRow]`.

    Raises:
        pydantic.ValidationError: it is no such value.
    """
    read: T = _adapter(kind).validate_json(body)  # type: ignore[arg-type]  # types are hashable
    return read


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _plain(value: Any) -> Any:
    """Return the plain value of one of NumPy's scalars."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")
