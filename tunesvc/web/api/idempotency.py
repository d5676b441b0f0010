"""Requests with an `Idempotency-Key` are carried out once, however often they are sent.

The answer is kept for a day. A repeated one waits while the first is carried out. One that failed
is carried out again. A command whose server died is not recorded twice: see `note_command`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from tunesvc.client.wire_format import encode
from tunesvc.db import stored_answers
from tunesvc.db.engine.database import Database
from tunesvc.db.stored_answers import StoredAnswer
from tunesvc.errors import SpecError, StudyBusy
from tunesvc.queries.operations.request_log import get_request

HEADER = "Idempotency-Key"
KEY_MAX = 200
WAIT_S = 10.0
"""Longest wait for the same request that is carried out now."""
_LOOK_S = 0.1


async def read_body(request: Request) -> bytes:
    """Return the body of a request, for its digest."""
    return await request.body()


def carry_out_once(
    request: Request,
    user: str,
    body: bytes,
    make: Callable[[], object],
    status: int,
) -> Response:
    """Carry out a request, or return the answer to an earlier one with its key.

    Raises:
        SpecError: the key was sent with another request.
        StudyBusy: the first request is still being carried out.
    """
    earlier = _earlier_answer(request, user, body, status)
    if earlier is not None:
        return earlier
    try:
        content = encode(make())
    except BaseException:
        _release(request, user)
        raise
    _store(request, user, status, content)
    return _response(content, status)


async def await_once(
    request: Request,
    user: str,
    body: bytes,
    make: Callable[[], Awaitable[Response]],
) -> Response:
    """Do the same for a request that waits, and has nothing to repeat if its answer is empty.

    Raises:
        SpecError: the key was sent with another request.
        StudyBusy: the first request still waits.
    """
    earlier = await run_in_threadpool(_earlier_answer, request, user, body, 200)
    if earlier is not None:
        return earlier
    try:
        answer = await make()
    except BaseException:
        await run_in_threadpool(_release, request, user)
        raise
    if answer.body:
        content = bytes(answer.body)
        await run_in_threadpool(_store, request, user, answer.status_code, content)
    else:
        await run_in_threadpool(_release, request, user)
    return answer


def _earlier_answer(request: Request, user: str, body: bytes, status: int) -> Response | None:
    """Return the answer to an earlier request; None if this one is to be carried out."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= KEY_MAX:
        raise SpecError(f"{HEADER} has 1 to {KEY_MAX} characters: a random UUID is a good one")
    earlier = _claim(request.app.state.database, user, key, _digest(request, body))
    if earlier is None:
        return None
    answer = _response(json.dumps(earlier.body).encode(), earlier.status or status)
    answer.headers["Idempotency-Replayed"] = "true"
    return answer


def _release(request: Request, user: str) -> None:
    key = request.headers.get(HEADER)
    if key is not None:
        with request.app.state.database.engine.begin() as connection:
            stored_answers.release(connection, user, key)


def _store(request: Request, user: str, status: int, content: bytes) -> None:
    key = request.headers.get(HEADER)
    if key is not None:
        with request.app.state.database.engine.begin() as connection:
            stored_answers.store(connection, user, key, status, json.loads(content))


def _claim(database: Database, user: str, key: str, digest: bytes) -> StoredAnswer | None:
    """Return the stored answer to a key; None if this request now has it."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with database.engine.begin() as connection:
            earlier = stored_answers.claim(connection, user, key, digest)
        if earlier is None or (earlier.digest == digest and earlier.status is not None):
            return earlier
        if earlier.digest != digest:
            raise SpecError(f"{HEADER} was sent with another request: each needs a key of its own")
        if time.monotonic() >= deadline and earlier.command_id is not None:
            return replace(earlier, body=_answer_to(database, earlier.command_id))
        if time.monotonic() >= deadline:
            raise StudyBusy("the same request is still being carried out: send it again later")
        time.sleep(_LOOK_S)


def note_command(request: Request, user: str) -> Callable[[Any, int], None]:
    """Return a function that notes the command of a request with a key.

    A server that dies after it has recorded the command, and before it answers, leaves the note:
    another one then knows that the command must not be recorded again.
    """
    key = request.headers.get(HEADER)

    def note(connection: Any, command_id: int) -> None:
        if key is not None:
            stored_answers.note_command(connection, user, key, command_id)

    return note


def _answer_to(database: Database, command_id: int) -> str:
    row = get_request(database, command_id)
    if row is None:
        return "the study was deleted meanwhile"
    if row.done_at is None:
        return f"{row.text}: recorded, a coordinator carries it out"
    return row.answer or f"{row.text}: done"


def _digest(request: Request, body: bytes) -> bytes:
    line = f"{request.method} {request.url.path}?{request.url.query}\n"
    return hashlib.sha256(line.encode("utf-8", "surrogatepass") + body).digest()


def _response(content: bytes, status: int) -> Response:
    return Response(content, status, media_type="application/json")
