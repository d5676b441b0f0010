"""Every value that the API returns is read again as it was: all dataclasses, whatever they hold."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.specs import make_spec
from tunesvc.client.wire_format import decode, encode
from tunesvc.db.engine import json_numbers
from tunesvc.spec import Budget, Prices, StudySpec
from tunesvc.web.api.api_app import ROUTES

SPECS = [
    make_spec(),
    make_spec(
        description="ü 漢 \U0001f680",
        parameters={
            "x": {"type": "float", "min": 1e-9, "max": 1.0, "log": True},
            "layers": {"type": "categorical", "values": [[1, 2], [3], "none", None, True, 1.5]},
            "n": {"type": "int", "min": 1, "max": 2**53, "when": {"layers": ["none", None]}},
        },
        constants={"nested": {"list": [1, None, "x"]}},
        resources={"gpu": 0.5, "memory": "4GB", "custom": {"tpu": 1.0}},
        budget={"wall": "2h", "stop_when": {"improvement_below": 0.1}},
        sampler={"name": "gp", "seed": 3},
        pruner={"name": "patient", "patience": 3, "wrapped": {"name": "asha", "min": 1}},
    ),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
"""What JSON can hold. NaN stays text where a field may hold anything."""
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**62), 2**62),
    float: st.floats(),
    str: TEXT,
    type(None): st.none(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    Path: st.just(Path("/srv/a b/model.pt")),
    StudySpec: st.sampled_from(SPECS),
    Budget: st.sampled_from([spec.budget for spec in SPECS]),
    Prices: st.builds(Prices, gpu_hour=st.floats(0, 10), currency=st.sampled_from(["", "EUR"])),
    Any: ANY,
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a type, in the variety that its annotations allow."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return values_of(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        if set(arguments) == {bool, int, float, str, type(None)}:
            return SCALARS  # a parameter's value is finite
        return st.one_of(*map(values_of, arguments))
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin in (dict, collections.abc.Mapping):
        return st.dictionaries(*map(values_of, arguments), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    return _dataclasses_of(origin or kind, arguments)


def _dataclasses_of(kind: Any, arguments: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    (argument,) = arguments or (None,)
    fields = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if argument is not None and typing.get_args(hint)[:1] == kind.__parameters__:
            hint = tuple[argument, ...]  # type: ignore[valid-type]
        fields[field.name] = values_of(hint)
    return st.builds(kind, **fields)


def returned() -> Iterator[Any]:
    """Yield what the routes of the API return."""
    seen: set[str] = set()
    for module in ROUTES:
        for route in module.router.routes:
            kind = getattr(route, "response_model", None)
            if kind is not None and str(kind) not in seen:
                seen.add(str(kind))
                yield kind


def same(left: Any, right: Any) -> bool:
    """Compare values; NaN equals itself."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        pairs = [(getattr(left, name), getattr(right, name)) for name in names]
        return type(left) is type(right) and all(same(*pair) for pair in pairs)
    if isinstance(left, (tuple, list)):
        is_alike = type(left) is type(right) and len(left) == len(right)
        return is_alike and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right) and isinstance(right, type(left))


@pytest.mark.parametrize("kind", list(returned()), ids=str)
@settings(max_examples=4)
@given(data=st.data())
def test_what_is_returned_survives_the_way(kind: Any, data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert same(value, decode(kind, encode(value)))


def test_numbers_that_are_none_are_written_as_everywhere_else() -> None:
    values = [math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324]
    assert encode(values).decode() == json_numbers.dump(values).replace(", ", ",")
    assert same(values, decode(list[float], encode(values)))
