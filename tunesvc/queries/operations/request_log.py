"""Log of the requests to a study, with their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import commands
from tunesvc.queries.rows import RequestRow, from_row
from tunesvc.util import formatting


def list_requests(
    database: Database,
    study_id: int,
    *,
    before: int | None = None,
    limit: int = 100,
) -> tuple[RequestRow, ...]:
    """Return requests, the newest first.

    Args:
        database: Database to read.
        study_id: Study of the requests.
        before: Last `command_id` of the previous page.
        limit: Most requests to return.
    """
    columns = commands.c
    query = sa.select(*_COLUMNS).where(columns.study_id == study_id)
    if before is not None:
        query = query.where(columns.command_id < before)
    query = query.order_by(columns.command_id.desc()).limit(limit)
    return tuple(_row(row) for row in database.rows(query))


def get_request(database: Database, command_id: int) -> RequestRow | None:
    """Return one request; None if its study was deleted."""
    rows = database.rows(sa.select(*_COLUMNS).where(commands.c.command_id == command_id))
    return _row(rows[0]) if rows else None


_COLUMNS = (
    commands.c.command_id,
    commands.c.kind,
    commands.c.payload,
    commands.c.asked_by,
    commands.c.asked_at,
    commands.c.done_at,
    commands.c.answer,
)


def _row(row: Any) -> RequestRow:
    text = describe(row.kind, row.payload)
    return from_row(RequestRow, row, text=text, answer=row.answer or "")


def describe(kind: str, payload: Mapping[str, Any]) -> str:
    """Describe a request in words."""
    number = payload.get("number")
    match kind:
        case "extend":
            amounts = [_describe_amount(name, amount) for name, amount in payload.items()]
            return f"extend by {', '.join(amounts)}"
        case "parallelism":
            return f"run {payload.get('trials') or 'as many trials as fit'} at a time"
        case "widen":
            changes = payload.get("parameters", {}).items()
            return f"widen {'; '.join(_describe_change(name, change) for name, change in changes)}"
        case "enqueue" if "near" in payload:
            return f"try near trial {payload['near']}"
        case "enqueue":
            return f"enqueue {formatting.parameters(payload.get('params', {})) or 'a trial'}"
        case "retry" | "stop_trial":
            return f"{kind.removesuffix('_trial')} trial {number}"
        case "promote":
            return f"make trial {number} the champion of {payload.get('family')}"
        case "rollback":
            return f"restore champion {payload.get('champion')} of {payload.get('family')}"
        case "priority":
            return f"priority {payload.get('priority')}"
        case "tag":
            added = [f"+{tag}" for tag in payload.get("add", ())]
            removed = [f"-{tag}" for tag in payload.get("remove", ())]
            return f"tag {_describe_target(number)}: {' '.join(added + removed)}"
        case "note":
            return f"note of {_describe_target(number)}: {payload.get('note') or '(none)'}"
    return kind


def _describe_target(number: int | None) -> str:
    return "the study" if number is None else f"trial {number}"


def _describe_amount(name: str, amount: Any) -> str:
    if name == "wall" and isinstance(amount, (int, float)):
        return f"{formatting.duration(amount)} of wall time"
    if name == "cost":
        return f"{amount} of cost"
    return f"{amount} {name.replace('gpu_hours', 'GPU hours')}"


def _describe_change(name: str, change: Any) -> str:
    if not isinstance(change, Mapping):
        return str(name)
    if "values" in change:
        return f"{name} by {', '.join(map(str, change['values']))}"
    low = change.get("min", "")
    high = change.get("max", "")
    return f"{name} to {formatting.parameter(low)}…{formatting.parameter(high)}"
