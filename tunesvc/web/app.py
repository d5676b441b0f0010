"""The web application: routes, error pages, static files. Can be mounted under any path.

Reads through `queries` from a given `Database`; a given `Access` checks permissions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from tunesvc.db.engine.database import Database
from tunesvc.errors import (
    AccountExists,
    AccountNotFound,
    DatabaseUnavailable,
    Forbidden,
    StudyBusy,
    StudyNotFound,
    TooManyRequests,
    TuneError,
    Unauthenticated,
)
from tunesvc.web.access import Access, remember_page
from tunesvc.web.account_access import AccountAccess
from tunesvc.web.api.api_app import API, make_api
from tunesvc.web.api.problem_details import problem_of, problem_response
from tunesvc.web.audit_trail import AuditMiddleware
from tunesvc.web.live.cache import StaleWhileRevalidateCache
from tunesvc.web.live.shared_answers import SharedAnswers
from tunesvc.web.live.sse import EventHub
from tunesvc.web.live.study_names import StudyNames
from tunesvc.web.middleware.error_pages import ErrorMiddleware
from tunesvc.web.middleware.request_ids import RequestIdMiddleware
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
from tunesvc.web.pages.account import alert_forms, audit_page, own_account, sign_in, team_page
from tunesvc.web.pages.uploads import upload_page
from tunesvc.web.reading import reading
from tunesvc.web.render import STATIC, page

BODY_MAX = 1_000_000
"""Most bytes of a request's body: four times the largest study file, as forms encode it longer."""
PAGES = (
    *(studies, frame, study, trials, trial, compare, actions, health, configuration),
    *(cluster, new, upload_page, figures, live),
)
"""Modules that each have a `router`."""
ACCOUNT_PAGES = (sign_in, own_account, alert_forms, team_page, audit_page)
"""The same, for a server with accounts."""


def make_app(
    database: Database,
    access: Access,
    hub: EventHub,
    *,
    hosts: Iterable[str] | None,
    own_host: str = "",
    gpu_price: float = 0.0,
) -> FastAPI:
    """Return the application.

    Args:
        database: Database of the studies; the caller closes it.
        access: Authentication and permissions.
        hub: Notifies open pages of changes; the caller feeds it, usually with a `Watcher`.
        hosts: Allowed values of `Host`, including the port; None for any.
        own_host: The one of them to which browsers are redirected; empty for no redirect.
        gpu_price: Price of one GPU hour in any currency; 0 hides costs.
    """
    app = FastAPI(
        title="tunesvc",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(reading)],
        max_body_size=BODY_MAX,
    )
    app.state.database = database
    app.state.access = access
    app.state.hub = hub
    app.state.provider = None
    app.state.gpu_price = gpu_price
    app.state.cache = StaleWhileRevalidateCache()
    app.state.shared_answers = SharedAnswers()
    app.state.study_names = StudyNames(database)
    app.add_api_route("/", _home, name="home")
    has_accounts = isinstance(access, AccountAccess)
    for module in (*PAGES, *ACCOUNT_PAGES) if has_accounts else PAGES:
        app.include_router(module.router)
    app.state.api = make_api(app.state, BODY_MAX)
    app.mount(API, app.state.api, name="api")
    app.mount("/static", PackagedFiles(directory=STATIC), name="static")
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.add_middleware(AuditMiddleware, database=database)
    app.add_middleware(SecurityMiddleware, hosts=hosts, own=own_host)
    app.add_middleware(RequestIdMiddleware)
    for error, handler in _ERROR_HANDLERS.items():
        app.add_exception_handler(error, handler)
    return app


def _home(request: Request) -> Response:
    return RedirectResponse(request.url_for("studies_page"))


def _not_found(request: Request, error: Exception) -> Response:
    return page(request, "error.html", 404, title="Not found", text=str(error))


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    title, text = "Not possible", str(error)
    if status == 404:
        if request.url.path.startswith(f"{request.scope.get('root_path', '')}{API}/"):
            # A mounted application gets no address with a line end in it.
            return problem_response(problem_of(404, f"there is no {request.url.path!r}"))
        title = "Not found"
        text = "There is no such page."
    elif status == 405:
        text = "This page cannot be used in that way."
    return page(request, "error.html", status, title=title, text=text)


def _invalid(request: Request, error: Exception) -> Response:
    issues = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{issue['loc'][-1]}: {issue['msg']}" for issue in issues)
    return page(request, "error.html", 422, title="Not understood", text=text)


def _unavailable(request: Request, error: Exception) -> Response:
    return page(request, "away.html", 503, text=str(error))


def _refused(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, StudyBusy | AccountExists) else 400
    return page(request, "error.html", status, title="Not done", text=str(error))


def _unauthenticated(request: Request, _: Exception) -> Response:
    access: Access = request.app.state.access
    response = page(request, access.entrance, 401, secret="", problem="")
    if request.method == "GET" and request.headers.get("sec-fetch-dest") == "document":
        remember_page(request, response)
    return response


def _too_many(request: Request, error: Exception) -> Response:
    response = page(request, "error.html", 429, title="Too many requests", text=str(error))
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = f"{error.wait_s:.0f}"
    return response


def _forbidden(request: Request, error: Exception) -> Response:
    return page(request, "error.html", 403, title="Not allowed", text=str(error))


_ERROR_HANDLERS: dict[type[Exception], Any] = {
    StudyNotFound: _not_found,
    AccountNotFound: _not_found,
    DatabaseUnavailable: _unavailable,
    TuneError: _refused,
    Unauthenticated: _unauthenticated,
    Forbidden: _forbidden,
    TooManyRequests: _too_many,
    HTTPException: _http,
    RequestValidationError: _invalid,
}
