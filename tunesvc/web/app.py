"""The web application: routes, errors as pages, static files. Mountable under any path.

What it shows it reads through `queries`, from a `Database` that is handed in; who may see it, an `Access` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable, StudyBusy, StudyNotFound, TuneError
from tunesvc.web.access import Access, Forbidden, Unauthenticated, remember_page
from tunesvc.web.live.cache import StaleWhileRevalidateCache
from tunesvc.web.live.sse import EventHub
from tunesvc.web.middleware.error_pages import ErrorMiddleware
from tunesvc.web.middleware.security import SecurityMiddleware
from tunesvc.web.middleware.static_files import PackagedFiles
from tunesvc.web.pages import (
    actions,
    cluster,
    compare,
    configuration,
    figures,
    frame,
    health,
    live,
    new,
    studies,
    study,
    trial,
    trials,
)
from tunesvc.web.render import STATIC, page

BODY_MAX = 1_000_000
"""Bytes of a request's body: four times the largest study file, which a form may well double in size."""
PAGES = (
    *(studies, frame, study, trials, trial, compare, actions, health, configuration),
    *(cluster, new, figures, live),
)
"""Modules that each have a `router`."""


def make_app(
    database: Database,
    access: Access,
    hub: EventHub,
    *,
    hosts: Iterable[str],
    own_host: str = "",
    gpu_price: float = 0.0,
) -> FastAPI:
    """The application.

    Args:
        database: where studies are; the caller closes it.
        access: who may do what.
        hub: tells open pages of changes; the caller feeds it, mostly with a `Watcher`.
        hosts: values of `Host` under which it is served, port included.
        own_host: the one of them to which browsers are sent; empty where each is as good.
        gpu_price: of an hour of one GPU, in whatever currency; 0 leaves costs out.
    """
    app = FastAPI(
        title="tunesvc",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(_reading)],
        max_body_size=BODY_MAX,
    )
    app.state.database, app.state.access, app.state.hub, app.state.gpu_price = (
        database,
        access,
        hub,
        gpu_price,
    )
    app.state.kept = StaleWhileRevalidateCache()
    app.add_api_route("/", _home, name="home")
    for module in PAGES:
        app.include_router(module.router)
    app.mount("/static", PackagedFiles(directory=STATIC), name="static")
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.add_middleware(SecurityMiddleware, hosts=hosts, own=own_host)
    for kind, answer in _ERRORS.items():
        app.add_exception_handler(kind, answer)
    return app


def _home(request: Request) -> Response:
    return RedirectResponse(request.url_for("studies_page"))


def _reading(request: Request) -> Iterator[None]:
    """Around every route: a database that is away is a state of the page, not a mistake of the program.

    The position of the changes is taken before anything is read: what comes later, the page asks for.
    """
    request.state.position = request.app.state.hub.position
    with translate_unavailable():
        yield


def _not_found(request: Request, error: Exception) -> Response:
    return page(request, "error.html", 404, title="Not found", text=str(error))


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = {
        404: "There is no such page.",
        405: "This page cannot be used in that way.",
    }.get(status, str(error))
    return page(
        request,
        "error.html",
        status,
        title="Not found" if status == 404 else "Not possible",
        text=text,
    )


def _invalid(request: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
    return page(request, "error.html", 422, title="Not understood", text=text)


def _away(request: Request, error: Exception) -> Response:
    return page(request, "away.html", 503, text=str(error))


def _refused(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, StudyBusy) else 400
    return page(request, "error.html", status, title="Not done", text=str(error))


def _unknown(request: Request, _: Exception) -> Response:
    answer = page(request, "enter.html", 401)
    if request.method == "GET" and request.headers.get("sec-fetch-dest") == "document":
        remember_page(request, answer)
    return answer


def _forbidden(request: Request, error: Exception) -> Response:
    return page(request, "error.html", 403, title="Not allowed", text=str(error))


_ERRORS: dict[type[Exception], Any] = {
    StudyNotFound: _not_found,
    DatabaseUnavailable: _away,
    TuneError: _refused,
    Unauthenticated: _unknown,
    Forbidden: _forbidden,
    HTTPException: _http,
    RequestValidationError: _invalid,
}
