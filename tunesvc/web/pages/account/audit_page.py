"""The audit log, for administrators: a page, and a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from tunesvc.client.wire_format import encode
from tunesvc.queries.operations.audit_entries import iterate_audit, list_audit
from tunesvc.web.access import Administrator
from tunesvc.web.render import attachment, page

router = APIRouter(prefix="/audit")

SHOWN = 100

UserName = Annotated[str, Query(max_length=400)]


@router.get("", name="audit_page")
def audit_page(
    request: Request,
    _: Administrator,
    user: UserName = "",
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> HTMLResponse:
    """Render the page."""
    database = request.app.state.database
    entries = list_audit(database, user_name=user or None, before=before, limit=SHOWN + 1)
    return page(
        request,
        "audit.html",
        entries=entries[:SHOWN],
        before=entries[SHOWN - 1].audit_id if len(entries) > SHOWN else None,
        user_name=user,
    )


@router.get("/audit.jsonl", name="audit_file")
def audit_file(request: Request, _: Administrator, user: UserName = "") -> StreamingResponse:
    """Return the whole log as JSON lines."""
    entries = iterate_audit(request.app.state.database, user or None)
    lines = (encode(entry) + b"\n" for entry in entries)
    return StreamingResponse(lines, 200, attachment("audit", ".jsonl"), "application/jsonl")
