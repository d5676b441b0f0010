"""Internal errors as pages: with a number that is also in the log, and without details.

Runs inside of `SecurityMiddleware`, so that this page has the policy's headers as well; Starlette's
own handler runs outside of it.
"""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.util.logs import get_logger
from tunesvc.web.render import page

_log = get_logger(__name__)


class ErrorMiddleware:
    """ASGI middleware around all routes. A response that has started is cut off instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if has_started or scope["type"] != "http":
                raise
            number = secrets.token_hex(4)
            _log.exception(
                "internal error %s: %s %s",
                number,
                scope["method"],
                scope["path"],
            )
            text = f"An internal error occurred. The dashboard's log has details of error {number}."
            response = page(
                Request(scope),
                "error.html",
                500,
                title="Internal error",
                text=text,
            )
            await response(scope, receive, send)
