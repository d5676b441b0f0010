"""Addresses by which a process manager checks a server, and Prometheus reads it.

The checks need no account; the metrics need a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from tunesvc.web.access import Viewer


def probe_router(
    find_problems: Callable[[], Sequence[str]],
    metrics: Callable[[], bytes] | None = None,
) -> APIRouter:
    """Return the routes.

    Args:
        find_problems: returns why the server cannot do its work.
        metrics: returns its metrics as text, for users.
    """
    router = APIRouter()

    @router.get("/healthz", name="healthz")
    def healthz() -> JSONResponse:
        """Answer, which shows that the process lives."""
        return JSONResponse({"alive": True})

    @router.get("/readyz", name="readyz")
    def readyz() -> JSONResponse:
        """Answer 503 with reasons while the server cannot do its work."""
        problems = list(find_problems())
        return JSONResponse(
            {"ready": not problems, "problems": problems},
            status_code=503 if problems else 200,
        )

    if metrics is not None:

        @router.get("/metrics", name="metrics")
        def prometheus(_: Viewer) -> Response:
            """Return the metrics in Prometheus's text format."""
            return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
