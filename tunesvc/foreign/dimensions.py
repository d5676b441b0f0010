"""Parameters as study.yaml writes them, from what other tuners call distributions. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

Dimension = dict[str, Any]


def real(low: float, high: float, *, log: bool = False, step: float | None = None) -> Dimension:
    """Return a real parameter."""
    made: Dimension = {"type": "float", "min": float(low), "max": float(high)}
    return made | ({"log": True} if log else {}) | ({"step": float(step)} if step else {})


def whole(low: float, high: float, *, log: bool = False, step: float | None = None) -> Dimension:
    """Return a whole parameter, whose ends are both included."""
    made: Dimension = {"type": "int", "min": math.ceil(low), "max": math.floor(high)}
    stepped = step is not None and step > 1
    return made | ({"log": True} if log else {}) | ({"step": int(step or 1)} if stepped else {})


def number(low: float, high: float, *, log: bool = False) -> Dimension:
    """Return a whole parameter if both ends are whole numbers, otherwise a real one."""
    both_whole = isinstance(low, int) and isinstance(high, int)
    return whole(low, high, log=log) if both_whole else real(low, high, log=log)


def multiples(low: float, high: float, step: float) -> Dimension:
    """Return a parameter of the multiples of `step` in a range, as `q` distributions draw them."""
    quantum = Decimal(str(step))
    first = (Decimal(str(low)) / quantum).to_integral_value(ROUND_CEILING) * quantum
    last = (Decimal(str(high)) / quantum).to_integral_value(ROUND_FLOOR) * quantum
    if quantum == quantum.to_integral_value():
        return whole(int(first), int(last), step=int(quantum))
    return real(float(first), float(last), step=step)


def among(values: Sequence[Any]) -> Dimension:
    """Return a choice."""
    return {"values": list(values)}


def when(dimension: Dimension, parent: str, value: Any) -> Dimension:
    """Return a parameter that exists only if another one has a value."""
    return {**dimension, "when": {**dimension.get("when", {}), parent: value}}


def size(dimension: Dimension) -> int | None:
    """Return the number of values; None for a range of real numbers."""
    if "values" in dimension:
        return len(dimension["values"])
    step = dimension.get("step", 1 if dimension["type"] == "int" else None)
    return None if step is None else int((dimension["max"] - dimension["min"]) / step + 1e-9) + 1


def bounded(mean: float | None, deviation: float | None, *, is_log: bool = False) -> str:
    """Return the remedy for a distribution without bounds: a range of three deviations."""
    if mean is None or deviation is None:
        return "it has no bounds, which samplers here need: write a range instead"
    # 0.3 - 3 * 0.1 is not 0; and adding 0 turns -0 into 0.
    low, high = (round(mean + way * deviation, 12) + 0.0 for way in (-3, 3))
    if is_log:
        low, high = math.exp(low), math.exp(high)
    scale = "a logarithmic range" if is_log else "a range"
    return f"it has no bounds, which samplers here need: write {scale} such as {low:g} to {high:g}"


LOG_STEPS = (
    "it rounds on a logarithmic scale, which no sampler here does: leave the rounding to the"
    " program, or list the values"
)
