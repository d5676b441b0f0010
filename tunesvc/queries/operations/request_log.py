"""Who asked what of a study, when, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import commands
from tunesvc.queries.rows import RequestRow
from tunesvc.util import formatting


def list_requests(
    database: Database,
    study_id: int,
    *,
    before: int | None = None,
    limit: int = 100,
) -> tuple[RequestRow, ...]:
    """What was asked, the newest first.

    Args:
        database: where to read.
        study_id: of which study.
        before: the last `command_id` of the page before.
        limit: at most so many.
    """
    table = commands
    query = sa.select(
        *(
            table.c.command_id,
            table.c.kind,
            table.c.payload,
            table.c.asked_by,
            table.c.asked_at,
        ),
        *(table.c.done_at, table.c.answer),
    ).where(table.c.study_id == study_id)
    if before is not None:
        query = query.where(table.c.command_id < before)
    with database.engine.connect() as connection:
        rows = connection.execute(
            query.order_by(table.c.command_id.desc()).limit(limit),
        ).all()
    return tuple(_row(row) for row in rows)


def _row(row: Any) -> RequestRow:
    return RequestRow(
        command_id=row.command_id,
        kind=row.kind,
        text=describe(row.kind, row.payload),
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        done_at=row.done_at,
        answer=row.answer or "",
    )


def describe(kind: str, payload: Mapping[str, Any]) -> str:
    """A request in words."""
    number = payload.get("number")
    match kind:
        case "extend":
            return f"extend by {', '.join(_more(name, amount) for name, amount in payload.items())}"
        case "parallelism":
            return f"run {payload.get('trials') or 'as many trials as fit'} at a time"
        case "widen":
            return f"widen {'; '.join(_wider(name, change) for name, change in payload.get('parameters', {}).items())}"
        case "enqueue" if "near" in payload:
            return f"try near trial {payload['near']}"
        case "enqueue":
            return f"enqueue {formatting.parameters(payload.get('params', {})) or 'a trial'}"
        case "retry" | "stop_trial":
            return f"{kind.removesuffix('_trial')} trial {number}"
        case "tag":
            changes = [f"+{one}" for one in payload.get("add", ())] + [f"-{one}" for one in payload.get("remove", ())]
            return f"tag {_what(number)}: {' '.join(changes)}"
        case "note":
            return f"note of {_what(number)}: {payload.get('note') or '(none)'}"
    return kind


def _what(number: int | None) -> str:
    return "the study" if number is None else f"trial {number}"


def _more(name: str, amount: Any) -> str:
    if name == "wall" and isinstance(amount, (int, float)):
        return f"{formatting.duration(amount)} of wall time"
    return f"{amount} {name.replace('gpu_hours', 'GPU hours')}"


def _wider(name: str, change: Any) -> str:
    if not isinstance(change, Mapping):
        return str(name)
    if "values" in change:
        return f"{name} by {', '.join(map(str, change['values']))}"
    return f"{name} to {formatting.parameter(change.get('min', ''))}…{formatting.parameter(change.get('max', ''))}"
