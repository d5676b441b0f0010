"""Jobs, launches and events as JSON, between servers and agents. No pickles.

Numbers that JSON lacks are the strings `NaN`, `Infinity` and `-Infinity`. A function, which only
studies from Python have, is base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from tunesvc.errors import TuneError
from tunesvc.execution.executor import Job, Launch, Payload
from tunesvc.util.json_values import plain

Json = Mapping[str, Any]

_KINDS = {kind.__name__: kind for kind in get_args(Payload)}


class WireError(TuneError):
    """A message that cannot be understood."""


def dump_payload(payload: Payload) -> dict[str, Any]:
    """Return an event's payload as JSON, with its `type`."""
    return {"type": type(payload).__name__, **_dump(type(payload), payload)}


def load_payload(value: Json) -> Payload:
    """Return an event's payload.

    Raises:
        WireError: it is none.
    """
    fields = dict(value)
    kind = _KINDS.get(str(fields.pop("type", "")))
    if kind is None:
        raise WireError(f"`type` is none of {', '.join(_KINDS)}")
    return _load(kind, fields)  # type: ignore[no-any-return]


def dump_job(job: Job) -> dict[str, Any]:
    """Return a job as JSON."""
    return _dump(Job, job)


def load_job(value: Json) -> Job:
    """Return a job. See `load_payload`."""
    if isinstance(function := value.get("function"), str):
        value = {**value, "function": base64.b64decode(function)}
    return _load(Job, value)  # type: ignore[no-any-return]


def digest_of_job(job: Json) -> str:
    """Return a digest that differs between jobs."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:32]


def dump_launch(launch: Launch) -> dict[str, Any]:
    """Return a launch as JSON."""
    return _dump(Launch, launch)


def load_launch(value: Json) -> Launch:
    """Return a launch. See `load_payload`."""
    return _load(Launch, value)  # type: ignore[no-any-return]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _dump(kind: Any, value: Any) -> dict[str, Any]:
    return dict(plain(_adapter(kind).dump_python(value)))


def _load(kind: Any, value: Json) -> Any:
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        issues = "; ".join(
            f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors()
        )
        raise WireError(f"{kind.__name__}: {issues}") from None
