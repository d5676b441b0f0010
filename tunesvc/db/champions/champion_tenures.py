"""The tenures of a family's champions: each with the times that it stayed."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

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
    of_family = select_champions(scope).where(champions.c.family == family).subquery()
    number = of_family.c.champion_id
    promotions = sa.func.sum(sa.case((of_family.c.kind == "kept", 0), else_=1))
    numbered = sa.select(number, promotions.over(order_by=number).label("tenure")).subquery()
    first, last = sa.func.min(numbered.c.champion_id), sa.func.max(numbered.c.champion_id)
    bounds = (
        sa.select(first, last, sa.func.count() - 1)
        .group_by(numbered.c.tenure)
        .order_by(first.desc())
        .limit(limit)
    )
    found = connection.execute(bounds).all()
    ids = {champion_id for opened, latest, _ in found for champion_id in (opened, latest)}
    rows = connection.execute(sa.select(champions).where(champions.c.champion_id.in_(ids)))
    of_id = {row.champion_id: champion_of(row) for row in rows}
    return tuple(Tenure(of_id[opened], of_id[latest], stays) for opened, latest, stays in found)
