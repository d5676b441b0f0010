"""What the program's exit codes mean, and which error ends in which."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from tunesvc import errors


class ExitCode(IntEnum):
    """Exit codes of every command."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """A code that knows its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = (
        0,
        "done; for `run` and `resume`: the study came to its end, was stopped or paused; of several, the worst code",
    )
    FAILED = 1, "the study or all of its trials failed, or something went wrong"
    USAGE = 2, "wrong usage, or a study file that cannot be used"
    NOT_FOUND = 3, "no such study or trial"
    BUSY = 4, "another process is running the study"
    EXISTS = 5, "a study of that name exists already"
    UNSATISFIABLE = 6, "the cluster can never meet the resource request"
    DATABASE = 7, "the database cannot be started, reached or used"
    INTERRUPTED = 130, "interrupted; `tune resume` continues"


_CODES: tuple[tuple[type[errors.TuneError], ExitCode], ...] = (
    (errors.SpecError, ExitCode.USAGE),
    (errors.FilterError, ExitCode.USAGE),
    (errors.StudyNotFound, ExitCode.NOT_FOUND),
    (errors.StudyBusy, ExitCode.BUSY),
    (errors.LeaseLost, ExitCode.BUSY),
    (errors.StudyExists, ExitCode.EXISTS),
    (errors.UnsatisfiableRequest, ExitCode.UNSATISFIABLE),
    (errors.DatabaseError, ExitCode.DATABASE),
)


_BY_BADNESS = (
    ExitCode.DONE,
    ExitCode.INTERRUPTED,
    ExitCode.BUSY,
    ExitCode.EXISTS,
    ExitCode.NOT_FOUND,
    ExitCode.UNSATISFIABLE,
    ExitCode.USAGE,
    ExitCode.FAILED,
    ExitCode.DATABASE,
)


def code_of(error: errors.TuneError) -> ExitCode:
    """The exit code that an error ends in."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of several studies that ran together."""
    return max(codes, key=_BY_BADNESS.index)


def explained() -> str:
    """Return all codes for the help text, a line each."""
    return "\n".join(["Exit codes", *(f"{code.value:3}  {code.meaning}" for code in ExitCode)])
