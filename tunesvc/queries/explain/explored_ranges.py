"""Explored parts of parameter ranges.

For each part, looks up in an index if any trial lies in it, so the cost does not grow with trials.
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunesvc.db.engine.database import Database


def count_tried_parts(
    database: Database,
    study_id: int,
    name: str,
    distribution: BaseDistribution,
    parts: int,
) -> int:
    """Count the parts of a parameter's range in which it was tried.

    The range is divided into `parts` equal parts on the parameter's scale. Choices are one part.
    """
    inner: list[float] = []
    if not isinstance(distribution, CategoricalDistribution):
        inner = _inner_ends(distribution, parts)
    ends = [-math.inf, *inner, math.inf]
    bound = {"lows": ends[:-1], "highs": ends[1:], "study": study_id, "name": name}
    ((count,),) = database.rows(_COUNT_PARTS, bound)
    return int(count)


_COUNT_PARTS = sa.text(
    """
    SELECT count(*)
    FROM unnest(CAST(:lows AS float8[]), CAST(:highs AS float8[])) AS part (low, high)
    WHERE EXISTS (SELECT 1 FROM trial_params
                  WHERE trial_id >> 32 = :study AND name = :name
                    AND value >= low AND value < high)
    """
)


def _inner_ends(distribution: BaseDistribution, parts: int) -> list[float]:
    """Return the bounds between neighbouring parts."""
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    shares = [i / parts for i in range(1, parts)]
    if low == high:
        return []
    if distribution.log:  # type: ignore[attr-defined]
        return [low * (high / low) ** share for share in shares]
    return [low + (high - low) * share for share in shares]
