"""Overrides of Hydra that have several values, as its Optuna sweeper reads them.

Its ranges include their end, other than those of Hydra's basic sweeper.
"""

from __future__ import annotations

import re
from typing import Any

from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import Dimension
from tunesvc.foreign.section import Section
from tunesvc.spec.yaml import scalars

_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_TAG = re.compile(r"tag\((?:(\w+)\s*,\s*)?(.*)\)", re.DOTALL)


def is_sweep(written: str) -> bool:
    """Return True for an override with several values."""
    return _CALL.fullmatch(written.strip()) is not None or "," in written


def sweep(params: Section, name: str, written: str) -> Dimension | None:
    """Return the parameter of `choice(...)`, `range(...)`, `interval(...)`, or of `a,b,c`."""
    tagged = _TAG.fullmatch(written)
    tag, inner = (tagged[1], tagged[2].strip()) if tagged else (None, written)
    found = _CALL.fullmatch(inner)
    kind, listed = (found[1], found[2]) if found else ("choice", inner)
    words = [word.strip() for word in listed.split(",")]
    named = dict(word.split("=", 1) for word in words if "=" in word)
    values: list[Any] = [scalars.resolve(w.strip("'\"")) for w in words if "=" not in w]
    if kind in ("choice", "shuffle"):
        return dimensions.among(values)
    values += [scalars.resolve(named[key]) for key in ("start", "stop", "step") if key in named]
    numbers = [value for value in values if isinstance(value, (int, float))]
    if kind == "interval" and len(numbers) == 2:
        return dimensions.number(*numbers, log=tag == "log")
    if kind == "range" and len(numbers) in (1, 2, 3):
        low, high, step = ([0, *numbers, 1] if len(numbers) == 1 else [*numbers, 1])[:3]
        whole = all(isinstance(number, int) for number in (low, high, step))
        return (dimensions.whole if whole else dimensions.real)(low, high, step=step)
    remedy = "write choice(a, b), range(1, 8), interval(0.1, 1.0) or tag(log, interval(1e-4, 1.0))"
    params.refuse(name, f"`{params.path(name)}` is `{written}`: {remedy}")
    return None


def distribution(one: Section) -> Dimension | None:
    """Return the parameter of an entry of `search_space`, the form before Hydra 1.2."""
    kind = one.take("type")
    if kind == "categorical":
        return dimensions.among(one.need("choices", "choices: [a, b]") or [])
    if kind not in ("int", "float"):
        one.refuse("type", f"`{one.path()}` has a type `{kind}`: write int, float or categorical")
        return None
    low, high = one.number("low"), one.number("high")
    step = one.number("step") if "step" in one else None
    if low is None or high is None:
        return None
    make = dimensions.whole if kind == "int" else dimensions.real
    return make(low, high, log=bool(one.take("log", False)), step=step)
