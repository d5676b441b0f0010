"""Errors of the API as problem details (RFC 9457), with the remedy in the detail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from tunesvc.client.problems import MEDIA_TYPE, Problem, describe_error
from tunesvc.client.wire_format import encode
from tunesvc.errors import DatabaseUnavailable, TooManyRequests, TuneError, Unauthenticated
from tunesvc.util.characters import storable
from tunesvc.util.logs import REQUEST_ID

RETRY_AFTER_S = 2
"""Time after which a request is worth another attempt."""
BLANK = "about:blank"


def problem_response(
    problem: Problem,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response with problem details, and the request's id in them."""
    # A detail quotes what was sent, which may be half a surrogate pair.
    detail, instance = storable(problem.detail), f"urn:tunesvc:request:{REQUEST_ID.get()}"
    problem = replace(problem, detail=detail, instance=instance)
    return Response(encode(problem), problem.status, dict(headers or {}), MEDIA_TYPE)


def problem_of(status: int, detail: str) -> Problem:
    """Return the problem of a status without an exception of ours."""
    return Problem(BLANK, HTTPStatus(status).phrase, status, detail)


def internal_error(_: Request, text: str) -> Response:
    """Return the response to a request that met a mistake of ours."""
    return problem_response(problem_of(500, text))


def add_handlers(api: FastAPI) -> None:
    """Have an application answer errors with problem details."""
    handlers: dict[type[Exception], Any] = {
        TuneError: _refused,
        HTTPException: _http,
        RequestValidationError: _invalid,
    }
    for error, handler in handlers.items():
        api.add_exception_handler(error, handler)


def _refused(_: Request, error: Exception) -> Response:
    return problem_response(describe_error(error), _headers(error))


def _headers(error: Exception) -> Mapping[str, str]:
    if isinstance(error, DatabaseUnavailable):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(math.ceil(error.wait_s))}
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {}


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is no {request.url.path}; /api/v1/openapi.json lists what there is"
    return problem_response(problem_of(error.status_code, detail), error.headers)


def _invalid(_: Request, error: Exception) -> Response:
    issues = error.errors() if isinstance(error, RequestValidationError) else []
    described = [f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in issues]
    return problem_response(problem_of(422, "; ".join(described)))
