"""What routes of the API get: the client of the user, the study of the path, entity tags.

An entity tag of something in a study is the fingerprint of the study: it is computed before the
study is read, so that an answer may be newer than its tag, but never older. It is weak, because
durations in answers grow between two changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.responses import Response

from tunesvc.client.interface import PAGE_MAX, TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.wire import encode
from tunesvc.queries.change_token import fingerprint
from tunesvc.web.access import Creator, Deleter, Steerer, User, Viewer, viewable_studies

After = Annotated[
    str,
    Query(max_length=1_000, description="`after` of the previous page; empty for the first one."),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Most rows of the page.")]
StudyName = Annotated[str, Path(description="Name of the study, with %2F for a slash.")]
Number = Annotated[int, Path(ge=0, lt=2**31, description="Number of the trial.")]


class NotModified(Exception):
    """The client has this already: 304."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request of a user."""

    request: Request
    user: User
    client: TuneClient
    """Client of the user on the database of the server."""
    study: str = ""
    """Name of the study of the path."""
    tag: str = ""
    """Entity tag of the study's answers; empty if there is none."""

    def answer(self, value: object, status: int = 200) -> Response:
        """Return a value as JSON, with an entity tag if it was read."""
        body = encode(value)
        headers = {}
        if self.request.method == "GET":
            tag = self.tag or _weak(hashlib.sha256(body))
            check_tag(self.request, tag)
            headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        return Response(body, status, headers, "application/json")


def check_tag(request: Request, tag: str) -> None:
    """Answer with 304 if the client has the entity of this tag."""
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in [one.strip() for one in known.split(",")]:
        raise NotModified(tag)


def not_modified(_: Request, error: Exception) -> Response:
    """Return the response to a client that has the entity already."""
    tag = error.tag if isinstance(error, NotModified) else ""
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})


def _request_of(request: Request, user: User, study: str = "") -> ApiRequest:
    database = request.app.state.database
    client = LocalClient(database, user.name, viewable_studies(request, user))
    return ApiRequest(request, user, client, study)


def _viewing(request: Request, user: Viewer) -> ApiRequest:
    return _request_of(request, user)


def _creating(request: Request, user: Creator) -> ApiRequest:
    return _request_of(request, user)


def _viewing_study(request: Request, user: Viewer, study: StudyName) -> ApiRequest:
    found = _request_of(request, user, request.state.study)
    tag = fingerprint(request.app.state.database, request.state.study_id)
    weak = _weak(hashlib.sha256(f"{tag} {request.url.path}?{request.url.query}".encode()))
    check_tag(request, weak)
    return ApiRequest(request, user, found.client, found.study, weak)


def _steering_study(request: Request, user: Steerer, study: StudyName) -> ApiRequest:
    return _request_of(request, user, request.state.study)


def _deleting_study(request: Request, user: Deleter, study: StudyName) -> ApiRequest:
    return _request_of(request, user, request.state.study)


def _weak(digest: hashlib._Hash) -> str:
    return f'W/"{digest.hexdigest()[:20]}"'


Viewing = Annotated[ApiRequest, Depends(_viewing)]
Creating = Annotated[ApiRequest, Depends(_creating)]
ViewingStudy = Annotated[ApiRequest, Depends(_viewing_study)]
SteeringStudy = Annotated[ApiRequest, Depends(_steering_study)]
DeletingStudy = Annotated[ApiRequest, Depends(_deleting_study)]
