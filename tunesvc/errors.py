"""Every exception that tunesvc raises on purpose.

    TuneError                    anything a user can act on; its text names the thing and the remedy
    ├── SpecError                a study file or decorator that cannot be used (file, line, hint)
    ├── StudyNotFound            no study of that name
    ├── ChampionNotFound         no champion of that family, or none with that number
    ├── StudyExists              a study of that name is there already, with another spec
    ├── StudyWithoutSpec         a study made through Optuna's API: no coordinator runs it
    ├── StudyFailed              a study ended without a result; holds the objective's traceback
    ├── StudyBusy                another coordinator holds the study's lease
    ├── LeaseLost                this coordinator's lease was taken over: stop writing
    ├── LeaseRefused             an agent's lease of an attempt was lost: drop the attempt
    ├── UnsatisfiableRequest     a resource request that the cluster can never meet
    ├── ExecutorError            Ray could not be started, reached or used
    │   └── MachineBusy          other commands use the resources that a local Ray would need
    ├── DatabaseError            Postgres could not be started, reached or used
    │   ├── DatabaseUnavailable  no answer, or no writes, for now: retry the same transaction
    │   └── SchemaVersionError   the database's schema is older or newer than this program
    ├── AccountNotFound          no user, project or token of that name
    ├── AccountExists            a user or project of that name is there already
    ├── Unauthenticated          a request without a valid token
    ├── Forbidden                the user does not have the permission
    ├── TooManyRequests          wait before the next request
    ├── ArtifactStoreError       an artifact store that cannot be opened or used
    │   ├── ArtifactStoreUnavailable  no answer from it for now, or it is full: try again
    │   ├── ArtifactMissing      it has nothing of that digest
    │   ├── ArtifactDamaged      its content does not have the digest that it is named by
    │   └── ArtifactTooLarge     content beyond the size that is taken
    ├── DataError                data of a study that cannot be read, prepared or used
    ├── SnapshotError            a folder that cannot be packed, or an archive not unpacked
    ├── ServerError              a server could not be reached, or its answer not understood
    │   └── ServerAway           no answer for now: the same request may succeed later
    ├── FilterError              a filter of trials that cannot be understood (place, suggestion)
    ├── BadName                  a name that cannot be stored: it holds NUL or is no valid Unicode
    └── BadReport                a reported metric or step that is not a number, in the objective

    Pruned                       raised by `trial.report` in the objective: stop now (no error)

This module imports nothing of tunesvc.
"""

from __future__ import annotations


class TuneError(Exception):
    """An error that the user can act on. The command line prints it without a traceback."""


class SpecError(TuneError):
    """A study file or decorator that cannot be used."""


class StudyNotFound(TuneError):
    """No study of that name."""


class ChampionNotFound(TuneError):
    """No champion of that family, or none with that number."""


class StudyExists(TuneError):
    """A study of that name exists already."""


MADE_BY_OPTUNA = "was made through Optuna's API"


class StudyWithoutSpec(TuneError):
    """A study that was made through Optuna's API, so that it has no spec and no coordinator."""

    def __init__(self, study: str, consequence: str) -> None:
        super().__init__(f"study {study!r} {MADE_BY_OPTUNA}: {consequence}")


class StudyFailed(TuneError):
    """A study ended without a result. Its cause is an `ObjectiveTraceback` if there is one."""

    def __init__(
        self,
        text: str,
        study: str,
        number: int | None = None,
        message: str = "",
        traceback: str | None = None,
    ) -> None:
        super().__init__(text)
        self.study = study
        self.number = number
        """The trial of message and traceback."""
        self.message = message
        self.traceback = traceback
        """The worker's traceback; None when no trial raised."""
        if traceback is not None:
            self.__cause__ = ObjectiveTraceback(traceback)


class ObjectiveTraceback(Exception):
    """The traceback of an objective that raised in a worker, as the cause of an error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0].rstrip()}"


class StudyBusy(TuneError):
    """Another coordinator holds the study's lease."""


class LeaseLost(TuneError):
    """This coordinator's lease was taken over by another; nothing more may be written."""


class LeaseRefused(TuneError):
    """An agent's lease of an attempt was lost; nothing more may be reported."""


class UnsatisfiableRequest(TuneError):
    """A resource request that the cluster can never meet."""


class ExecutorError(TuneError):
    """The execution engine could not be started, reached or used."""


class MachineBusy(ExecutorError):
    """Other commands use the resources that a local Ray would need; retry when they have ended."""


class DatabaseError(TuneError):
    """Postgres could not be started, reached or used."""


class DatabaseUnavailable(DatabaseError):
    """Postgres does not answer or accept writes for now; the transaction may be committed."""


class SchemaVersionError(DatabaseError):
    """The database's schema has another version than this program needs."""


class AccountNotFound(TuneError):
    """No user, project or token of that name."""


class AccountExists(TuneError):
    """A user or project of that name exists already."""


class Unauthenticated(TuneError):
    """A request without a valid token."""


class Forbidden(TuneError):
    """The user does not have the permission."""


class TooManyRequests(TuneError):
    """A limit on requests is reached."""

    def __init__(self, text: str, wait_s: float = 1.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s
        """Time until the next request may succeed."""


class ArtifactStoreError(TuneError):
    """An artifact store cannot be opened or used."""


class ArtifactStoreUnavailable(ArtifactStoreError):
    """The artifact store does not answer for now, or is full; the call may be repeated."""


class ArtifactMissing(ArtifactStoreError):
    """The artifact store has nothing of that digest."""


class ArtifactDamaged(ArtifactStoreError):
    """The content does not have the digest that it is named by."""


class ArtifactTooLarge(ArtifactStoreError):
    """Content beyond the size that is taken."""


class DataError(TuneError):
    """The data of a study cannot be read, prepared or used."""


class SnapshotError(TuneError):
    """A folder that cannot be packed, or an archive that cannot be unpacked."""


class ServerError(TuneError):
    """A server of tunesvc could not be reached, or its answer could not be understood."""


class ServerAway(ServerError):
    """A server of tunesvc does not answer for now: the same request may succeed later."""


class FilterError(TuneError):
    """A filter of trials that cannot be understood."""

    def __init__(self, problem: str, text: str, start: int, end: int) -> None:
        """`start`, `end`: the characters of the filter `text` with the problem."""
        self.problem, self.text, self.start, self.end = problem, text, start, end
        marks = " " * start + "^" * max(1, end - start)
        super().__init__(f"{problem}\n  {text}\n  {marks}")


class BadName(TuneError, ValueError):
    """A name that cannot be stored."""


class BadReport(TuneError, ValueError):
    """A reported metric or step is not a number that can be stored."""


class Pruned(Exception):
    """Raised by `trial.report` when this trial should stop. Not an error: do not catch it."""
