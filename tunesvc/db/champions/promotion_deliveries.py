"""Deliveries of promotions to hooks and registries: planned with the promotion, made afterwards.

Its hook's address is not stored here: it is the one that the study names when the delivery is made.
A begun delivery counts before it is made, so that its receiver can be told that an earlier one may
have arrived. Only the holder of the family's lock makes deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.schema.service_tables import champion_deliveries as table
from tunesvc.db.schema.service_tables import champions, watches
from tunesvc.db.submissions import FIRST_RETRY_S, LAST_RETRY_S

ATTEMPTS_MAX = 20
"""Attempts after which a server makes no other between two looks: nearly three hours."""


@dataclass(frozen=True, slots=True)
class PromotionDelivery:
    """A delivery of a promotion, made or due."""

    champion_id: int
    hook: str
    """One of `service_tables.HOOKS`."""
    attempts: int
    """Deliveries that were begun."""
    tried_at: datetime | None
    """Time at which the last one was begun."""
    delivered_at: datetime | None
    error: str
    """Error of the last attempt, or the reason of the cancellation; empty without one."""
    cancelled_at: datetime | None
    """Set if it is made no more."""


def plan(connection: sa.Connection, champion_id: int, hooks: Iterable[str]) -> None:
    """Plan the deliveries of a promotion, in its transaction.

    Cancels calls of `on_promote` for earlier champions of the family that are due: production must
    not get an older champion after a newer one. A registry still gets each.
    """
    family = sa.select(champions.c.family).where(champions.c.champion_id == champion_id)
    earlier = sa.select(champions.c.champion_id).where(
        champions.c.family == family.scalar_subquery(), champions.c.champion_id < champion_id
    )
    replaced = sa.update(table).where(
        table.c.hook == "on_promote", table.c.champion_id.in_(earlier), _is_due()
    )
    connection.execute(_cancelled(replaced, f"champion {champion_id} has replaced it"))
    for hook in hooks:
        connection.execute(sa.insert(table).values(champion_id=champion_id, hook=hook))


def last_planned(connection: sa.Connection, family: str) -> tuple[str, ...]:
    """Return the hooks of the last promotion of a family that had any."""
    planned = list_deliveries(connection, family)
    return tuple(one.hook for one in planned if one.champion_id == planned[-1].champion_id)


def list_deliveries(
    connection: sa.Connection, family: str, *, due: bool = False, since: int = 0
) -> tuple[PromotionDelivery, ...]:
    """Return the deliveries of a family, the oldest first; with `due` those to be made.

    With `since`, those of this champion and later ones, and all that are to be made.
    """
    query = (
        sa.select(table)
        .join(champions, champions.c.champion_id == table.c.champion_id)
        .where(champions.c.family == family, sa.or_(table.c.champion_id >= since, _is_due()))
        .order_by(table.c.champion_id, table.c.hook)
    )
    if due:
        query = query.where(_is_due())
    return tuple(PromotionDelivery(**row._mapping) for row in connection.execute(query))


def list_due_families(connection: sa.Connection) -> Sequence[str]:
    """Return the families that servers watch with a delivery to be made now.

    A delivery that has failed is tried again later, each time less soon, and after `ATTEMPTS_MAX`
    only by the next look.
    """
    delay_s = sa.func.least(FIRST_RETRY_S * sa.func.power(2, table.c.attempts - 1), LAST_RETRY_S)
    next_at = table.c.tried_at + sa.func.make_interval(0, 0, 0, 0, 0, 0, delay_s)
    may_be_tried = sa.func.coalesce(next_at <= sa.func.now(), True)
    query = (
        sa.select(champions.c.family)
        .join(table, champions.c.champion_id == table.c.champion_id)
        .join(watches, watches.c.family == champions.c.family)
        .where(_is_due(), table.c.attempts < ATTEMPTS_MAX, may_be_tried)
        # not of a watch that was stopped
        .where(sa.or_(watches.c.look_at.is_not(None), watches.c.problem == ""))
        .distinct()
    )
    return connection.execute(query).scalars().all()


def begin(connection: sa.Connection, delivery: PromotionDelivery) -> int | None:
    """Count an attempt; return its number, from 1, or None if the delivery was cancelled."""
    change = _of(delivery).where(table.c.cancelled_at.is_(None))
    count = {"attempts": table.c.attempts + 1, "tried_at": sa.func.now()}
    counted = change.values(count).returning(table.c.attempts)
    attempt: int | None = connection.execute(counted).scalar()
    return attempt


def cancel(connection: sa.Connection, delivery: PromotionDelivery, reason: str) -> None:
    """Cancel a delivery that is due."""
    connection.execute(_cancelled(_of(delivery).where(_is_due()), reason))


def finish(connection: sa.Connection, delivery: PromotionDelivery, error: str) -> None:
    """Record that an attempt succeeded, or its error."""
    made = {"delivered_at": None if error else sa.func.now(), "error": error}
    connection.execute(_of(delivery).values(made))


def _of(delivery: PromotionDelivery) -> sa.Update:
    return sa.update(table).where(
        table.c.champion_id == delivery.champion_id, table.c.hook == delivery.hook
    )


def _is_due() -> sa.ColumnElement[bool]:
    return sa.and_(table.c.delivered_at.is_(None), table.c.cancelled_at.is_(None))


def _cancelled(change: sa.Update, reason: str) -> sa.Update:
    return change.values(cancelled_at=sa.func.now(), error=reason)
