"""Arguments of the API's routes: the client of the user, the study of the path, entity tags.

An entity tag of something in a study is the fingerprint of the study: it is computed before the
study is read, so that an answer may be newer than its tag, but never older. It is weak, because
durations in answers grow between two changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from fastapi.responses import Response

from tunesvc.client.interface import PAGE_MAX, TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.wire_format import encode
from tunesvc.queries.change_token import fingerprint_if_whole
from tunesvc.web.access import (
    Creator,
    Deleter,
    Steerer,
    User,
    Viewer,
    viewable_studies,
)
from tunesvc.web.api.idempotency import HEADER, KEY_MAX, carry_out_once, note_command, read_body
from tunesvc.web.live.shared_answers import SharedAnswers

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
    body: bytes = b""
    """Body of a request that changes something."""

    def answer(self, value: object) -> Response:
        """Return a value that was read as JSON, with an entity tag."""
        return self._respond(encode(value))

    def _respond(self, body: bytes) -> Response:
        tag = self.tag or _weak(hashlib.sha256(body))
        check_tag(self.request, tag)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        return Response(body, 200, headers, "application/json")

    async def answer_once(self, make: Callable[[], object]) -> Response:
        """Return what many clients read at once; it is made once for all that wait for it."""
        answers: SharedAnswers = self.request.app.state.shared_answers
        key = self.request.url.path, self.request.url.query
        return self._respond(await answers.get(key, lambda: encode(make())))

    def carry_out(self, make: Callable[[], object], status: int = 200) -> Response:
        """Carry out a request, once for an idempotency key, and return what it makes as JSON."""
        return carry_out_once(self.request, self.user.name, self.body, make, status)


def unstored_answer(value: object, status: int = 200) -> Response:
    """Return a value as JSON that nothing on the way keeps, such as an answer with a secret."""
    headers = {"Cache-Control": "no-store"}
    return Response(encode(value), status, headers, "application/json")


def check_tag(request: Request, tag: str) -> None:
    """Answer with 304 if the client has the entity of this tag."""
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or tag in [one.strip() for one in known.split(",")]:
        raise NotModified(tag)


def not_modified(_: Request, error: Exception) -> Response:
    """Return the response to a client that has the entity already."""
    tag = error.tag if isinstance(error, NotModified) else ""
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})


Body = Annotated[bytes, Depends(read_body)]
Key = Annotated[
    str | None,
    Header(
        alias=HEADER,
        min_length=1,
        max_length=KEY_MAX,
        description="Random text: a repeated request with it is carried out once.",
    ),
]


async def _viewing(request: Request, user: Viewer) -> ApiRequest:
    return _request_of(request, user)


async def _creating(request: Request, user: Creator) -> ApiRequest:
    return _request_of(request, user)


async def _creating_once(
    request: Request, user: Creator, body: Body, key: Key = None
) -> ApiRequest:
    return _request_of(request, user, body=body)


async def _viewing_study(request: Request, user: Viewer, study: StudyName) -> ApiRequest:
    database, study_id = request.app.state.database, request.state.study_id
    answers: SharedAnswers = request.app.state.shared_answers
    fresh = await answers.get(study_id, lambda: fingerprint_if_whole(database, study_id))
    if not fresh:
        return _request_of(request, user)
    tag = _weak(hashlib.sha256(f"{fresh} {request.url.path}?{request.url.query}".encode()))
    check_tag(request, tag)
    return _request_of(request, user, tag=tag)


async def _steering_study(
    request: Request,
    user: Steerer,
    study: StudyName,
    body: Body,
    key: Key = None,
) -> ApiRequest:
    return _request_of(request, user, body=body)


async def _deleting_study(
    request: Request,
    user: Deleter,
    study: StudyName,
    body: Body,
    key: Key = None,
) -> ApiRequest:
    return _request_of(request, user, body=body)


def _request_of(request: Request, user: User, *, tag: str = "", body: bytes = b"") -> ApiRequest:
    database = request.app.state.database
    client = LocalClient(
        database,
        user.name,
        viewable_studies(request, user),
        on_command=note_command(request, user.name),
    )
    return ApiRequest(request, user, client, getattr(request.state, "study", ""), tag, body)


def _weak(digest: hashlib._Hash) -> str:
    return f'W/"{digest.hexdigest()[:20]}"'


Viewing = Annotated[ApiRequest, Depends(_viewing)]
Creating = Annotated[ApiRequest, Depends(_creating)]
CreatingOnce = Annotated[ApiRequest, Depends(_creating_once)]
ViewingStudy = Annotated[ApiRequest, Depends(_viewing_study)]
SteeringStudy = Annotated[ApiRequest, Depends(_steering_study)]
DeletingStudy = Annotated[ApiRequest, Depends(_deleting_study)]
