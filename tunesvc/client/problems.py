"""Errors as problem details (RFC 9457) of the API, and back as the same exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesvc import errors

MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:tunesvc:"
_STATUS: Mapping[str, int] = {
    "Unauthenticated": 401,
    "Forbidden": 403,
    "StudyNotFound": 404,
    "ChampionNotFound": 404,
    "AccountNotFound": 404,
    "StudyExists": 409,
    "AccountExists": 409,
    "StudyBusy": 409,
    "LeaseLost": 409,
    "LeaseRefused": 409,
    "StudyWithoutSpec": 409,
    "StudyFailed": 409,
    "SpecError": 422,
    "FilterError": 422,
    "BadName": 422,
    "UnsatisfiableRequest": 422,
    "SnapshotError": 422,
    "ArtifactMissing": 404,
    "ArtifactTooLarge": 413,
    "ArtifactStoreUnavailable": 503,
    "TooManyRequests": 429,
    "DatabaseUnavailable": 503,
    "DatabaseError": 503,
}
"""Status by exception; 400 for the others."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details: what went wrong with a request, and the remedy."""

    type: str
    """`urn:tunesvc:` and the name of an exception of `tunesvc.errors`; or `about:blank`."""
    title: str
    status: int
    detail: str
    """The fault, the thing that has it, and the remedy."""
    members: Mapping[str, Any] = field(default_factory=dict)
    """Further facts of this kind of error, such as the place in a filter."""
    instance: str = ""
    """`urn:tunesvc:request:` and the request's id, which the server's log has too."""


def describe_error(error: Exception) -> Problem:
    """Describe an exception of `tunesvc.errors`."""
    kinds = type(error).__mro__
    status = next((_STATUS[kind.__name__] for kind in kinds if kind.__name__ in _STATUS), 400)
    # A subclass elsewhere is nothing that a client knows.
    kind = next((kind for kind in kinds if kind.__module__ == errors.__name__), errors.TuneError)
    title = (kind.__doc__ or kind.__name__).partition("\n")[0].rstrip(".")
    members = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
    return Problem(f"{_PREFIX}{kind.__name__}", title, status, str(error), members)


def to_error(problem: Problem) -> errors.TuneError:
    """Return the exception that was described; `ServerError` for a problem of another kind."""
    kind = getattr(errors, problem.type.removeprefix(_PREFIX), None)
    text = problem.detail or problem.title
    if not (isinstance(kind, type) and issubclass(kind, errors.TuneError)):
        return errors.ServerError(f"{text} (status {problem.status})")
    # The text is complete already: the constructors of some kinds would put it together again.
    error: errors.TuneError = kind.__new__(kind, text)
    error.args = (text,)
    vars(error).update(problem.members)
    return error


_PLAIN = (str, int, float, bool, type(None))
