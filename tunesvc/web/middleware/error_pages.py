"""A mistake of the program as a page: with a number that the log has too, and nothing of what went wrong.

Inside of `Guard`, so that this page keeps the policy as all others do; Starlette's own handler stands outside of it.
"""

from __future__ import annotations

import logging
import secrets

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.web.render import page

_log = logging.getLogger(__name__)


class ErrorMiddleware:
    """ASGI middleware around all routes. An answer that has begun is cut off instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if has_begun or scope["type"] != "http":
                raise
            number = secrets.token_hex(4)
            _log.exception("mistake %s: %s %s", number, scope["method"], scope["path"])
            text = f"The dashboard made a mistake. Its log, where it runs, says more of mistake {number}."
            await page(Request(scope), "error.html", 500, title="A mistake", text=text)(
                scope,
                receive,
                send,
            )
