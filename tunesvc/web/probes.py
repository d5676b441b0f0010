"""Addresses by which a process manager checks a server. They need no account."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse


def probe_router(find_problems: Callable[[], Sequence[str]]) -> APIRouter:
    """Return the routes. `find_problems` returns why the server cannot do its work."""
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

    return router
