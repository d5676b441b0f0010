"""Parameters and constants, derived from the configurations that were tried. Pure."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension

_OBJECT = re.compile(r"<.* at 0x[0-9a-f]+>")
"""Form in which Ray writes what JSON cannot hold."""
_LOG_RATIO = 10
"""Least ratio of the ends of a logarithmic range."""


def split(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Dimension], dict[str, Any], list[str]]:
    """Return parameters, constants, and the names of what holds objects of Python.

    A value that is the same in all configurations is a constant.
    """
    parameters, constants, objects = {}, {}, []
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [config[name] for config in configs if name in config]
        distinct = list({_key(value): value for value in values}.values())
        if any(map(_is_object, distinct)):
            objects.append(name)
        elif len(distinct) == 1:
            constants[name] = distinct[0]
        else:
            parameters[name] = _dimension(values, distinct)
    return parameters, constants, objects


def widened(given: Dimension, tried: Sequence[Any]) -> Dimension:
    """Return a parameter that holds all that was tried, too; a choice is its values."""
    if "values" in given:
        known = {_key(value): value for value in [*given["values"], *tried]}
        return dimensions.among(list(known.values()))
    numbers = [value for value in tried if _is_number(value)]
    low, high = min([given["min"], *numbers]), max([given["max"], *numbers])
    is_whole = given["type"] == "int" and all(isinstance(value, int) for value in numbers)
    make = dimensions.whole if is_whole else dimensions.real
    return make(low, high, log=bool(given.get("log")) and low > 0)


def _dimension(values: Sequence[Any], distinct: Sequence[Any]) -> Dimension:
    if not all(_is_number(value) for value in distinct):
        return dimensions.among(_sorted(distinct))
    recurs = len(distinct) * 2 <= len(values)
    is_whole = all(isinstance(value, int) for value in distinct)
    low, high = min(distinct), max(distinct)
    if recurs and not (is_whole and high - low < 2 * len(distinct)):
        return dimensions.among(_sorted(distinct))
    log = _is_log(values, low, high)
    if is_whole:
        return dimensions.whole(low, high, log=log)
    return dimensions.real(_rounded(low, ROUND_FLOOR), _rounded(high, ROUND_CEILING), log=log)


def _is_log(values: Sequence[float], low: float, high: float) -> bool:
    """Return True if the median is nearer to the middle of a logarithmic range."""
    if low <= 0 or high < low * _LOG_RATIO:
        return False
    median = statistics.median(values)
    on_log = math.log(median / low) / math.log(high / low)
    return abs(on_log - 0.5) < abs((median - low) / (high - low) - 0.5)


def _rounded(value: float, rounding: str) -> float:
    """Return an end of a range with two digits, moved outwards."""
    exact = Decimal(str(value))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding))


def _sorted(values: Sequence[Any]) -> list[Any]:
    """Return numbers by size, and anything else as it came."""
    return sorted(values, key=lambda value: value if _is_number(value) else 0)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def _is_object(value: object) -> bool:
    is_pickled = isinstance(value, Mapping) and "_type" in value
    return is_pickled or (isinstance(value, str) and _OBJECT.search(value) is not None)


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True)
