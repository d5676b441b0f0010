"""Internal errors as pages: with a number that is also in the log, and without details.

Runs inside of `SecurityMiddleware`, so that this page has the policy's headers as well; Starlette's
own handler runs outside of it.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.util.logs import REQUEST_ID, get_logger
from tunesvc.web.render import page

_log = get_logger(__name__)


def _page(request: Request, text: str) -> Response:
    return page(request, "error.html", 500, title="Internal error", text=text)


class ErrorMiddleware:
    """ASGI middleware around all routes. A response that has started is cut off instead.

    Args:
        app: The wrapped application.
        respond: Makes the response from the request and a text.
    """

    def __init__(
        self,
        app: ASGIApp,
        respond: Callable[[Request, str], Response] = _page,
    ) -> None:
        self._app = app
        self._respond = respond

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
            number = REQUEST_ID.get()
            _log.exception(
                "internal error %s: %s %s",
                number,
                scope["method"],
                scope.get("raw_path", b"").decode("latin-1"),  # escaped: it ends no line of the log
            )
            text = f"An internal error occurred. The server's log has details of error {number}."
            await self._respond(Request(scope), text)(scope, receive, send)
