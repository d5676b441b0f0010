"""The tenures of a family's champions: each with the times that it stayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.champions.champion_records import Champion, champion_of, select_champions
from tunesvc.db.schema.service_tables import champions
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope


@dataclass(frozen=True, slots=True)
class Tenure:
    """The time of a champion, from its promotion to the next one."""

    promoted: Champion
    latest: Champion
    """The last row in which it stays; without one that of its promotion."""
    stays: int
    """Times that it beat a challenger."""


def list_tenures(
    connection: sa.Connection,
    family: str,
    scope: StudyScope = ALL_STUDIES,
    *,
    limit: int | None = None,
) -> tuple[Tenure, ...]:
    """Return the tenures of a family, the newest first; at most `limit`, by default all."""
    bounds = _query_bounds(select_champions(scope).where(champions.c.family == family))
    return _read(connection, bounds.order_by(sa.desc("first")).limit(limit))


def list_current_tenures(
    connection: sa.Connection, scope: StudyScope = ALL_STUDIES
) -> tuple[Tenure, ...]:
    """Return the tenure of each family's champion, by the family's name."""
    bounds = _query_bounds(select_champions(scope)).subquery()
    newest = (
        sa.select(bounds.c.first, bounds.c.last, bounds.c.stays)
        .ext(pg.distinct_on(bounds.c.family))
        .order_by(bounds.c.family, bounds.c.first.desc())
    )
    return _read(connection, newest)


def _query_bounds(rows: sa.Select[Any]) -> sa.Select[Any]:
    """Return the query of the first and last row of each tenure, and of its number of stays."""
    among = rows.subquery()
    number, family = among.c.champion_id, among.c.family
    promotions = sa.func.sum(sa.case((among.c.kind == "kept", 0), else_=1))
    tenure = promotions.over(partition_by=family, order_by=number).label("tenure")
    numbered = sa.select(number, family, tenure).subquery()
    return sa.select(
        sa.func.min(numbered.c.champion_id).label("first"),
        sa.func.max(numbered.c.champion_id).label("last"),
        (sa.func.count() - 1).label("stays"),
        numbered.c.family,
    ).group_by(numbered.c.family, numbered.c.tenure)


def _read(connection: sa.Connection, bounds: sa.Select[Any]) -> tuple[Tenure, ...]:
    found = [(row.first, row.last, row.stays) for row in connection.execute(bounds)]
    ids = {champion_id for opened, latest, _ in found for champion_id in (opened, latest)}
    rows = connection.execute(sa.select(champions).where(champions.c.champion_id.in_(ids)))
    of_id = {row.champion_id: champion_of(row) for row in rows}
    return tuple(Tenure(of_id[opened], of_id[latest], stays) for opened, latest, stays in found)
