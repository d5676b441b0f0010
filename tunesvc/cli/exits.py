"""Exit codes of the program, their meanings, and the errors that lead to them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from tunesvc import errors


class ExitCode(IntEnum):
    """Exit codes of every command."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Create a code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = (
        0,
        "done; for `run` and `resume`: ended, stopped or paused; of several, the worst code",
    )
    FAILED = 1, "the study or all of its trials failed, or something went wrong"
    USAGE = 2, "wrong usage, or a study file that cannot be used"
    NOT_FOUND = 3, "no such study, trial or champion"
    BUSY = 4, "another process is running the study"
    EXISTS = 5, "a study of that name exists already"
    UNSATISFIABLE = 6, "the cluster can never meet the resource request"
    DATABASE = 7, "the database cannot be started, reached or used"
    SERVER = 8, "a server cannot be reached, or refuses this user"
    INTERRUPTED = 130, "interrupted; `tune resume` continues"


_CODES: tuple[tuple[type[errors.TuneError], ExitCode], ...] = (
    (errors.SpecError, ExitCode.USAGE),
    (errors.FilterError, ExitCode.USAGE),
    (errors.StudyNotFound, ExitCode.NOT_FOUND),
    (errors.ChampionNotFound, ExitCode.NOT_FOUND),
    (errors.StudyBusy, ExitCode.BUSY),
    (errors.LeaseLost, ExitCode.BUSY),
    (errors.StudyExists, ExitCode.EXISTS),
    (errors.UnsatisfiableRequest, ExitCode.UNSATISFIABLE),
    (errors.DatabaseError, ExitCode.DATABASE),
    (errors.ServerError, ExitCode.SERVER),
    (errors.Unauthenticated, ExitCode.SERVER),
    (errors.Forbidden, ExitCode.SERVER),
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
    ExitCode.SERVER,
    ExitCode.DATABASE,
)


def code_of(error: errors.TuneError) -> ExitCode:
    """Return the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code of several studies that ran together: the worst."""
    return max(codes, key=_BY_BADNESS.index)


def explained() -> str:
    """Return all codes for the help text, one per line."""
    return "\n".join(["Exit codes", *(f"{code.value:3}  {code.meaning}" for code in ExitCode)])
