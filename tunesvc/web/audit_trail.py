"""Audits requests: an entry before each is carried out, and its outcome before it is answered."""

from __future__ import annotations

from contextlib import suppress

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.people import audit_log
from tunesvc.errors import DatabaseUnavailable

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ENTRY = "audit_id"


def begin(request: Request, user_name: str, token_id: int | None = None) -> None:
    """Write the entry of a request that may change something; the first call counts."""
    if request.method in _READING or getattr(request.state, _ENTRY, None) is not None:
        return
    route = getattr(request.scope.get("route"), "path", "")
    request.state.audit_id = audit_log.begin(
        request.app.state.database,
        user_name,
        f"{request.method} {route}",
        request.url.path,
        address=address_of(request),
        token_id=token_id,
    )


def record_sign_in(
    request: Request,
    user_name: str,
    outcome: int,
    token_id: int | None = None,
) -> None:
    """Write the entry of an attempt to sign in; the user's name is empty if it failed."""
    audit_log.begin(
        request.app.state.database,
        user_name,
        "sign in",
        address=address_of(request),
        token_id=token_id,
        outcome=outcome,
    )


def address_of(request: Request) -> str:
    """Return the address from which a request comes; empty if it is unknown."""
    return "" if request.client is None else request.client.host


class AuditMiddleware:
    """ASGI middleware that completes entries. Runs outside of all handlers of errors.

    Args:
        app: The wrapped application.
        database: Database with the entries.
    """

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Mounted applications share this state.
        state = scope.setdefault("state", {})

        async def complete_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and _ENTRY in state:
                await run_in_threadpool(self._complete, state.pop(_ENTRY), message["status"])
            await send(message)

        await self._app(scope, receive, complete_and_send)

    def _complete(self, audit_id: int, status: int) -> None:
        # The request has been carried out: its answer is worth more than the outcome here.
        with suppress(DatabaseUnavailable), translate_unavailable():
            audit_log.complete(self._database, audit_id, status)
