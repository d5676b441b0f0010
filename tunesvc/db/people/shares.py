"""Weights and limits of projects and users, by which they share a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import sqlalchemy as sa

from tunesvc.db.schema.service_tables import projects, users
from tunesvc.errors import AccountNotFound, SpecError
from tunesvc.util.suggestions import suggest

PartyKind = Literal["project", "user"]
LIMITS = ("gpus", "trials", "gpu_hours", "cost")
PRICES = ("cost_per_gpu_hour", "cost_per_cpu_hour")
_TABLES = {"project": projects, "user": users}


def set_share(
    connection: sa.Connection,
    kind: PartyKind,
    name: str,
    *,
    weight: float | None = None,
    limits: Mapping[str, float | None] | None = None,
) -> dict[str, float]:
    """Change the weight and limits of a project or user; return its limits. Repeatable.

    Args:
        connection: transaction of the change.
        kind: what `name` names.
        name: the project or user.
        weight: None leaves it as it is.
        limits: values by name, one of `LIMITS` or `PRICES`; None removes one.

    Raises:
        AccountNotFound: there is no such project or user.
        SpecError: a limit does not exist, or a value cannot be one.
    """
    table = _TABLES[kind]
    query = sa.select(table.c.limits).where(table.c.name == name.replace("\0", ""))
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise AccountNotFound(f"there is no {kind} {name!r}: `tune {kind} list` lists them")
    changed: dict[str, float] = dict(row.limits)
    for limit, value in (limits or {}).items():
        _check(limit, value)
        if value is None:
            changed.pop(limit, None)
        else:
            changed[limit] = value
    values: dict[str, object] = {"limits": changed}
    if weight is not None:
        if not 0 < weight < math.inf:
            raise SpecError(f"the weight of a {kind} is a positive number, not {weight:g}")
        values["weight"] = weight
    connection.execute(sa.update(table).where(table.c.name == name).values(values))
    return changed


def _check(limit: str, value: float | None) -> None:
    known = (*LIMITS, *PRICES)
    if limit not in known:
        hint = suggest(limit, known, otherwise=f": choose from {', '.join(known)}")
        raise SpecError(f"there is no limit {limit!r}{hint}")
    if value is not None and not 0 <= value < math.inf:
        raise SpecError(f"{limit} is a number from 0 on, not {value:g}")
