"""Deliveries of promotions to hooks and registries: planned with the promotion, made afterwards.

A begun delivery counts before it is made, so that its receiver can be told that an earlier one may
have arrived. Only the holder of the family's lock makes deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.schema.service_tables import champion_deliveries as table
from tunesvc.db.schema.service_tables import champions


@dataclass(frozen=True, slots=True)
class PromotionDelivery:
    """A delivery of a promotion, made or due."""

    champion_id: int
    hook: str
    """One of `service_tables.HOOKS`."""
    address: str
    """A command, a URL, or the name of a registry."""
    folder: str
    attempts: int
    """Deliveries that were begun."""
    delivered_at: datetime | None
    error: str
    """Error of the last attempt; empty if it has none."""

    def __repr__(self) -> str:
        return f"PromotionDelivery({self.champion_id}, {self.hook!r})"  # without the address


def plan(
    connection: sa.Connection, champion_id: int, hooks: Mapping[str, str], folder: str
) -> None:
    """Plan the deliveries of a promotion, in its transaction."""
    for hook, address in hooks.items():
        row = {"champion_id": champion_id, "hook": hook, "address": address, "folder": folder}
        connection.execute(sa.insert(table).values(row))


def plan_as_before(connection: sa.Connection, champion_id: int, previous_id: int | None) -> None:
    """Plan the deliveries that the last planned promotion of the family had."""
    if previous_id is None:
        return
    family = sa.select(champions.c.family).where(champions.c.champion_id == previous_id)
    last = (
        sa.select(sa.func.max(table.c.champion_id))
        .join(champions, champions.c.champion_id == table.c.champion_id)
        .where(champions.c.family == family.scalar_subquery())
        .scalar_subquery()
    )
    copied = sa.select(
        sa.literal(champion_id), table.c.hook, table.c.address, table.c.folder
    ).where(table.c.champion_id == last)
    columns = ["champion_id", "hook", "address", "folder"]
    connection.execute(sa.insert(table).from_select(columns, copied))


def list_deliveries(
    connection: sa.Connection, family: str, *, due: bool = False
) -> tuple[PromotionDelivery, ...]:
    """Return the deliveries of a family, the oldest first; with `due` those that are not made."""
    query = (
        sa.select(table)
        .join(champions, champions.c.champion_id == table.c.champion_id)
        .where(champions.c.family == family)
        .order_by(table.c.champion_id, table.c.hook)
    )
    if due:
        query = query.where(table.c.delivered_at.is_(None))
    return tuple(PromotionDelivery(**row._mapping) for row in connection.execute(query))


def begin(connection: sa.Connection, delivery: PromotionDelivery) -> int:
    """Count an attempt; return its number, from 1."""
    change = _of(delivery).values(attempts=table.c.attempts + 1).returning(table.c.attempts)
    return int(connection.execute(change).scalar_one())


def finish(connection: sa.Connection, delivery: PromotionDelivery, error: str) -> None:
    """Record that an attempt succeeded, or its error."""
    made = {"delivered_at": None if error else sa.func.now(), "error": error}
    connection.execute(_of(delivery).values(made))


def _of(delivery: PromotionDelivery) -> sa.Update:
    return sa.update(table).where(
        table.c.champion_id == delivery.champion_id, table.c.hook == delivery.hook
    )
