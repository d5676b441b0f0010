"""One exact value for each step of a stepped number, and for each bound of a range.

Steps are computed in decimals, as people write them. `0.1 + 2 * 0.1` is 0.30000000000000004 in
binary; the step that a study file calls 0.3 is 0.3. All code that accepts a value rounds it here,
so that a step has one value in validation, conditions, filters, storage and samplers.
"""

from __future__ import annotations

import math
from decimal import Decimal

TOLERANCE = 1e-8
"""Fraction of a step by which a value may miss it: Optuna's own tolerance."""


_ROUNDING = 1e-12
"""Fraction of a bound by which a value computed through logarithms may miss it."""


def nearest_step(value: float, low: float, step: float) -> float:
    """Return the step nearest to a value, counted from `low`; it may be outside the range."""
    first, width = Decimal(str(low)), Decimal(str(step))
    index = round((Decimal(str(value)) - first) / width)
    return float(first + index * width)


def snap_to_bounds(value: float, low: float, high: float) -> float:
    """Return the bound if a value misses it by rounding, as `exp(log(low))` does; otherwise the
    value."""
    nearest = min((low, high), key=lambda bound: abs(value - bound))
    return nearest if math.isclose(value, nearest, rel_tol=_ROUNDING) else value


def step_at(value: float, low: float, step: float) -> float | None:
    """Return the step that a value means; None if it is between two steps."""
    if not math.isfinite(value):
        return None
    nearest = nearest_step(value, low, step)
    slack = max(TOLERANCE * step, 4 * math.ulp(max(abs(value), abs(low))))
    return nearest if abs(value - nearest) <= slack else None
