"""The application of the API, to be mounted in that of the pages, whose state it shares."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesvc import __version__
from tunesvc.client.problems import MEDIA_TYPE, Problem
from tunesvc.client.remote.connection import API as API
from tunesvc.web.api import (
    account_routes,
    agent_routes,
    alert_routes,
    command_routes,
    insight_routes,
    service_routes,
    study_routes,
    submission_routes,
    trial_routes,
)
from tunesvc.web.api.api_document import document
from tunesvc.web.api.api_requests import NotModified, not_modified
from tunesvc.web.api.problem_details import add_handlers, internal_error
from tunesvc.web.middleware.error_pages import ErrorMiddleware
from tunesvc.web.reading import reading

ROUTES = (
    *(study_routes, trial_routes, insight_routes, command_routes, service_routes),
    *(submission_routes, account_routes, alert_routes, agent_routes),
)
"""Modules that each have a `router`."""


def make_api(state: State, body_max: int) -> FastAPI:
    """Return the API.

    Args:
        state: State of the application in which it is mounted.
        body_max: Most bytes of a request's body.
    """
    api = FastAPI(
        title="tunesvc",
        version=__version__,
        description="Studies, trials and requests of a tunesvc server.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(reading)],
        max_body_size=body_max,
        responses={"4XX": _PROBLEM, "503": _PROBLEM},
    )
    api.state = state
    api.openapi = lambda: document(api)  # type: ignore[method-assign]
    for module in ROUTES:
        api.include_router(module.router)
    add_handlers(api)
    api.add_exception_handler(NotModified, not_modified)
    api.add_middleware(ErrorMiddleware, respond=internal_error)
    api.add_middleware(EscapedPaths)
    return api


_PROBLEM: dict[str, Any] = {
    "description": "Problem details (RFC 9457), with the remedy in `detail`.",
    "model": Problem,
    "content": {MEDIA_TYPE: {}},
}


class EscapedPaths:
    """ASGI middleware that leaves paths escaped: a study's name may contain slashes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            escaped = scope["raw_path"].partition(b"?")[0].decode("latin-1")
            scope = {**scope, "path": escaped}
        await self._app(scope, receive, send)
