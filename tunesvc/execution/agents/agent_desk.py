"""A server's side of agents, however they reach it: checks messages, and keeps checkpoints.

Routes of the API are thin around it. Any thread may use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tunesvc.db.agents.agent_leases import AgentLeases, LeaseRecord
from tunesvc.db.agents.agent_messages import (
    AgentEvent,
    AgentOrders,
    AgentPoll,
    AskedTrial,
    LeasedLaunch,
    LeaseStatus,
)
from tunesvc.db.engine.database import Database
from tunesvc.errors import ArtifactMissing, BadReport, TuneError
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.uploaded_checkpoints import (
    UploadedCheckpoint,
    UploadedCheckpoints,
)
from tunesvc.execution.agents.wire import WireError
from tunesvc.execution.attempt.checkpoints import checkpoint_name
from tunesvc.execution.executor import (
    Checkpointed,
    Failed,
    Finished,
    Outcome,
    OutputLogged,
    Payload,
    Reported,
    Started,
    SuggestRequested,
)
from tunesvc.execution.output.spool import STREAMS
from tunesvc.preparation.data_store import DataStore
from tunesvc.trial import as_number, as_step, is_name
from tunesvc.util.paths import is_file_name

METRICS_MAX = 1_000
_FAILURES = ("error", "bad_report", "gpu_oom", "host_oom", "entrypoint")
_CHECKPOINT = re.compile(r"attempt-(\d+)-(?:step-\d+|start)-\d+")


class AgentDesk:
    """Serves the agents of all studies of a database."""

    def __init__(self, database: Database) -> None:
        self.leases = AgentLeases(database)

    def poll(self, agent_id: int, poll: AgentPoll, lease_s: float | None = None) -> AgentOrders:
        """Renew leases, take launches and return what is new. Does not wait."""
        return self.leases.poll(agent_id, poll, lease_s)

    def send(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        """Check and store events of an attempt.

        Raises:
            LeaseRefused: the lease was lost.
            WireError: an event cannot be understood; none is stored.
        """
        checked = [self._checked(token, event) for event in events]
        return self.leases.append(token, checked)

    def _checked(self, token: int, event: AgentEvent) -> AgentEvent:
        payload = wire.load_payload(event.payload)
        if isinstance(payload, Checkpointed):
            record = self.leases.find(token)
            if not _checkpoints(record).contains(payload.path):
                raise WireError("Checkpointed: `path` is not what the upload has answered")
        return replace(event, payload=wire.dump_payload(checked(payload)))

    def data(self, study_id: int, digest: str) -> Iterator[bytes]:
        """Return the content of a part of a study's data, as far as trials may have it.

        Raises:
            ArtifactMissing: the study has no such part, or it was removed.
        """
        job = self.leases.job_of(study_id)
        prepared = None if job is None else wire.load_job(job).data
        if prepared is None or digest not in prepared.parts.values():
            raise ArtifactMissing(f"trials of this study have no data with the digest {digest}")
        return DataStore.open(prepared.store).files.read(digest)

    # --- one trial at a time --------------------------------------------------------------------

    def begin(self, asked: LeasedLaunch, name: str) -> AskedTrial:
        """Begin an attempt that a program or a person has asked for; `name` is its node."""
        started = wire.dump_payload(Started(name, 0))
        self.leases.append(asked.token, [AgentEvent(1, started)])
        record = self.leases.find(asked.token)
        launch, job = wire.load_launch(asked.launch), wire.load_job(record.job)
        if job.define_by_run:
            self.tell(asked.token, Failed("error", _DEFINE_BY_RUN))
            raise TuneError(_DEFINE_BY_RUN)
        return AskedTrial(
            asked.token,
            job.study,
            launch.trial_number,
            asked.attempt,
            launch.params,
            launch.seed,
            job.metrics,
            asked.lease_s,
            _starting(record) is not None,
        )

    def report(self, token: int, step: int, metrics: Mapping[str, float]) -> LeaseStatus:
        """Store a report of an attempt."""
        return self._add(token, Reported(step, metrics))

    def tell(self, token: int, outcome: Outcome) -> LeaseStatus:
        """Store the outcome of an attempt."""
        return self._add(token, outcome)

    def metrics_of(self, token: int) -> tuple[str, ...]:
        """Return the names of the objectives of an attempt's study."""
        return wire.load_job(self.leases.find(token).job).metrics

    def _add(self, token: int, payload: Payload) -> LeaseStatus:
        message = wire.dump_payload(checked(payload))
        return self.leases.append(token, [AgentEvent(0, message)])

    # --- checkpoints ----------------------------------------------------------------------------

    def save_file(self, token: int, step: int | None, name: str, chunks: Iterable[bytes]) -> None:
        """Store a file as the checkpoint after a step, which the trial's next attempt gets.

        Raises:
            LeaseRefused: the lease was lost.
            WireError: the name is none of a file, or the disk is full.
        """
        record = self.leases.find(token)
        if not is_file_name(name):
            raise WireError(
                f"{name!r} is no name of a file: it has at most 255 bytes, and no folder before it"
            )
        checkpoints = _checkpoints(record)
        number = 1 + checkpoints.count(record.attempt)
        checkpoint = checkpoint_name(record.attempt, -1 if step is None else step, number)
        try:
            location = checkpoints.put_file(checkpoint, name, chunks)
        except OSError as error:
            raise WireError(f"the checkpoint cannot be stored: {error.strerror}") from None
        self._add(token, Checkpointed(location, step))

    def restored(self, token: int) -> UploadedCheckpoint | None:
        """Return the checkpoint that an attempt starts from; None if there is none.

        Raises:
            LeaseRefused: the lease was lost.
        """
        return _starting(self.leases.find(token))

    def upload(self, token: int, name: str, chunks: Iterable[bytes]) -> str:
        """Store a checkpoint and return its path, which its event then names.

        Args:
            token: the attempt's lease.
            name: name of the checkpoint's folder, as `Checkpoints` gives it.
            chunks: an archive, see `checkpoint_archive`.

        Raises:
            LeaseRefused: the lease was lost.
            WireError: the name or the archive is none of a checkpoint.
        """
        record = self.leases.find(token)
        match = _CHECKPOINT.fullmatch(name)
        if match is None or int(match[1]) != record.attempt:
            raise WireError(
                f"{name!r} is no checkpoint of attempt {record.attempt}:"
                f" name it like attempt-{record.attempt}-step-9-1"
            )
        try:
            return _checkpoints(record).put_archive(name, chunks)
        except OSError as error:
            reason = error.strerror or str(error)
            raise WireError(f"the checkpoint cannot be stored: {reason}") from None


_DEFINE_BY_RUN = (
    "the objective of this study declares its parameters itself, with `trial.suggest_*`: "
    "only `tune agent` can run it; or list the `parameters` in the study"
)


def checked(payload: Payload) -> Payload:
    """Return a payload that a coordinator can record.

    Raises:
        WireError: it cannot.
    """
    try:
        match payload:
            case Reported(step, metrics):
                return Reported(as_step(step), _metrics(metrics))
            case Finished(metrics):
                return Finished(_metrics(metrics))
            case Checkpointed(path, int(step)):
                return Checkpointed(path, as_step(step))
    except BadReport as error:
        raise WireError(str(error)) from None
    if (problem := _problem(payload)) is not None:
        raise WireError(f"{type(payload).__name__}: {problem}")
    return payload


def _problem(payload: Payload) -> str | None:
    """Return why a coordinator could not record a payload; None if it could."""
    match payload:
        case Started() if not 0 <= payload.pid < 2**31:
            return "`pid` is no process"
        case OutputLogged() if payload.stream not in STREAMS:
            return f"`stream` is none of {', '.join(STREAMS)}"
        case OutputLogged() if not (0 <= payload.end < 2**63 and 0 <= payload.left_out < 2**63):
            return "`end` and `left_out` are no numbers of characters"
        case Failed() if payload.kind not in _FAILURES:
            return f"`kind` is none of {', '.join(_FAILURES)}"
        case SuggestRequested() if not (
            is_name(payload.name) and _is_distribution(payload.distribution)
        ):
            return "this is no parameter with a distribution of Optuna's"
    return None


def _is_distribution(text: str) -> bool:
    from optuna.distributions import json_to_distribution

    try:
        json_to_distribution(text)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def _metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    if len(metrics) > METRICS_MAX:
        raise WireError(f"a report has {len(metrics)} metrics; {METRICS_MAX} is the most")
    return {name: as_number(name, value) for name, value in metrics.items()}


def _checkpoints(record: LeaseRecord) -> UploadedCheckpoints:
    number = wire.load_launch(record.launch).trial_number
    return UploadedCheckpoints(wire.load_job(record.job).checkpoint_root, number)


def _starting(record: LeaseRecord) -> UploadedCheckpoint | None:
    """Return the checkpoint that an attempt starts from; None if there is none."""
    location = wire.load_launch(record.launch).checkpoint
    # It may be another trial's: a copy in a population starts from one.
    return None if location is None else UploadedCheckpoints.of(location).find(location)
