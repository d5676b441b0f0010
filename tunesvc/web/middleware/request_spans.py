"""Requests of the API as OpenTelemetry spans. Installed only if traces are exported."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesvc.util.logs import REQUEST_ID


def trace_requests(api: FastAPI, tracer: Any) -> None:
    """Emit a span for each request of an application, before its first one."""
    # The innermost one: others copy the scope, in which the route is noted.
    api.user_middleware.append(Middleware(RequestSpanMiddleware, tracer=tracer))


class RequestSpanMiddleware:
    """ASGI middleware around the API.

    Args:
        app: The wrapped application.
        tracer: A tracer of OpenTelemetry.
    """

    def __init__(self, app: ASGIApp, tracer: Any) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        span = self._tracer.start_span(scope["method"])
        span.set_attribute("http.request.method", scope["method"])
        span.set_attribute("tunesvc.request", REQUEST_ID.get() or "")

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            if (route := scope.get("route")) is not None:  # the path may hold names
                span.update_name(f"{scope['method']} {route.path}")
                span.set_attribute("http.route", route.path)
            span.end()
