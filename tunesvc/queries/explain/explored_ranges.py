"""Which parts of its parameters' ranges a study has tried. Asks of each part whether there is any trial in it, which an
index knows at once, however many there are.
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunesvc.db.engine.database import Database


def parts_tried(database: Database, study_id: int, name: str, distribution: BaseDistribution, parts: int) -> int:
    """In how many of so many equal parts of its range, on its scale, a parameter was tried; of choices 1 if at all."""
    inner = [] if isinstance(distribution, CategoricalDistribution) else _inner_ends(distribution, parts)
    ends = [-math.inf, *inner, math.inf]
    given = {"lows": ends[:-1], "highs": ends[1:], "study": study_id, "name": name}
    with database.engine.connect() as connection:
        found: int = connection.execute(_PARTS, given).scalar_one()
    return found


_PARTS = sa.text(
    """
    SELECT count(*) FROM unnest(CAST(:lows AS float8[]), CAST(:highs AS float8[])) AS part (low, high)
    WHERE EXISTS (SELECT 1 FROM trial_params
                  WHERE trial_id >> 32 = :study AND name = :name AND value >= low AND value < high)
    """
)


def _inner_ends(distribution: BaseDistribution, parts: int) -> list[float]:
    """Where one part ends and the next begins."""
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    shares = [i / parts for i in range(1, parts)]
    if low == high:
        return []
    if distribution.log:  # type: ignore[attr-defined]
        return [low * (high / low) ** share for share in shares]
    return [low + (high - low) * share for share in shares]
