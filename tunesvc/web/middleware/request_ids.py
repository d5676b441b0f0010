"""Gives each request an id: in the answer, in log records, and in problem details.

A proxy's `X-Request-ID` is kept; `ProxyMiddleware` has dropped that of all other clients.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.util.logs import REQUEST_ID

HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9_.:+/=-]{1,128}")


class RequestIdMiddleware:
    """ASGI middleware around all of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)
